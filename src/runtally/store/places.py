"""What can be read of a shard, and the copies of it that a view holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..core.changes import FLOW_RUN as FLOW_RUN_FIELDS
from ..core.cohorts import Cohort, cohort_of
from ..core.levels import NONE
from ..core.rows import Rows
from ..core.scopes import ALL, COHORT, Scope
from .cohort_book import ALL_FIELD
from .keys import Keys, raw_bucket
from .records import DEAD, decode_entity

_OVERHEAD: Final = 200


class Place(NamedTuple):
    """Something to read: a bucket's cells of one kind of scope (of cohorts all, else those of the scope that `field`
    names); with `level` RAW a minute's raw runs, with BLOCK those of a block's six hours (or of the bucket without
    expected time), with FLOW_RUN the cohort of the flow run whose id is `field`."""

    level: int
    bucket: int
    kind: Scope = ALL
    field: bytes = ALL_FIELD


RAW: Final = -1
BLOCK: Final = -2
FLOW_RUN: Final = -3


class Reads(NamedTuple):
    """Places by the way in which they are read: cells, other hashes or fields of them, and raw runs by bucket."""

    cells: list[Place]
    others: list[Place]
    minutes: dict[int, list[int]]

    @classmethod
    def of(cls, places: Iterable[Place]) -> Reads:
        """Sort places; blocks are left out."""
        found = cls([], [], defaultdict(list))
        for place in places:
            if place.level >= 0:
                found.cells.append(place)
            elif place.level == FLOW_RUN or (place.level == RAW and place.bucket == NONE):
                found.others.append(place)
            elif place.level == RAW:
                found.minutes[raw_bucket(place.bucket)].append(place.bucket)
        return found

    def hashes(self, keys: Keys) -> list[tuple[bytes, bytes]]:
        """Of cells and then of others each one's hash, and its field there, empty for all."""
        found = [
            (keys.cells(place.kind, place.level, place.bucket), b"" if place.kind is COHORT else place.field)
            for place in self.cells
        ]
        # The raw runs without expected time, and flow runs.
        return found + [
            (keys.raw(NONE), b"") if place.level == RAW else (keys.flow_runs(place.field), place.field)
            for place in self.others
        ]


@dataclass(frozen=True, slots=True)
class RawMinute:
    """The runs of one minute as the shard holds them: ids and records in the same order, their rows, and where in
    `flow_runs` each one's flow run is (0: none).

    The rows' CHILD flag is not set: it belongs to the flow run.
    """

    ids: tuple[bytes, ...]
    records: tuple[bytes, ...]
    rows: Rows
    flow_runs: tuple[bytes | None, ...]
    flow_run: npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Reply:
    """A minute's raw runs that nobody has looked at yet."""

    pairs: list[bytes]


Copy = RawMinute | Reply | Cohort


def cohort_in(record: bytes | None) -> Cohort:
    """The cohort of the task runs of a flow run that is there or only referred to; a deleted one has none."""
    values = None if record in (None, DEAD) else decode_entity(record or b"", len(FLOW_RUN_FIELDS.state_fields)).values
    return cohort_of(values)


def weigh(copy: Copy) -> int:
    """About the bytes that a copy takes."""
    if isinstance(copy, RawMinute):
        return _OVERHEAD + 400 * len(copy.ids)
    if isinstance(copy, Reply):
        return _OVERHEAD + 150 * len(copy.pairs)
    return 2 * _OVERHEAD

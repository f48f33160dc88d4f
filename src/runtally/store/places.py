"""What can be read of a shard, and the copies of it that a view holds."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..core.cells import CELL
from ..core.changes import FLOW_RUN as FLOW_RUN_FIELDS
from ..core.cohorts import Cohort, cohort_of
from ..core.levels import NONE, PAGE
from ..core.rows import Rows
from ..core.scopes import ALL, Scope
from .cohort_book import ALL_NAME
from .keys import DIGITS, Keys, raw_bucket
from .records import DEAD, decode_entity

_OVERHEAD: Final = 200


class Place(NamedTuple):
    """Something to read: the cells of one kind of scope of a page, which `bucket` names (of cohorts all, else those of
    the scope of that `name`); with `level` RAW a minute's raw runs, with BLOCK those of a block's six hours (or of the
    bucket without expected time), with FLOW_RUN the cohort of the flow run whose id is `name`."""

    level: int
    bucket: int
    kind: Scope = ALL
    name: bytes = ALL_NAME


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

    def hashes(self, keys: Keys) -> list[tuple[bytes, tuple[bytes, ...]]]:
        """Of cells and then of others each one's hash, and its fields there, none for all."""
        found = [(keys.cells(place.kind, place.level, place.bucket), _fields(place)) for place in self.cells]
        # The raw runs without expected time, and flow runs.
        return found + [
            (keys.raw(NONE), ()) if place.level == RAW else (keys.flow_runs(place.name), (place.name,))
            for place in self.others
        ]


class Page(NamedTuple):
    """The cells of a page, value by value: the number in each one's field (where the bucket stands in its page, and of
    cohorts ten times their number as well), how many cells each one is (both in 64 bits), and the packed cells."""

    numbers: bytes
    sizes: bytes
    cells: bytes


@dataclass(frozen=True, slots=True)
class RawMinute:
    """The runs of one minute as the shard holds them: their rows, and where in `flow_runs` each one's flow run is (0:
    none).

    The rows' CHILD flag is not set: it belongs to the flow run.
    """

    rows: Rows
    flow_runs: tuple[bytes | None, ...]
    flow_run: npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Reply:
    """A minute's raw runs that nobody has looked at yet."""

    pairs: list[bytes]


Copy = RawMinute | Reply | Cohort


def page_in(place: Place, reply: Sequence[Any]) -> Page:
    """What Redis says of a place of cells."""
    if place.kind.attribute is None:
        fields, values = reply[::2], reply[1::2]
    else:
        fields, values = [*compress(DIGITS, reply)], [*filter(None, reply)]
    sizes = array("q", [len(value) // CELL.itemsize for value in values])
    return Page(array("q", map(int, fields)).tobytes(), sizes.tobytes(), b"".join(values))


def cohort_in(record: bytes | None) -> Cohort:
    """The cohort of the task runs of a flow run that is there or only referred to; a deleted one has none."""
    values = None if record in (None, DEAD) else decode_entity(record or b"", len(FLOW_RUN_FIELDS.state_fields)).values
    return cohort_of(values)


def _fields(place: Place) -> tuple[bytes, ...]:
    return () if place.kind.attribute is None else tuple(place.name + end for end in DIGITS[: PAGE[place.level]])


def weigh(copy: Copy) -> int:
    """About the bytes that a copy takes."""
    if isinstance(copy, RawMinute):
        return _OVERHEAD + 150 * len(copy.rows)
    if isinstance(copy, Reply):
        return _OVERHEAD + 150 * len(copy.pairs)
    return 2 * _OVERHEAD

"""What can be read of a shard, and the copies of it that a view holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..core.cells import CELL
from ..core.changes import FLOW_RUN as FLOW_RUN_FIELDS
from ..core.cohorts import Cohort, cohort_of
from ..core.levels import MINUTE_US, NONE, PAGE
from ..core.rows import Ints, Rows
from ..core.scopes import ALL, Scope
from .cohort_book import ALL_NAME
from .keys import DIGITS, Keys, raw_bucket
from .link import Command
from .records import DEAD, decode_entity, fixed_columns
from .scripts import READ_SCOPE

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
    """Places by the way in which they are read: cells that are all of a hash; those of one scope, by its name; other
    hashes or fields of them; and raw runs by bucket."""

    cells: list[Place]
    scopes: dict[bytes, list[Place]]
    others: list[Place]
    minutes: dict[int, list[int]]

    @classmethod
    def of(cls, places: Iterable[Place]) -> Reads:
        """Sort places; blocks are left out."""
        found = cls([], defaultdict(list), [], defaultdict(list))
        for place in places:
            if place.level >= 0:
                (found.cells if place.kind.attribute is None else found.scopes[place.name]).append(place)
            elif place.level == FLOW_RUN or (place.level == RAW and place.bucket == NONE):
                found.others.append(place)
            elif place.level == RAW:
                found.minutes[raw_bucket(place.bucket)].append(place.bucket)
        return found

    def commands(self, keys: Keys) -> list[Command]:
        """What reads them: cells and others one by one, then those of scopes by name, and raw runs by bucket. As a rule
        not in scripts, which turn every value twice and take five times as long."""
        return [
            *(("HGETALL", keys.cells(place.kind, place.level, place.bucket)) for place in self.cells),
            # The raw runs without expected time, and flow runs.
            *(
                ("HVALS", keys.raw(NONE)) if place.level == RAW else ("HMGET", keys.flow_runs(place.name), place.name)
                for place in self.others
            ),
            *(_of_scope(keys, name, places) for name, places in self.scopes.items()),
            *(("HVALS", keys.raw(bucket)) for bucket in self.minutes),
        ]


def _of_scope(keys: Keys, name: bytes, places: Sequence[Place]) -> Command:
    pages = [keys.cells(place.kind, place.level, place.bucket) for place in places]
    return ("EVAL", READ_SCOPE, len(pages), *pages, name, *(PAGE[place.level] for place in places))


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

    records: list[bytes]


Copy = RawMinute | Reply | Cohort


def pages_in(replies: Sequence[Sequence[bytes]]) -> list[Page]:
    """What Redis says of hashes of cells, each as a whole."""
    first = [0, *accumulate(len(reply) // 2 for reply in replies)]
    fields = b" ".join(chain.from_iterable(reply[::2] for reply in replies))
    # The fastest way to read ten thousands of numbers.
    numbers = np.fromstring(fields, np.int64, sep=" ") if fields else np.empty(0, np.int64)
    return _pages(first, numbers, [*chain.from_iterable(reply[1::2] for reply in replies)])


def scope_pages_in(count: int, reply: Sequence[Any]) -> list[Page]:
    """What `READ_SCOPE` says of so many pages."""
    at, numbers = np.divmod(np.array(reply[::2], np.int64), len(DIGITS))
    return _pages(at.searchsorted(np.arange(count + 1)).tolist(), numbers, reply[1::2])


def _pages(first: Sequence[int], numbers: Ints, values: Sequence[bytes]) -> list[Page]:
    """Pages from the values of all of them; `first` is where each one's begin, and the end."""
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    begin = np.concatenate([[0], lengths.cumsum()])[first].tolist()
    at = [each * numbers.itemsize for each in first]
    packed, sizes, cells = numbers.tobytes(), (lengths // CELL.itemsize).tobytes(), b"".join(values)
    return [
        Page(packed[low:high], sizes[low:high], cells[begins:ends])
        for (low, high), (begins, ends) in zip(pairwise(at), pairwise(begin), strict=True)
    ]


def minutes_in(minutes: Sequence[int], replies: Sequence[Sequence[bytes]]) -> list[Reply]:
    """What Redis says of raw buckets, of some of their minutes."""
    records = [*chain.from_iterable(replies)]
    minute = fixed_columns(records)["expected"] // MINUTE_US
    order = minute.argsort(kind="stable")
    minute = minute[order]
    first = minute.searchsorted(minutes).tolist()
    last = minute.searchsorted(minutes, side="right").tolist()
    at = order.tolist()
    return [Reply([records[one] for one in at[begin:end]]) for begin, end in zip(first, last, strict=True)]


def cohort_in(record: bytes | None) -> Cohort:
    """The cohort of the task runs of a flow run that is there or only referred to; a deleted one has none."""
    values = None if record in (None, DEAD) else decode_entity(record or b"", len(FLOW_RUN_FIELDS.state_fields)).values
    return cohort_of(values)


def weigh(copy: Copy) -> int:
    """About the bytes that a copy takes."""
    if isinstance(copy, RawMinute):
        return _OVERHEAD + 150 * len(copy.rows)
    if isinstance(copy, Reply):
        return _OVERHEAD + 150 * len(copy.records)
    return 2 * _OVERHEAD

"""The cells of one day of a shard, made anew from its raw runs, beside the cells that are stored.

A day is a unit: no page of buckets is longer. It is read in *pieces*, each by a script that runs on the server: six
hours of raw runs, their flow runs and the pages within, or the pages of the whole day. Runs without expected time make
a day of their own, NONE.

    anew = fold(all raw runs of the day, each in the cohort of its flow run)
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..core.cells import CELL, Sums, joined, of_level, pack, summed, unpack
from ..core.cohorts import NO_FLOW_RUN, Cohort, cohort_of, knowing
from ..core.fold import fold
from ..core.groups import States
from ..core.levels import COARSEST, DAY_US, LEVELS, MINUTE_US, NONE, PAGE, page_of
from ..core.rows import Ints, concat
from ..core.scopes import ALL, SCOPES, Scope
from .blocks import BLOCK_LEVEL, MINUTES
from .cohort_book import CohortBook
from .keys import DIGITS, Keys, cells_field, raw_bucket
from .link import Command
from .records import DEAD, WIDTH, columns_of, decode_flow_runs, has_flow_run, rows_of_columns

_MINUTES_A_DAY: Final = DAY_US // MINUTE_US
_ENDS: Final = tuple(frozenset(DIGITS[:buckets]) for buckets in PAGE)
"""By level, how a field of cells can end."""

_READ: Final = f"""
local root = KEYS[1]
local fixed, count, seen, ids, flow_runs = {{}}, 0, {{}}, {{}}, {{}}
local function add(key)
  local records = redis.call('HVALS', key)
  for at = 1, #records do
    local record = string.sub(records[at], 1, {WIDTH})
    count = count + 1
    fixed[count] = record
    local id = string.sub(record, {WIDTH - 15})
    if not seen[id] then
      seen[id] = true
      local bucket = (string.byte(id, 15) % 16) * 256 + string.byte(id, 16)
      ids[#ids + 1] = id
      flow_runs[#flow_runs + 1] = redis.call('HGET', root .. 'flow_runs:' .. bucket, id) or ''
    end
  end
end
if ARGV[1] == 'none' then
  add(root .. 'raw:none')
elseif ARGV[1] ~= '' then
  for bucket = tonumber(ARGV[1]), tonumber(ARGV[2]) do add(root .. 'raw:' .. bucket) end
end
local sizes, pairs = {{}}, {{}}
local function cells(kind, page)
  local found = redis.call('HGETALL', root .. 'cells:' .. kind .. ':' .. page)
  for at = 1, #found do pairs[#pairs + 1] = found[at] end
  sizes[#sizes + 1] = #found / 2
end
for at = 3, #ARGV, 3 do
  if ARGV[at + 1] == 'none' then
    cells(ARGV[at], 'none')
  else
    for page = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]) do cells(ARGV[at], page) end
  end
end
return {{table.concat(fixed), ids, flow_runs, sizes, pairs}}
"""
"""KEYS[1]: what the shard's keys begin with. ARGV: the first and last bucket of raw runs, `none` for those without
expected time, "" for no runs; then kind and level of scopes, first and last page, for each span."""


@dataclass(frozen=True, slots=True)
class Span:
    """Pages of one kind of scope and level, from `first` to `last`."""

    kind: Scope
    level: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Piece:
    """What one script reads: raw runs of the minutes `first` to `last` (None: of none), and spans of pages."""

    first: int | None
    last: int | None
    spans: tuple[Span, ...]

    def command(self, keys: Keys) -> Command:
        """The command whose reply goes to `recount`."""
        raw = ("", "")
        if self.first is not None and self.last is not None:
            raw = _name(raw_bucket(self.first)), _name(raw_bucket(self.last))
        spans = [
            word
            for span in self.spans
            for word in (f"{span.kind.letter}{span.level}", _name(span.first), _name(span.last))
        ]
        return ("EVAL", _READ, 1, keys.root, *raw, *spans)

    def touched_by(self, minute: int) -> bool:
        """Whether a change of that minute of this day can change what the piece reads."""
        return self.first is None or self.last is None or self.first <= minute <= self.last


def pieces_of(day: int) -> list[Piece]:
    """The pieces of a day."""
    if day == NONE:
        return [Piece(NONE, NONE, tuple(Span(kind, 0, NONE, NONE) for kind in SCOPES if 0 in kind.levels))]
    begin = day * _MINUTES_A_DAY
    pieces = [
        Piece(first, first + MINUTES - 1, _spans(first, first + MINUTES, range(BLOCK_LEVEL)))
        for first in range(begin, begin + _MINUTES_A_DAY, MINUTES)
    ]
    return [*pieces, Piece(None, None, _spans(begin, begin + _MINUTES_A_DAY, range(BLOCK_LEVEL, len(LEVELS))))]


def day_of(minute: int) -> int:
    """The day that holds a minute; NONE for NONE."""
    return NONE if minute == NONE else minute * MINUTE_US // COARSEST.width_us


class Entry(NamedTuple):
    """One value of a hash of cells: of which page, by which field, and the packed cells."""

    kind: Scope
    level: int
    page: int
    field: bytes
    cells: bytes

    @property
    def scope(self) -> bytes:
        """The name of its scope."""
        return self.field[:-1]

    @property
    def bucket(self) -> int:
        """The bucket; the first one of the page for a field that names none."""
        return self.page * PAGE[self.level] + (int(self.field[-1:]) if self._names_bucket else 0)

    @property
    def is_whole(self) -> bool:
        """Whether it is cells of a bucket, as far as field and length tell."""
        size = len(self.cells)
        return self._names_bucket and size > 0 and size % CELL.itemsize == 0

    @property
    def _names_bucket(self) -> bool:
        return self.field[-1:] in _ENDS[self.level]


@dataclass(frozen=True, slots=True)
class Stored:
    """The stored values of one kind of scope and level: page, field and packed cells of each."""

    kind: Scope
    level: int
    pages: Sequence[int]
    fields: Sequence[bytes]
    cells: Sequence[bytes]

    def entries(self) -> Iterator[Entry]:
        """One by one."""
        for page, field, cells in zip(self.pages, self.fields, self.cells, strict=True):
            yield Entry(self.kind, self.level, page, field, cells)

    def whole(self) -> tuple[Stored, list[Entry]]:
        """Those that are cells of a bucket, and those that are none."""
        broken = [entry for entry in self.entries() if not entry.is_whole]
        if not broken:
            return self, broken
        kept = [entry for entry in self.entries() if entry.is_whole]
        pages, fields = [entry.page for entry in kept], [entry.field for entry in kept]
        return Stored(self.kind, self.level, pages, fields, [entry.cells for entry in kept]), broken


@dataclass(frozen=True, slots=True)
class Recount:
    """A day's cells: what is stored, and by level what should be, by the scope numbers of a `CohortBook`."""

    runs: int
    stored: Sequence[Stored]
    anew: Sequence[Sums]

    def stored_sums(self, level: int, book: CohortBook) -> tuple[Sums, list[Entry]]:
        """The stored cells of one level as columns, and the values that are none."""
        parts = [_as_sums(Stored(ALL, level, (), (), ()), book)]
        broken: list[Entry] = []
        for stored in self.stored:
            if stored.level == level:
                whole, others = stored.whole()
                parts.append(_as_sums(whole, book))
                broken += others
        return joined(parts), broken

    def wanted(self, book: CohortBook) -> Iterator[Entry]:
        """What should be stored."""
        for level, sums in enumerate(self.anew):
            packed = pack(sums, level).tobytes()
            differs = (sums.bucket[1:] != sums.bucket[:-1]) | (sums.scope[1:] != sums.scope[:-1])
            first = np.flatnonzero(np.concatenate(([True], differs))) if len(sums) else np.zeros(0, np.intp)
            ends = [*first[1:].tolist(), len(sums)][: len(first)]
            places = zip(sums.bucket[first].tolist(), sums.scope[first].tolist(), first.tolist(), ends, strict=True)
            for bucket, scope, begin, end in places:
                kind, name = book.names[scope]
                cells = packed[begin * CELL.itemsize : end * CELL.itemsize]
                yield Entry(kind, level, page_of(level, bucket), cells_field(name, level, bucket), cells)


def recount(pieces: Sequence[Piece], replies: Sequence[Any], book: CohortBook, states: States) -> Recount:
    """A day from the replies of all its pieces. A cohort that the book does not know goes to its `fresh`."""
    columns = columns_of(b"".join([reply[0] for reply in replies]))
    cohorts = _cohorts(columns["flow_run"].tolist(), has_flow_run(columns), replies, book.number)
    rows = rows_of_columns(columns, book.child()[cohorts] if len(cohorts) else np.zeros(0, np.bool_))
    folded = summed(fold(rows, len(rows), cohorts, book.scopes(), states.type_codes))
    anew = [of_level(folded, level.number) for level in LEVELS]
    stored = [part for piece, reply in zip(pieces, replies, strict=True) for part in _stored(piece, reply[3], reply[4])]
    return Recount(len(rows), stored, anew)


def attributed_anew(
    pieces: Sequence[Piece], replies: Sequence[Any], book: CohortBook, states: States, names: Container[str]
) -> Sums:
    """What changes in the cells of a day when runs that were counted in the cohorts of these attributes are
    counted in those of this version's; also where other runs of the same cells have no records any more."""
    columns = columns_of(b"".join([reply[0] for reply in replies]))
    flow_runs, given = columns["flow_run"].tolist(), has_flow_run(columns)
    new = _cohorts(flow_runs, given, replies, book.number)
    old = _cohorts(flow_runs, given, replies, lambda cohort: book.committed_number(knowing(cohort, names)))
    child = book.child()
    return fold(
        concat([rows_of_columns(columns, child[new]), rows_of_columns(columns, child[old])]),
        len(new),
        np.concatenate([new, old]),
        book.scopes(),
        states.type_codes,
    )


def _cohorts(
    flow_runs: list[bytes],
    given: npt.NDArray[np.bool_],
    replies: Sequence[Any],
    number: Callable[[Cohort], int],
) -> Ints:
    wanted = set(compress(flow_runs, given.tolist()))
    numbers: dict[bytes, int] = {}
    for _, ids, records, _, _ in replies:
        alive = iter(decode_flow_runs([record for record in records if record != DEAD]))
        for flow_run, record in zip(ids, records, strict=True):
            values = None if record == DEAD else next(alive)
            if flow_run in wanted and flow_run not in numbers:
                numbers[flow_run] = number(cohort_of(values))
    found = np.array([numbers.get(flow_run, -1) for flow_run in flow_runs], np.int64)
    if not given.all():
        found[~given] = number(NO_FLOW_RUN)
    return found


def _stored(piece: Piece, counts: Sequence[int], pairs: Sequence[bytes]) -> Iterator[Stored]:
    at = first = 0
    for span in piece.spans:
        sizes = counts[first : first + span.last - span.first + 1]
        first += len(sizes)
        end = at + 2 * sum(sizes)
        pages = np.repeat(np.arange(span.first, span.last + 1), sizes).tolist()
        yield Stored(span.kind, span.level, pages, pairs[at:end:2], pairs[at + 1 : end : 2])
        at = end


def _as_sums(stored: Stored, book: CohortBook) -> Sums:
    counts = [len(cells) // CELL.itemsize for cells in stored.cells]
    names = [field[:-1] for field in stored.fields]
    scopes = {name: book.scope(stored.kind, name) for name in set(names)}
    child = np.array([int(field[-1:]) for field in stored.fields], np.int64)
    return unpack(
        np.frombuffer(b"".join(stored.cells), CELL),
        np.repeat(np.array(stored.pages, np.int64) * PAGE[stored.level] + child, counts),
        np.repeat(np.array([scopes[name] for name in names], np.int64), counts),
        stored.level,
    )


def _spans(begin: int, end: int, levels: range) -> tuple[Span, ...]:
    """All pages of those levels between two minutes."""
    spans = []
    for kind in SCOPES:
        for level in kind.levels:
            if level in levels:
                width = LEVELS[level].width_us // MINUTE_US * PAGE[level]
                spans.append(Span(kind, level, begin // width, end // width - 1))
    return tuple(spans)


def _name(number: int | None) -> str:
    return "none" if number == NONE else str(number)

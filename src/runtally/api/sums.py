"""Sums of cells over the shards, by what they were asked for: what makes a repeated question cheap.

A sum is one bucket's cells of a resolved selection, added up over all shards: one entry per (code, group). It is kept
until one of the shards' buckets changes. In sums the column `bucket` holds places, so that levels can be mixed.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, compress
from typing import Any, Final, NamedTuple

import numpy as np

from ..core.cells import CELL, Sums, as_table, of_table, selected, summed, unpack
from ..core.levels import LEVELS, bucket_of_place, level_of, place_of
from ..core.rows import Ints
from ..core.scopes import COHORT
from ..store.cell_copies import Cells
from ..store.places import Place
from ..store.view import View
from .numbering import Numbering
from .resolved import Resolved

_OVERHEAD: Final = 100
_NOTHING: Final = unpack(np.empty(0, CELL), np.empty(0, np.int64), np.empty(0, np.int64), 0)
_ROWS: Final = 1 + len(as_table(_NOTHING))
"""The columns of sums, and the position of the view that an entry is of."""
_ALL_VIEWS: Final = -1
Missing = defaultdict[int, list[Place]]
"""By a view's position, what has to be read."""
_Make = Callable[[Sequence[View], Resolved, Ints, Missing], None]


class Found(NamedTuple):
    """Cells of several places: the number of each one's place among those that were asked for, and the position of its
    view, −1 for the sum of all shards."""

    sums: Sums
    place: Ints
    view: Ints


class CellSums:
    """Sums by outcome and place, within a budget of bytes. Under the complement of an outcome's number, each shard's
    cells of a minute apart. What is kept is packed, entry by entry: thousands of pieces are joined at once."""

    def __init__(self, budget_bytes: int, numbering: Numbering) -> None:
        self._numbering = numbering
        self._limit = budget_bytes
        # The outcome used last stands last.
        self._books: OrderedDict[int, dict[int, bytes]] = OrderedDict()
        self._outcomes: defaultdict[int, set[int]] = defaultdict(set)
        self.weight = 0
        self.hits = self.misses = 0

    def drop(self, buckets: Iterable[tuple[int, int]] | None) -> None:
        """Forget the sums of buckets (level, bucket) that changed; None: all."""
        if buckets is None:
            self._books.clear()
            self._outcomes.clear()
            self.weight = 0
            return
        for level, bucket in buckets:
            place = int(place_of(level, bucket))
            for outcome in self._outcomes.pop(place, ()):
                self.weight -= _weight(self._books[outcome].pop(place))

    def trim(self) -> None:
        """Keep within the budget, between answers: of what was used longest ago, the half that was made first goes."""
        while self.weight > self._limit:
            outcome, book = next(iter(self._books.items()))
            for place in [*book][: 1 + len(book) // 2]:
                self.weight -= _weight(book.pop(place))
                self._outcomes[place].discard(outcome)
            if not book:
                del self._books[outcome]

    def of(self, views: Sequence[View], resolved: Resolved, places: Ints, minutes: Ints, missing: Missing) -> Found:
        """The sums of places, and of minutes each shard's cells apart, as far as they can be made; what has to be read
        for the others goes to `missing`. Places are numbered before minutes."""
        pieces = self._pieces(resolved.number, places, self._make, views, resolved, missing)
        pieces += self._pieces(~resolved.number, minutes, self._cut, views, resolved, missing)
        entries = np.frombuffer(b"".join(pieces), np.int64).reshape(-1, _ROWS)
        # A copy in any case: whoever asked may change it.
        table = np.array(entries.T, order="C")
        sizes = np.fromiter(map(len, pieces), np.int64, len(pieces)) // (_ROWS * table.itemsize)
        return Found(of_table(table[:-1]), np.repeat(np.arange(len(pieces)), sizes), table[-1])

    def _pieces(
        self, key: int, places: Ints, make: _Make, views: Sequence[View], resolved: Resolved, missing: Missing
    ) -> list[bytes]:
        book = self._book(key)
        wanted = places.tolist()
        found = [*map(book.get, wanted)]
        if None in found:
            lacking = places[[piece is None for piece in found]]
            self.hits -= len(lacking)
            make(views, resolved, lacking, missing)
            found = [book.get(place, b"") for place in wanted]
        self.hits += len(places)
        return found  # type: ignore[return-value]  # none of it is None

    def _cut(self, views: Sequence[View], resolved: Resolved, places: Ints, missing: Missing) -> None:
        minutes = bucket_of_place(places, 0).tolist()
        copies = cells_of(views, resolved, 0, minutes, missing)
        ready = _ready(copies)
        if ready:
            kept = [[stored[number] for number in ready] for stored in copies]
            sums, view = gathered(views, resolved, 0, [minutes[n] for n in ready], kept, self._numbering)
            order = np.argsort(sums.bucket, kind="stable")
            self._keep(~resolved.number, places[ready], selected(sums, order), view[order])

    def _make(self, views: Sequence[View], resolved: Resolved, places: Ints, missing: Missing) -> None:
        for level in LEVELS:
            at_level = places[level_of(places) == level.number]
            if not len(at_level):
                continue
            buckets = bucket_of_place(at_level, level.number).tolist()
            copies = cells_of(views, resolved, level.number, buckets, missing)
            ready = _ready(copies)
            if ready:
                kept = [[stored[number] for number in ready] for stored in copies]
                wanted = [buckets[n] for n in ready]
                sums = summed(gathered(views, resolved, level.number, wanted, kept, self._numbering)[0])
                self._keep(resolved.number, at_level[ready], sums, np.full(len(sums), _ALL_VIEWS))

    def _keep(self, key: int, places: Ints, sums: Sums, view: Ints) -> None:
        """Keep entries, which are in the order of their places, by place."""
        book = self._book(key)
        self.misses += len(places)
        packed = np.concatenate([as_table(sums), view[None, :]]).T.tobytes()
        width = _ROWS * view.itemsize
        first = (np.searchsorted(sums.bucket, places) * width).tolist()
        last = (np.searchsorted(sums.bucket, places, side="right") * width).tolist()
        for place, begin, end in zip(places.tolist(), first, last, strict=True):
            piece = book[place] = packed[begin:end]
            self.weight += _weight(piece)
            self._outcomes[place].add(key)

    def _book(self, outcome: int) -> dict[int, bytes]:
        """The sums of an outcome by place, now the one used last."""
        book = self._books.setdefault(outcome, {})
        self._books.move_to_end(outcome)
        return book


def _weight(piece: bytes) -> int:
    return len(piece) + _OVERHEAD


def _ready(copies: Sequence[Sequence[Cells | None]]) -> list[int]:
    """The numbers of the buckets whose cells are here of every shard."""
    return [number for number, stored in enumerate(zip(*copies, strict=True)) if None not in stored]


def cells_of(
    views: Sequence[View], resolved: Resolved, level: int, buckets: Sequence[int], missing: Missing
) -> list[list[Cells | None]]:
    """By view and bucket, the cells that a selection needs; what is not here goes to `missing`."""
    wanted = [resolved.place(level, bucket) for bucket in buckets]
    copies: list[list[Cells | None]] = []
    for position, view in enumerate(views):
        stored = view.cells(wanted)
        copies.append(stored)
        if None in stored:
            missing[position] += [place for place, copy in zip(wanted, stored, strict=True) if copy is None]
    return copies


def gathered(
    views: Sequence[View],
    resolved: Resolved,
    level: int,
    buckets: Sequence[int],
    copies: Sequence[Sequence[Cells | None]],
    numbering: Numbering,
) -> tuple[Sums, Ints]:
    """The cells of some buckets of all shards, by place and code and with our groups, and the position of each one's
    view."""
    packed: list[bytes] = []
    groups, codes, positions, of_bucket = [], [], [], []
    for position, (view, stored) in enumerate(zip(views, copies, strict=True)):
        bucket, code, mine = _pieces_of(view, resolved, level, buckets, stored, numbering)
        sizes = np.fromiter(map(len, mine), np.int64, len(mine)) // CELL.itemsize
        joined = b"".join(mine)
        packed.append(joined)
        group = np.frombuffer(joined, CELL)["group"]
        groups.append(numbering.group(view, group))
        codes.append(np.repeat(code, sizes))
        of_bucket.append(np.repeat(bucket, sizes))
        positions.append(np.full(len(group), position))
    bucket_of = np.concatenate(of_bucket)
    sums = unpack(np.frombuffer(b"".join(packed), CELL), bucket_of, np.concatenate(codes), level)
    sums.group = np.concatenate(groups)
    sums.bucket = place_of(level, bucket_of)
    return sums, np.concatenate(positions)


def _pieces_of(
    view: View,
    resolved: Resolved,
    level: int,
    buckets: Sequence[int],
    stored: Sequence[Cells | None],
    numbering: Numbering,
) -> tuple[Ints, Ints, list[bytes]]:
    """Of one shard, packed cells of those scopes that a selection takes, with each one's bucket and code."""
    bucket = np.array(buckets, np.int64)
    if resolved.kind(level) is not COHORT:
        code = 0 if resolved.code is None else resolved.single_code
        return bucket, np.full(len(buckets), code), [copy for copy in stored if isinstance(copy, bytes)]
    assert resolved.code is not None
    # Where there are no cohorts, nothing is there to be walked through, of whatever type.
    flat: list[Any] = [*chain.from_iterable(copy or () for copy in stored)]
    cohorts = np.fromiter(map(int, flat[::2]), np.int64, len(flat) // 2)
    sizes = [len(copy or ()) // 2 for copy in stored]
    codes = resolved.code[numbering.cohort(view)[cohorts]]
    taken = codes >= 0
    return np.repeat(bucket, sizes)[taken], codes[taken], [*compress(flat[1::2], taken.tolist())]

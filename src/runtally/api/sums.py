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
from ..core.levels import PAGE, bucket_of_place, level_of, page_of, place_of
from ..core.rows import Ints
from ..core.scopes import COHORT
from ..store.keys import DIGITS
from ..store.places import Page, Place
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
        found = self._gathered(views, resolved, 0, places, missing)
        if found is not None:
            ready, sums, view = found
            order = np.argsort(sums.bucket, kind="stable")
            self._keep(~resolved.number, ready, selected(sums, order), view[order])

    def _make(self, views: Sequence[View], resolved: Resolved, places: Ints, missing: Missing) -> None:
        levels = level_of(places)
        for level in np.unique(levels).tolist():
            found = self._gathered(views, resolved, level, places[levels == level], missing)
            if found is not None:
                ready, sums = found[0], summed(found[1])
                self._keep(resolved.number, ready, sums, np.full(len(sums), _ALL_VIEWS))

    def _gathered(
        self, views: Sequence[View], resolved: Resolved, level: int, places: Ints, missing: Missing
    ) -> tuple[Ints, Sums, Ints] | None:
        """Of places of one level those whose pages are here of every shard, their cells, by place and code and with our
        groups, and the position of each cell's view; None where nothing is."""
        buckets = bucket_of_place(places, level)
        pages, of_page = np.unique(page_of(level, buckets), return_inverse=True)
        copies = pages_of(views, resolved, level, pages.tolist(), missing)
        here = [None not in stored for stored in zip(*copies, strict=True)]
        ready = np.array(here, np.bool_)[of_page]
        if not ready.any():
            return None
        kept = [[*compress(stored, here)] for stored in copies]
        return places[ready], *gathered(views, resolved, level, buckets[ready], pages[here], kept, self._numbering)

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


def pages_of(
    views: Sequence[View], resolved: Resolved, level: int, pages: Sequence[int], missing: Missing
) -> list[list[Page | None]]:
    """By view and page, the cells that a selection needs; what is not here goes to `missing`."""
    wanted = [resolved.place(level, page) for page in pages]
    copies: list[list[Page | None]] = []
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
    buckets: Ints,
    pages: Ints,
    copies: Sequence[Sequence[Any]],
    numbering: Numbering,
) -> tuple[Sums, Ints]:
    """The cells of some buckets of all shards, by place and code and with our groups, and the position of each one's
    view. `copies`, by view, are of these pages."""
    flat: list[Page] = [*chain.from_iterable(copies)]
    number = np.frombuffer(b"".join([page.numbers for page in flat]), np.int64)
    size = np.frombuffer(b"".join([page.sizes for page in flat]), np.int64)
    cells = np.frombuffer(b"".join([page.cells for page in flat]), CELL)
    values = np.array([len(page.numbers) for page in flat], np.int64) // number.itemsize
    scope, child = np.divmod(number, len(DIGITS))
    bucket = np.repeat(np.tile(pages, len(views)) * PAGE[level], values) + child
    position = np.repeat(np.arange(len(views)), values.reshape(len(views), -1).sum(axis=1))
    wanted = np.isin(bucket, buckets)
    if resolved.kind(level) is COHORT:
        assert resolved.code is not None
        known = [numbering.cohort(view) for view in views]
        first = np.cumsum([0, *map(len, known[:-1])])
        code = resolved.code[np.concatenate(known)[first[position] + scope]]
        wanted &= code >= 0
    else:
        code = np.full(len(number), 0 if resolved.code is None else resolved.single_code)
    if not wanted.all():
        cells = cells[np.repeat(wanted, size)]
        size, bucket, code, position = size[wanted], bucket[wanted], code[wanted], position[wanted]
    bucket, position = np.repeat(bucket, size), np.repeat(position, size)
    sums = unpack(cells, bucket, np.repeat(code, size), level)
    of_view = np.searchsorted(position, np.arange(len(views) + 1)).tolist()
    sums.group = np.concatenate(
        [
            numbering.group(view, cells["group"][begin:end])
            for view, begin, end in zip(views, of_view[:-1], of_view[1:], strict=True)
        ]
    )
    sums.bucket = place_of(level, bucket)
    return sums, position

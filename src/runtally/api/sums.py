"""Sums of cells over the shards, by what they were asked for: what makes a repeated question cheap.

A sum is one bucket's cells of a resolved selection, added up over all shards: one entry per (code, group). It is kept
until one of the shards' buckets changes. In sums the column `bucket` holds places, so that levels can be mixed.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain, compress
from typing import Any, Final, NamedTuple

import numpy as np

from ..core.cells import CELL, Sums, selected, summed, unpack
from ..core.combine import Mask
from ..core.levels import bucket_in, level_and_page, pages_of, place_of
from ..core.rows import Ints
from ..core.scopes import COHORT
from ..store.hot import Hot
from ..store.keys import DIGITS
from ..store.places import Page, Place
from ..store.view import View
from .numbering import Numbering
from .resolved import Resolved

_OVERHEAD: Final = 100
_NOTHING: Final = unpack(np.empty(0, CELL), np.empty(0, np.int64), np.empty(0, np.int64), 0)
_ROWS: Final = 1 + len(_NOTHING.table)
"""The columns of sums, and the position of the view that an entry is of."""
_ALL_VIEWS: Final = -1
_MOST_LOST: Final = 256
Missing = defaultdict[int, list[Place]]
"""By a view's position, what has to be read."""


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
        self._books: OrderedDict[int, _Book] = OrderedDict()
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
                book = self._books[outcome]
                self.weight -= _weight(book.pieces.pop(place))
                book.hot.lose(place)

    def trim(self) -> None:
        """Keep within the budget, between answers: of what was used longest ago, the half that was made first goes."""
        while self.weight > self._limit:
            outcome, book = next(iter(self._books.items()))
            for place in [*book.pieces][: 1 + len(book.pieces) // 2]:
                self.weight -= _weight(book.pieces.pop(place))
                self._outcomes[place].discard(outcome)
            if not book.pieces:
                del self._books[outcome]

    def of(self, views: Sequence[View], resolved: Resolved, places: Ints, minutes: Ints, missing: Missing) -> Found:
        """The sums of places, and of minutes each shard's cells apart, as far as they can be made; what has to be read
        for the others goes to `missing`. Places are numbered before minutes, and are none of them."""
        wholes, cuts = self._book(resolved.number), self._book(~resolved.number)
        pieces = [*wholes.use(places.tolist()), *cuts.use(minutes.tolist())]
        if None in pieces:
            lacking = np.array([piece is None for piece in pieces], np.bool_)
            self.hits -= int(lacking.sum())
            lacking_places, lacking_minutes = places[lacking[: len(places)]], minutes[lacking[len(places) :]]
            wholes.hot.want(lacking_places.tolist())
            cuts.hot.want(lacking_minutes.tolist())
            self.misses += self._make(views, resolved, lacking_places, lacking_minutes, missing)
            pieces = [*map(wholes.pieces.get, places.tolist()), *map(cuts.pieces.get, minutes.tolist())]
            pieces = [piece or b"" for piece in pieces]
        self.hits += len(pieces)
        entries = np.frombuffer(b"".join(pieces), np.int64).reshape(-1, _ROWS)  # type: ignore[arg-type]  # None is no more
        # A copy in any case: whoever asked may change it.
        table = np.array(entries.T, order="C")
        sizes = np.fromiter(map(len, pieces), np.int64, len(pieces)) // (_ROWS * table.itemsize)  # type: ignore[arg-type]
        return Found(Sums(table[:-1]), np.arange(len(pieces)).repeat(sizes), table[-1])

    def remake(self, views: Sequence[View], resolved: Resolved) -> None:
        """Make the sums of an outcome that changed lately and are likely to be asked for."""
        nothing = np.empty(0, np.int64)
        places, minutes = self._book(resolved.number).lacking(), self._book(~resolved.number).lacking()
        # Apart: a minute may be wanted in both ways, of different questions.
        for wholes, cuts in (places, nothing), (nothing, minutes):
            if len(wholes) or len(cuts):
                self._make(views, resolved, wholes, cuts, defaultdict(list))

    def _make(self, views: Sequence[View], resolved: Resolved, places: Ints, minutes: Ints, missing: Missing) -> int:
        """Make what can be made: of places sums over all shards, of minutes, which are others, each shard's cells
        apart; how many."""
        asked = np.concatenate([places, minutes])
        order = asked.argsort()
        found = gathered(views, resolved, asked[order], missing, self._numbering)
        if found is None:
            return 0
        ready, sums, at, view = found
        of_minute = (order >= len(places))[ready]
        ready_places = asked[order][ready]
        apart = of_minute[at]
        if len(minutes):
            cells = apart.nonzero()[0]
            cells = cells[at[cells].argsort(kind="stable")]
            self._keep(~resolved.number, ready_places[of_minute], selected(sums, cells), view[cells])
        if len(places):
            whole = summed(selected(sums, ~apart) if len(minutes) else sums)
            self._keep(resolved.number, ready_places[~of_minute], whole, np.full(len(whole), _ALL_VIEWS))
        return len(ready_places)

    def _keep(self, key: int, places: Ints, sums: Sums, view: Ints) -> None:
        """Keep entries, which are in the order of their places, by place."""
        packed = np.concatenate([sums.table, view[None, :]]).T.tobytes()
        width = _ROWS * view.itemsize
        of_place = sums.bucket
        first = (of_place.searchsorted(places) * width).tolist()
        last = (of_place.searchsorted(places, side="right") * width).tolist()
        pieces = [packed[begin:end] for begin, end in zip(first, last, strict=True)]
        named = places.tolist()
        self._book(key).pieces.update(zip(named, pieces, strict=True))
        self.weight += sum(map(_weight, pieces))
        for place in named:
            self._outcomes[place].add(key)

    def _book(self, outcome: int) -> _Book:
        """The sums of an outcome by place, now the one used last."""
        book = self._books.get(outcome)
        if book is None:
            book = self._books[outcome] = _Book()
        self._books.move_to_end(outcome)
        return book


class _Book:
    """Sums by place, and which places are hot."""

    def __init__(self) -> None:
        self.pieces: dict[int, bytes] = {}
        # There are as many books as outcomes, and nobody may ask for them again.
        self.hot = Hot[int](_MOST_LOST)

    def use(self, places: list[int]) -> list[bytes | None]:
        """The sum of each place that somebody asks for, None where it is not here."""
        self.hot.use(places)
        return [*map(self.pieces.get, places)]

    def lacking(self) -> Ints:
        """The hot places that are not here; that counts as a move."""
        found = np.array(sorted(place for place in self.hot if place not in self.pieces), np.int64)
        self.hot.move()
        return found


def _weight(piece: bytes) -> int:
    return len(piece) + _OVERHEAD


class Gathered(NamedTuple):
    """Cells of places: which places they are of, those whose pages are here of every shard; the cells, by place and
    code and with our groups; of each the number of its place among these, and the position of its view."""

    ready: Mask
    sums: Sums
    at: Ints
    view: Ints


def gathered(
    views: Sequence[View], resolved: Resolved, places: Ints, missing: Missing, numbering: Numbering
) -> Gathered | None:
    """The cells of places, which are sorted, of all shards; None where no page is here, and what has to be read goes to
    `missing`."""
    numbers, of_page = pages_of(places)
    levels, pages = level_and_page(numbers)
    copies = _copies(views, resolved, levels.tolist(), pages.tolist(), missing)
    here = [None not in stored for stored in zip(*copies, strict=True)]
    pages_here = np.array(here, np.bool_)
    if not pages_here.any():
        return None
    flat: list[Any] = [*chain.from_iterable(compress(stored, here) for stored in copies)]
    ready = pages_here[of_page]
    places, pages, levels = places[ready], pages[pages_here], levels[pages_here]
    number = np.frombuffer(b"".join([page.numbers for page in flat]), np.int64)
    size = np.frombuffer(b"".join([page.sizes for page in flat]), np.int64)
    cells = np.frombuffer(b"".join([page.cells for page in flat]), CELL)
    values = np.array([len(page.numbers) for page in flat], np.int64) // number.itemsize
    values = values.reshape(len(views), -1)
    page = np.concatenate([np.arange(len(pages))] * len(views)).repeat(values.ravel())
    position = np.arange(len(views)).repeat(values.sum(axis=1))
    scope, child = np.divmod(number, len(DIGITS))
    level = levels[page]
    bucket = bucket_in(level, pages[page], child)
    place = place_of(level, bucket)
    at = np.minimum(places.searchsorted(place), len(places) - 1)
    wanted = places[at] == place
    code = np.full(len(number), 0 if resolved.code is None else resolved.single_code)
    of_cohorts = np.array([resolved.kind(each) is COHORT for each in levels.tolist()])[page]
    if of_cohorts.any():
        assert resolved.code is not None
        code[of_cohorts] = resolved.code[numbering.cohorts_of(views, position[of_cohorts], scope[of_cohorts])]
        wanted &= code >= 0
    if not wanted.all():
        cells = cells[wanted.repeat(size)]
        chosen = wanted.nonzero()[0]
        size, bucket, level, at = size[chosen], bucket[chosen], level[chosen], at[chosen]
        code, position = code[chosen], position[chosen]
    at, position = at.repeat(size), position.repeat(size)
    sums = unpack(cells, bucket.repeat(size), code.repeat(size), level.repeat(size))
    sums.group = numbering.groups_of(views, position, sums.group)
    sums.bucket = places[at]
    return Gathered(ready, sums, at, position)


def _copies(
    views: Sequence[View], resolved: Resolved, levels: Sequence[int], pages: Sequence[int], missing: Missing
) -> list[list[Page | None]]:
    """By view and page, the cells that a selection needs; what is not here goes to `missing`."""
    wanted = [*map(resolved.place, levels, pages)]
    copies: list[list[Page | None]] = []
    for position, view in enumerate(views):
        stored = view.cells(wanted)
        copies.append(stored)
        if None in stored:
            missing[position] += [place for place, copy in zip(wanted, stored, strict=True) if copy is None]
    return copies

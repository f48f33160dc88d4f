"""Sums of cells over the shards, by what they were asked for: what makes a repeated question cheap.

A sum is one bucket's cells of a resolved selection, added up over all shards: one entry per (code, group). It is kept
until one of the shards' buckets changes. In sums the column `bucket` holds places, so that levels can be mixed.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..core.cells import CELL, Sums, Table, as_table, of_table, selected, summed, unpack
from ..core.levels import LEVELS, bucket_of_place, level_of, place_of
from ..core.rows import Ints
from ..core.scopes import COHORT
from ..store.places import Place, Stored
from ..store.view import View
from .numbering import Numbering
from .resolved import Resolved

_OVERHEAD: Final = 300
_NOTHING: Final = unpack(np.empty(0, CELL), np.empty(0, np.int64), np.empty(0, np.int64), 0)
Missing = defaultdict[int, list[Place]]
"""By a view's position, what has to be read."""


class Found(NamedTuple):
    """Cells of several shards, and the position of each one's view."""

    sums: Sums
    view: npt.NDArray[np.intp]


_NOTHING_FOUND: Final = Found(_NOTHING, np.empty(0, np.intp))


class CellSums:
    """Sums by outcome and place, within a budget of bytes. Under the complement of an outcome's number, each shard's
    cells of a minute apart, with the position of its view as one more column."""

    def __init__(self, budget_bytes: int, numbering: Numbering) -> None:
        self._numbering = numbering
        self._limit = budget_bytes
        # The outcome used last stands last.
        self._books: OrderedDict[int, dict[int, Table]] = OrderedDict()
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

    def of(self, views: Sequence[View], resolved: Resolved, places: Ints, missing: Missing) -> Sums:
        """The sums of those places that can be made; what has to be read for the others goes to `missing`."""
        book = self._book(resolved.number)
        wanted = places.tolist()
        found = [*map(book.get, wanted)]
        lacking = places[[table is None for table in found]]
        self.hits += len(places) - len(lacking)
        if len(lacking):
            for level in LEVELS:
                at_level = lacking[level_of(lacking) == level.number]
                if len(at_level):
                    self._make(views, resolved, level.number, at_level, missing)
            found = [*map(book.get, wanted)]
        here = [table for table in found if table is not None]
        return of_table(np.concatenate(here, axis=1)) if here else _NOTHING

    def by_shard(self, views: Sequence[View], resolved: Resolved, places: Ints, missing: Missing) -> Found:
        """The cells of minutes, each shard's apart, as far as they can be had; for the others see `of`."""
        book = self._book(~resolved.number)
        wanted = places.tolist()
        found = [*map(book.get, wanted)]
        lacking = places[[table is None for table in found]]
        if len(lacking):
            self._cut(views, resolved, lacking, missing)
            found = [*map(book.get, wanted)]
        here = [table for table in found if table is not None]
        if not here:
            return _NOTHING_FOUND
        table = np.concatenate(here, axis=1)
        return Found(of_table(table[:-1]), table[-1].astype(np.intp))

    def _cut(self, views: Sequence[View], resolved: Resolved, places: Ints, missing: Missing) -> None:
        minutes = bucket_of_place(places, 0).tolist()
        copies = cells_of(views, resolved, 0, minutes, missing)
        ready = [number for number in range(len(minutes)) if all(stored[number] is not None for stored in copies)]
        if not ready:
            return
        kept = [[stored[number] for number in ready] for stored in copies]
        sums, view = gathered(views, resolved, 0, [minutes[n] for n in ready], kept, self._numbering)
        table = np.concatenate([as_table(sums), view[None, :].astype(np.int64)])
        order = np.argsort(sums.bucket, kind="stable")
        self._keep(~resolved.number, places[ready], sums.bucket[order], table[:, order])

    def _make(self, views: Sequence[View], resolved: Resolved, level: int, places: Ints, missing: Missing) -> None:
        buckets = bucket_of_place(places, level).tolist()
        copies = cells_of(views, resolved, level, buckets, missing)
        ready = [number for number in range(len(buckets)) if all(stored[number] is not None for stored in copies)]
        if not ready:
            return
        kept = [[stored[number] for number in ready] for stored in copies]
        sums = summed(gathered(views, resolved, level, [buckets[n] for n in ready], kept, self._numbering).sums)
        self.misses += len(ready)
        self._keep(resolved.number, places[ready], sums.bucket, as_table(sums))

    def _keep(self, key: int, places: Ints, of_entry: Ints, table: Table) -> None:
        """Keep a table's entries by place; `of_entry` is each one's, in order."""
        book = self._book(key)
        first = np.searchsorted(of_entry, places).tolist()
        last = np.searchsorted(of_entry, places, side="right").tolist()
        for place, begin, end in zip(places.tolist(), first, last, strict=True):
            entries = book[place] = table[:, begin:end].copy()
            self.weight += _weight(entries)
            self._outcomes[place].add(key)

    def _book(self, outcome: int) -> dict[int, Table]:
        """The sums of an outcome by place, now the one used last."""
        book = self._books.setdefault(outcome, {})
        self._books.move_to_end(outcome)
        return book


def _weight(table: Table) -> int:
    return table.nbytes + _OVERHEAD


def cells_of(
    views: Sequence[View], resolved: Resolved, level: int, buckets: Sequence[int], missing: Missing
) -> list[list[Stored | None]]:
    """By view and bucket, the cells that a selection needs; what is not here goes to `missing`."""
    wanted = [resolved.place(level, bucket) for bucket in buckets]
    copies: list[list[Stored | None]] = []
    for position, view in enumerate(views):
        stored = [view.cells(place) for place in wanted]
        copies.append(stored)
        absent = [place for place, copy in zip(wanted, stored, strict=True) if copy is None]
        if absent:
            missing[position] += absent
    return copies


def gathered(
    views: Sequence[View],
    resolved: Resolved,
    level: int,
    buckets: Sequence[int],
    copies: Sequence[Sequence[Stored | None]],
    numbering: Numbering,
) -> Found:
    """The cells of some buckets of all shards, by place and code and with our groups; what is not here is left out."""
    packed: list[bytes] = []
    counts: list[int] = []
    of_bucket: list[int] = []
    groups, codes, positions = [], [], []
    for position, (view, stored) in enumerate(zip(views, copies, strict=True)):
        mine: list[bytes] = []
        fields: list[bytes] = []
        for bucket, copy in zip(buckets, stored, strict=True):
            if copy is not None and copy.cells:
                mine += copy.cells
                fields += copy.fields
                of_bucket += [bucket] * len(copy.cells)
        if not mine:
            continue
        sizes = [len(cells) // CELL.itemsize for cells in mine]
        joined = b"".join(mine)
        cells = np.frombuffer(joined, CELL)
        packed.append(joined)
        counts += sizes
        groups.append(numbering.group(view, cells["group"]))
        codes.append(np.repeat(_codes(view, resolved, level, fields, numbering), sizes))
        positions.append(np.full(len(cells), position))
    if not packed:
        return _NOTHING_FOUND
    code, position_of = np.concatenate(codes), np.concatenate(positions)
    bucket_of = np.repeat(np.array(of_bucket, np.int64), counts)
    sums = unpack(np.frombuffer(b"".join(packed), CELL), bucket_of, code, level)
    sums.group = np.concatenate(groups)
    sums.bucket = place_of(level, bucket_of)
    if resolved.code is None:
        return Found(sums, position_of)
    taken = code >= 0
    return Found(selected(sums, taken), position_of[taken])


def _codes(view: View, resolved: Resolved, level: int, fields: list[bytes], numbering: Numbering) -> Ints:
    if resolved.code is None:
        return np.zeros(len(fields), np.int64)
    if resolved.kind(level) is not COHORT:
        return np.full(len(fields), resolved.single_code, np.int64)
    cohorts = np.array([*map(int, fields)], np.int64)
    return resolved.code[numbering.cohort(view)[cohorts]]

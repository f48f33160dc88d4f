"""Sums of cells over the shards, by what they were asked for: what makes a repeated question cheap.

A sum is one bucket's cells of a resolved selection, added up over all shards: one entry per (code, group). It is kept
until one of the shards' buckets changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from ..core.cells import CELL, Records, Sums, as_records, joined, of_records, selected, summed, unpack
from ..core.rows import Ints
from ..core.scopes import COHORT
from ..store.bounded import Bounded
from ..store.view import Place, Stored, View
from .numbering import Numbering
from .resolved import Resolved

_OVERHEAD: Final = 300
_NOTHING: Final = unpack(np.empty(0, CELL), np.empty(0, np.int64), np.empty(0, np.int64), 0)
Missing = defaultdict[int, list[Place]]
"""By a view's position, what has to be read."""


class CellSums:
    """Sums by (outcome, level, bucket), within a budget of bytes."""

    def __init__(self, budget_bytes: int, numbering: Numbering) -> None:
        self._numbering = numbering
        self._known: Bounded[tuple[int, int, int], Records] = Bounded(budget_bytes, lambda r: r.nbytes + _OVERHEAD)
        self._outcomes: defaultdict[tuple[int, int], set[int]] = defaultdict(set)

    def drop(self, buckets: Iterable[tuple[int, int]] | None) -> None:
        """Forget the sums of buckets (level, bucket) that changed; None: all."""
        if buckets is None:
            self._known.clear()
            self._outcomes.clear()
            return
        for level, bucket in buckets:
            for outcome in self._outcomes.pop((level, bucket), ()):
                self._known.discard((outcome, level, bucket))

    def trim(self) -> None:
        """Keep within the budget: between answers."""
        self._known.trim()

    def of(self, views: Sequence[View], resolved: Resolved, level: int, buckets: list[int], missing: Missing) -> Sums:
        """The sums of those buckets that can be made; what has to be read for the others goes to `missing`."""
        outcome = resolved.number
        found = [self._known.get((outcome, level, bucket)) for bucket in buckets]
        lacking = [bucket for bucket, records in zip(buckets, found, strict=True) if records is None]
        if lacking:
            self._make(views, resolved, level, lacking, missing)
            found = [self._known.get((outcome, level, bucket)) for bucket in buckets]
        here = [records for records in found if records is not None]
        return of_records(np.concatenate(here)) if here else _NOTHING

    def _make(
        self, views: Sequence[View], resolved: Resolved, level: int, buckets: list[int], missing: Missing
    ) -> None:
        places = [resolved.place(level, bucket) for bucket in buckets]
        complete = set(buckets)
        copies: list[list[Stored | None]] = []
        for position, view in enumerate(views):
            stored = [view.cells(place) for place in places]
            copies.append(stored)
            for place, copy in zip(places, stored, strict=True):
                if copy is None:
                    missing[position].append(place)
                    complete.discard(place.bucket)
        ready = [number for number, bucket in enumerate(buckets) if bucket in complete]
        if not ready:
            return
        parts = [
            shard_cells(view, resolved, level, [(buckets[n], stored[n]) for n in ready], self._numbering)
            for view, stored in zip(views, copies, strict=True)
        ]
        sums = summed(joined(parts))
        records = as_records(sums)
        for number in ready:
            bucket = buckets[number]
            begin, end = np.searchsorted(sums.bucket, [bucket, bucket + 1]).tolist()
            self._known.put((resolved.number, level, bucket), records[begin:end].copy())
            self._outcomes[level, bucket].add(resolved.number)


def shard_cells(
    view: View,
    resolved: Resolved,
    level: int,
    copies: Sequence[tuple[int, Stored | None]],
    numbering: Numbering,
) -> Sums:
    """One shard's cells of some buckets, by code and with our groups; several may have the same of both."""
    buckets: list[int] = []
    fields: list[bytes] = []
    packed: list[bytes] = []
    for bucket, copy in copies:
        if copy is not None:
            buckets += [bucket] * len(copy.cells)
            fields += copy.fields
            packed += copy.cells
    counts = [len(cells) // CELL.itemsize for cells in packed]
    cells = np.frombuffer(b"".join(packed), CELL)
    code = np.repeat(_codes(view, resolved, level, fields, numbering), counts)
    sums = unpack(cells, np.repeat(np.array(buckets, np.int64), counts), code, level)
    sums.group = numbering.group(view, sums.group)
    return sums if resolved.code is None else selected(sums, code >= 0)


def _codes(view: View, resolved: Resolved, level: int, fields: list[bytes], numbering: Numbering) -> Ints:
    if resolved.code is None:
        return np.zeros(len(fields), np.int64)
    if resolved.kind(level) is not COHORT:
        return np.full(len(fields), resolved.single_code, np.int64)
    cohorts = np.array([*map(int, fields)], np.int64)
    return resolved.code[numbering.cohort(view)[cohorts]]

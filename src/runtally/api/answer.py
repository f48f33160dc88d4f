"""One attempt at an answer from what the views hold: either the answer, or what has to be read first.

Nothing here awaits, so an attempt sees one state of every shard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..core.bins import Bins
from ..core.cells import Kinds, unpack
from ..core.combine import Entry, Tally
from ..core.groups import OTHER, State
from ..core.levels import LEVELS
from ..core.plan import children, cover, undecided
from ..core.rows import Ints, Rows, concat
from ..store.view import RAW, Place, View


@dataclass(slots=True)
class Attempt:
    """`entries` per bin when nothing is missing; else `missing`, per view (by position) what to read."""

    entries: list[list[Entry]] | None = None
    missing: dict[int, list[Place]] = field(default_factory=dict)
    cells: int = 0
    raw_minutes: int = 0
    raw_rows: int = 0


def attempt(views: Sequence[View], bins: Bins, now: int) -> Attempt:
    """Answer a request without filters from cells, and from raw runs where a zone map says *some*."""
    result = Attempt()
    days = set().union(*(view.days for view in views))
    chosen = cover(bins, now, days)
    numbering: dict[State, int] = {}
    for view in views:
        for _, state in view.states():
            numbering.setdefault(state, len(numbering))
    tally = Tally(bins, now, list(numbering))
    for position, view in enumerate(views):
        missing = _add_shard(view, bins, now, chosen, tally, numbering, result)
        if missing:
            result.missing[position] = missing
    if not result.missing:
        result.entries = tally.entries()
    return result


def _add_shard(
    view: View,
    bins: Bins,
    now: int,
    chosen: list[Ints],
    tally: Tally,
    numbering: dict[State, int],
    result: Attempt,
) -> list[Place]:
    """Add one shard's share to the tally; what is missing for it."""
    mapped = state_map(dict(view.states()), numbering)
    type_codes = view.type_codes
    missing: list[Place] = []
    raw: Ints = np.empty(0, np.int64)
    descend: Ints = np.empty(0, np.int64)
    for level in reversed(LEVELS):
        buckets = np.concatenate([chosen[level.number], descend])
        found = [(bucket, view.cells(level.number, bucket)) for bucket in buckets.tolist()]
        missing += [Place(level.number, bucket) for bucket, cells in found if cells is None]
        here = [(bucket, cells) for bucket, cells in found if cells is not None and len(cells)]
        descend = np.empty(0, np.int64)
        if not here:
            continue
        of_bucket = np.repeat(np.array([bucket for bucket, _ in here]), [len(cells) for _, cells in here])
        packed = np.concatenate([cells for _, cells in here])
        sums = unpack(packed, of_bucket, np.zeros(len(packed), np.int64), level.number)
        kinds = Kinds(sums.group, type_codes)
        split = np.unique(sums.bucket[undecided(sums, kinds, bins, now)])
        if len(split):
            keep = ~np.isin(sums.bucket, split)
            sums = unpack(packed[keep], of_bucket[keep], np.zeros(int(keep.sum()), np.int64), level.number)
            kinds = Kinds(sums.group, type_codes)
            if level.number:
                descend = _within(children(split, level.number), level.number - 1, bins)
            else:
                raw = split
        result.cells += len(sums)
        tally.add_cells(sums, kinds, level.number, mapped)
    rows, absent = _raw_rows(view, raw)
    tally.add_rows(rows, Kinds(rows.group, view.type_codes), state_map(dict(view.states()), numbering))
    result.raw_minutes += len(raw)
    result.raw_rows += len(rows)
    return missing + absent


def _raw_rows(view: View, minutes: Ints) -> tuple[Rows, list[Place]]:
    parts: list[Rows] = []
    absent: list[Place] = []
    for minute in minutes.tolist():
        found = view.raw(minute)
        if found is None:
            absent.append(Place(RAW, minute))
        else:
            parts.append(found.rows)
    return concat(parts), absent


def _within(buckets: Ints, level: int, bins: Bins) -> Ints:
    width = LEVELS[level].width_us
    return buckets[(buckets * width + width > bins.start) & (buckets * width < bins.end)]


def state_map(states: Mapping[int, State], numbering: Mapping[State, int]) -> Ints:
    """The answer's number of each of a shard's states, −1 for those that are in no answer."""
    mapped = np.full(1 + max(states, default=OTHER), -1, np.int64)
    for number, state in states.items():
        mapped[number] = numbering[state]
    return mapped

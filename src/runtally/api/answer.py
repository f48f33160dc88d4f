"""One attempt at an answer from what is held: either the answer, or what has to be read first.

The planner of an answer from cells: each bin is covered down the ladder of levels; where a cell can not decide, its
bucket is replaced by finer ones, a minute by its raw runs. Nothing here awaits, so an attempt sees one state of every
shard.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..core.bins import Bins
from ..core.cells import Kinds, Sums, selected
from ..core.cohorts import NO_FLOW_RUN, Cohort, attribute
from ..core.combine import Entry, Tally
from ..core.groups import CHILD
from ..core.levels import LEVELS, NONE
from ..core.plan import children, cover, undecided
from ..core.rows import Ints, Rows
from ..core.selection import (
    Mask,
    Selection,
    Verdict,
    bounds,
    expected_range,
    extent_of_cells,
    extent_of_rows,
    verdict,
)
from ..store.view import FLOW_RUN, RAW, Place, RawMinute, View
from .numbering import Numbering
from .resolved import Resolved
from .sums import CellSums, Missing, shard_cells


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked at what time: a history in bins, or a count (no bins) of all runs that are selected."""

    selection: Selection
    bins: Bins | None
    now: int


@dataclass(slots=True)
class Part:
    """A share of an answer: cells of one kind of scope at one level, or raw runs."""

    buckets: int = 0
    cells: int = 0


@dataclass(slots=True)
class Attempt:
    """What came of it: `missing`, per view (by position), what to read; when that is empty `entries` per bin, or the
    `count`. `parts`: by (scope kind, level) how much of what was used; raw minutes count once a shard. `again`: runs
    were met whose cohort is in no dictionary (past the cap), so the selection has to be resolved anew."""

    entries: list[list[Entry]] = field(default_factory=list)
    count: int = 0
    missing: Missing = field(default_factory=lambda: defaultdict(list))
    parts: dict[tuple[str, str], Part] = field(default_factory=dict)
    raw_minutes: int = 0
    raw_rows: int = 0
    again: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """What an attempt is made from."""

    views: Sequence[View]
    numbering: Numbering
    sums: CellSums


def attempt(question: Question, resolved: Resolved, held: Held) -> Attempt:
    """Answer from cells, and from raw runs where a zone map says *some*."""
    return _Attempt(question, resolved, held).made()


class _Attempt:
    def __init__(self, question: Question, resolved: Resolved, held: Held) -> None:
        self._question = question
        self._resolved = resolved
        self._held = held
        self._states = held.numbering.states
        self._result = Attempt()
        bins = question.bins or Bins(0, 1, 0)
        # States 0 and 1 of any numbering are none and other.
        self._shown = np.arange(-2, len(self._states) - 2).clip(-1)
        self._tally = Tally(bins, question.now, [state for state in self._states.names if state is not None])

    def made(self) -> Attempt:
        if not self._resolved.empty:
            self._add_cells()
        result = self._result
        if not result.missing:
            result.entries = self._tally.entries()
        return result

    def _add_cells(self) -> None:
        chosen = self._cover()
        descend: Ints = np.empty(0, np.int64)
        for level in reversed(LEVELS):
            buckets = np.concatenate([chosen[level.number], descend])
            descend = np.empty(0, np.int64)
            if not len(buckets):
                continue
            sums = self._held.sums.of(
                self._held.views, self._resolved, level.number, buckets.tolist(), self._result.missing
            )
            if not len(sums):
                continue
            split = self._add(sums, level.number)
            if len(split) and level.number:
                descend = self._within(children(split, level.number), level.number - 1)
            elif len(split):
                self._add_minutes(split)

    def _cover(self) -> list[Ints]:
        bins, selection = self._question.bins, self._question.selection
        days = set().union(*(view.days for view in self._held.views))
        cuts = bounds(selection)
        if bins is None:
            chosen = cover(days, cuts, None)
            chosen[0] = np.append(chosen[0], NONE)
            return chosen
        if bins.count == 0:
            return cover((), (), None)
        within = expected_range(selection, bins.start, bins.end)
        return cover(days, [*bins.edges().tolist(), self._question.now, *cuts], within)

    def _within(self, buckets: Ints, level: int) -> Ints:
        bins = self._question.bins
        if bins is None:
            return buckets
        width = LEVELS[level].width_us
        return buckets[(buckets * width + width > bins.start) & (buckets * width < bins.end)]

    def _add(self, sums: Sums, level: int) -> Ints:
        """Add the cells of buckets that all of their cells decide; the other buckets."""
        kinds = Kinds(sums.group, self._states.type_codes)
        said = verdict(self._question.selection, extent_of_cells(sums), self._states)
        some = said.possible & self._undecided(sums, kinds, said)
        split = np.unique(sums.bucket[some])
        use = said.certain & ~np.isin(sums.bucket, split) if len(split) else said.certain
        if not use.all():
            sums = selected(sums, use)
            kinds = Kinds(sums.group, self._states.type_codes)
        self._note(level, sums)
        if self._question.bins is None:
            self._result.count += int(sums.n.sum())
        else:
            self._tally.add_cells(sums, kinds, level, self._shown)
        return split

    def _undecided(self, sums: Sums, kinds: Kinds, said: Verdict) -> Mask:
        """Which cells can not be used as a whole, if they are used at all."""
        if self._question.bins is None:
            return ~said.certain
        begin, end = self._question.bins.start, self._question.bins.end
        inside = (sums.expected_hi >= begin) & (sums.expected_lo < end)
        some: Mask = undecided(sums, kinds, self._question.bins, self._question.now) | (~said.certain & inside)
        return some

    def _note(self, level: int, sums: Sums) -> None:
        name = (self._resolved.kind(level).name, LEVELS[level].name)
        part = self._result.parts.setdefault(name, Part())
        part.buckets += len(np.unique(sums.bucket))
        part.cells += len(sums)

    def _add_minutes(self, minutes: Ints) -> None:
        """Minutes that the shards' sum does not decide: each shard's own cells may, else its raw runs do."""
        for position, view in enumerate(self._held.views):
            missing = self._result.missing[position]
            copies = []
            for minute in minutes.tolist():
                place = self._resolved.place(0, minute)
                copy = view.cells(place)
                if copy is None:
                    missing.append(place)
                elif copy.cells:
                    copies.append((minute, copy))
            if copies:
                sums = shard_cells(view, self._resolved, 0, copies, self._held.numbering)
                self._add_raw(view, self._add(sums, 0), missing)
            if not missing:
                del self._result.missing[position]

    def _add_raw(self, view: View, minutes: Ints, missing: list[Place]) -> None:
        for minute in minutes.tolist():
            raw = view.raw(minute)
            if raw is None:
                missing.append(Place(RAW, minute))
            else:
                self._add_rows(view, raw, missing)

    def _add_rows(self, view: View, raw: RawMinute, missing: list[Place]) -> None:
        rows = raw.rows
        group = self._held.numbering.group(view, rows.group)
        code = np.zeros(len(rows), np.int64)
        if self._question.selection.asks_flow_run:
            cohorts = [NO_FLOW_RUN if run is None else view.cohort(run) for run in raw.flow_runs]
            absent = [
                Place(FLOW_RUN, 0, field=run)
                for run, cohort in zip(raw.flow_runs, cohorts, strict=True)
                if cohort is None and run is not None
            ]
            if absent:
                missing += absent
                return
            child = np.array([attribute(cohort, "child") is True for cohort in cohorts if cohort is not None])
            group = group | np.where(child[raw.flow_run], CHILD, 0).astype(np.uint32)
            code = self._codes([cohort for cohort in cohorts if cohort is not None])[raw.flow_run]
        rows = Rows(rows.expected, rows.start, rows.state_time, rows.total, group)
        said = verdict(self._question.selection, extent_of_rows(rows, code), self._states).certain & (code >= 0)
        rows = rows.take(said)
        self._result.raw_minutes += 1
        self._result.raw_rows += len(said)
        if self._question.bins is None:
            self._result.count += len(rows)
        else:
            self._tally.add_rows(rows, Kinds(rows.group, self._states.type_codes), self._shown)

    def _codes(self, cohorts: list[Cohort]) -> Ints:
        code = self._resolved.code
        if code is None:
            return np.zeros(len(cohorts), np.int64)
        numbers = np.array([self._held.numbering.number(cohort) for cohort in cohorts], np.int64)
        self._result.again |= bool((numbers >= len(code)).any())
        return code[np.minimum(numbers, len(code) - 1)]

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
from ..core.combine import Entry, Tally
from ..core.levels import LEVELS, MINUTE_US, NONE, level_of, minute_of_place, place_of
from ..core.plan import cover, finer, undecided
from ..core.rows import Ints, Rows, concat
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
from ..store.places import RAW, Place
from ..store.view import View
from .minutes import Minutes, Runs
from .numbering import Numbering
from .resolved import Resolved
from .sums import CellSums, Missing


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked at what time: a history in bins, or a count (no bins) of all runs that are selected."""

    selection: Selection
    bins: Bins | None
    now: int

    def cuts(self) -> list[int]:
        """The instants at which answers differ."""
        at_bounds = bounds(self.selection)
        return at_bounds if self.bins is None else [*self.bins.edges().tolist(), self.now, *at_bounds]


@dataclass(slots=True)
class Part:
    """A share of an answer: cells of one kind of scope at one level, or raw runs."""

    buckets: int = 0
    cells: int = 0


@dataclass(slots=True)
class Attempt:
    """What came of it: `missing`, per view (by position), what to read; when that is empty `entries` per bin, or the
    `count`. `cover`: the places it began with; `parts`: by (scope kind, level) how much of what was used;
    `raw_minutes`: minutes of which raw runs were, each once a shard. `frozen_minutes`: minutes that would have needed
    them and lie before `horizon`, where there are none; each counts as a whole. `again`: runs were met whose state or
    cohort is in no dictionary (past the cap), so it has to begin anew."""

    resolved: Resolved
    entries: list[list[Entry]] = field(default_factory=list)
    count: int = 0
    missing: Missing = field(default_factory=lambda: defaultdict(list))
    cover: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    parts: dict[tuple[str, str], Part] = field(default_factory=dict)
    raw_minutes: list[int] = field(default_factory=list)
    raw_rows: int = 0
    horizon: int = 0
    frozen_minutes: list[int] = field(default_factory=list)
    again: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """What an attempt is made from."""

    views: Sequence[View]
    numbering: Numbering
    sums: CellSums
    minutes: Minutes


def attempt(question: Question, resolved: Resolved, held: Held) -> Attempt:
    """Answer from cells, and from raw runs where a zone map says *some*."""
    return _Attempt(question, resolved, held).made()


class _Attempt:
    def __init__(self, question: Question, resolved: Resolved, held: Held) -> None:
        self._question = question
        self._resolved = resolved
        self._held = held
        self._states = held.numbering.states
        # The latest of all shards: a minute is answered in one way.
        self._result = Attempt(resolved, horizon=max((view.ledger.horizon for view in held.views), default=0))
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
        views, missing = self._held.views, self._result.missing
        places = self._result.cover = self._cover()
        while len(places):
            split = self._add(self._held.sums.of(views, self._resolved, places, missing))
            self._add_minutes(split[level_of(split) == 0])
            bins = self._question.bins
            places = finer(split, None if bins is None else (bins.start, bins.end))

    def _cover(self) -> Ints:
        bins, selection = self._question.bins, self._question.selection
        days = set().union(*(view.days for view in self._held.views))
        cuts = self._question.cuts()
        if bins is None:
            chosen = cover(days, cuts, None)
            chosen[0] = np.append(chosen[0], NONE)
        elif bins.count == 0:
            return np.empty(0, np.int64)
        else:
            within = expected_range(selection, bins.start, bins.end)
            chosen = cover(days, cuts, within)
        return np.concatenate([place_of(level, buckets) for level, buckets in enumerate(chosen)])

    def _add(self, sums: Sums) -> Ints:
        """Add the cells of places that all of their cells decide; the other places."""
        if not len(sums):
            return np.empty(0, np.int64)
        use, some = self._decide(sums)
        split = np.unique(sums.bucket[some])
        self._use(sums, use & ~np.isin(sums.bucket, split) if len(split) else use)
        return split

    def _decide(self, sums: Sums) -> Verdict:
        """Which cells are selected as a whole, and which can neither be used nor be left out as a whole."""
        said = verdict(self._question.selection, extent_of_cells(sums), self._states)
        bins = self._question.bins
        if bins is None:
            return Verdict(said.certain, said.possible & ~said.certain)
        inside = (sums.expected_hi >= bins.start) & (sums.expected_lo < bins.end)
        kinds = Kinds(sums.group, self._states.type_codes)
        some = undecided(sums, kinds, bins, self._question.now) | (~said.certain & inside)
        return Verdict(said.certain, said.possible & some)

    def _use(self, sums: Sums, which: Mask) -> None:
        if not which.all():
            sums = selected(sums, which)
        self._note(sums)
        if self._question.bins is None:
            self._result.count += int(sums.n.sum())
        else:
            kinds = Kinds(sums.group, self._states.type_codes)
            self._tally.add_cells(sums, kinds, minute_of_place(sums.bucket), self._shown)

    def _note(self, sums: Sums) -> None:
        cells = np.bincount(level_of(sums.bucket))
        buckets = np.bincount(level_of(np.unique(sums.bucket)))
        for level in np.flatnonzero(cells).tolist():
            part = self._result.parts.setdefault((self._resolved.kind(level).name, LEVELS[level].name), Part())
            part.buckets += int(buckets[level])
            part.cells += int(cells[level])

    def _add_minutes(self, places: Ints) -> None:
        """Minutes that the shards' sum does not decide: each shard's own cells may, else its raw runs do."""
        if not len(places):
            return
        views, missing = self._held.views, self._result.missing
        found = self._held.sums.by_shard(views, self._resolved, places, missing)
        if not len(found.sums):
            return
        use, some = self._decide(found.sums)
        minute = minute_of_place(found.sums.bucket)
        frozen = some & (minute != NONE) & (minute * MINUTE_US < self._result.horizon)
        if frozen.any():
            # Nobody knows any more which runs: all of them, in the bin that holds the minute's start.
            self._result.frozen_minutes += np.unique(minute[frozen]).tolist()
            found.sums.expected_lo[frozen] = minute[frozen] * MINUTE_US
            use, some = use | frozen, some & ~frozen
        owner = found.sums.bucket * len(views) + found.view
        split = np.unique(owner[some])
        self._use(found.sums, use & ~np.isin(owner, split))
        runs: list[Runs] = []
        for place, position in zip(*(part.tolist() for part in np.divmod(split, len(views))), strict=True):
            found_runs = self._runs(views[position], position, int(minute_of_place(place)))
            runs += [] if found_runs is None else [found_runs]
        if runs:
            self._add_rows(
                concat([each.rows for each in runs]), self._codes(np.concatenate([each.cohort for each in runs]))
            )
        self._result.raw_minutes += minute_of_place(split // len(views)).tolist()

    def _runs(self, view: View, position: int, minute: int) -> Runs | None:
        """A minute's runs of a shard; None if something has to be read for that."""
        raw = view.raw(minute)
        if raw is None:
            self._result.missing[position].append(Place(RAW, minute))
            return None
        found = self._held.minutes.of(view, position, minute, raw, whose=self._question.selection.asks_flow_run)
        if isinstance(found, list):
            self._result.missing[position] += found
            return None
        return found

    def _add_rows(self, rows: Rows, code: Ints) -> None:
        if len(self._states) != len(self._shown):
            self._result.again = True
            return
        said = verdict(self._question.selection, extent_of_rows(rows, code), self._states).certain & (code >= 0)
        self._result.raw_rows += len(said)
        rows = rows.take(said)
        if self._question.bins is None:
            self._result.count += len(rows)
        else:
            self._tally.add_rows(rows, Kinds(rows.group, self._states.type_codes), self._shown)

    def _codes(self, cohorts: Ints) -> Ints:
        code = self._resolved.code
        if code is None or not self._question.selection.asks_flow_run:
            return np.zeros(len(cohorts), np.int64)
        self._result.again |= bool((cohorts >= len(code)).any())
        return code[np.minimum(cohorts, len(code) - 1)]

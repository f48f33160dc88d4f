"""One attempt at an answer from what is held: either the answer, or what has to be read first.

The planner of an answer from cells: each bin is covered down the ladder of levels; where a cell can not decide, its
bucket is replaced by finer ones, a minute by its raw runs. Nothing here awaits, so an attempt sees one state of every
shard.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from ..core.bins import Bins
from ..core.cells import Kinds, Sums
from ..core.combine import Entry, Tally
from ..core.levels import LEVELS, MINUTE_US, NONE, level_of, minute_of_place, place_of
from ..core.plan import cover, divided, finer, undecided
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
from ..store.view import View
from .minutes import Minutes
from .numbering import Numbering
from .resolved import Resolved
from .sums import CellSums, Found, Missing


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
        self._ranks = held.numbering.ranked()
        self._tally = Tally(bins, question.now, self._ranks[0])

    def made(self) -> Attempt:
        if not self._resolved.empty:
            self._add_cells()
        result = self._result
        if not result.missing:
            result.entries = self._tally.entries()
        return result

    def _add_cells(self) -> None:
        views, missing = self._held.views, self._result.missing
        bins = self._question.bins
        places, edges = self._cover()
        self._result.cover = np.concatenate([places, edges])
        while len(places) or len(edges):
            found = self._held.sums.of(views, self._resolved, places, edges, missing)
            if missing and not len(found.sums):
                return
            split, apart = self._add(found, np.concatenate([places, edges]))
            self._add_minutes(*apart)
            edges = split[level_of(split) == 0]
            places = finer(split, None if bins is None else (bins.start, bins.end))

    def _cover(self) -> tuple[Ints, Ints]:
        """The places to begin with, and the minutes that a cut divides: of these each shard's cells are asked at once,
        and the sum over the shards never."""
        bins, selection = self._question.bins, self._question.selection
        if bins is not None and bins.count == 0:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        days = frozenset().union(*(view.days for view in self._held.views))
        cuts = tuple(sorted({_in_minute(cut) for cut in self._question.cuts()}))
        if bins is None:
            return _places(days, cuts, None)
        begin, end = expected_range(selection, bins.start, bins.end)
        return _places(days, cuts, (_in_minute(begin), _in_minute(end)))

    def _add(self, found: Found, asked: Ints) -> tuple[Ints, tuple[Ints, Ints]]:
        """Add the cells of places that all of their cells decide. Else: the places, and of minutes whose shards were
        taken apart the places and the positions of the views."""
        sums = found.sums
        kinds = Kinds(sums.group, self._states.type_codes)
        use, some = self._decide(sums, kinds)
        minute = minute_of_place(sums.bucket)
        if (oldest := minute[some]).size and oldest.min() * MINUTE_US < self._result.horizon:
            frozen = some & (found.view >= 0) & (minute != NONE) & (minute * MINUTE_US < self._result.horizon)
            # Nobody knows any more which runs: all of them, in the bin that holds the minute's start.
            self._result.frozen_minutes += np.unique(minute[frozen]).tolist()
            sums.expected_lo[frozen] = minute[frozen] * MINUTE_US
            use, some = use | frozen, some & ~frozen
        # A place as a whole, or one shard of it.
        ways = 1 + len(self._held.views)
        unit = found.place * ways + found.view + 1
        split = np.zeros(len(asked) * ways, np.bool_)
        split[unit[some]] = True
        use &= ~split[unit]
        self._note(found, asked, use)
        self._use(sums, kinds, use)
        at, way = np.divmod(split.nonzero()[0], ways)
        whole = way == 0
        return asked[at[whole]], (asked[at[~whole]], way[~whole] - 1)

    def _decide(self, sums: Sums, kinds: Kinds) -> Verdict:
        """Which cells are selected as a whole, and which can neither be used nor be left out as a whole."""
        said = verdict(self._question.selection, extent_of_cells(sums), self._states)
        bins = self._question.bins
        if bins is None:
            return Verdict(said.certain, said.possible & ~said.certain)
        inside = (sums.expected_hi >= bins.start) & (sums.expected_lo < bins.end)
        some = undecided(sums, kinds, bins, self._question.now) | (~said.certain & inside)
        return Verdict(said.certain, said.possible & some)

    def _use(self, sums: Sums, kinds: Kinds, which: Mask) -> None:
        if self._question.bins is None:
            self._result.count += int(sums.n[which].sum())
        else:
            self._tally.add_cells(sums, kinds, which, minute_of_place(sums.bucket), self._ranks[1])

    def _note(self, found: Found, asked: Ints, which: Mask) -> None:
        used = np.bincount(found.place[which], minlength=len(asked))
        levels = level_of(asked)
        buckets = np.bincount(levels[used > 0], minlength=len(LEVELS)).tolist()
        cells = np.bincount(levels, used, len(LEVELS)).tolist()
        for level in LEVELS:
            if buckets[level.number]:
                kind = self._resolved.kind(level.number).name
                part = self._result.parts.setdefault((kind, level.name), Part())
                part.buckets += buckets[level.number]
                part.cells += int(cells[level.number])

    def _add_minutes(self, places: Ints, positions: Ints) -> None:
        """Add the raw runs of minutes, each of one shard."""
        if not len(places):
            return
        minutes = minute_of_place(places)
        asks = self._question.selection.asks_flow_run
        found = self._held.minutes.of(self._held.views, minutes, positions, self._result.missing, whose=asks)
        self._add_rows(found.rows, self._codes(found.cohort))
        self._result.raw_minutes += minutes.tolist()

    def _add_rows(self, rows: Rows, code: Ints) -> None:
        if len(self._states) != len(self._ranks[1]):
            self._result.again = True
            return
        said = verdict(self._question.selection, extent_of_rows(rows, code), self._states).certain & (code >= 0)
        self._result.raw_rows += len(said)
        rows = rows.take(said)
        if self._question.bins is None:
            self._result.count += len(rows)
        else:
            self._tally.add_rows(rows, Kinds(rows.group, self._states.type_codes), self._ranks[1])

    def _codes(self, cohorts: Ints) -> Ints:
        code = self._resolved.code
        if code is None or not self._question.selection.asks_flow_run:
            return np.zeros(len(cohorts), np.int64)
        self._result.again |= bool((cohorts >= len(code)).any())
        return code[np.minimum(cohorts, len(code) - 1)]


def _in_minute(instant: int) -> int:
    """An instant that lies in no other bucket of any level than the given one, the same for all inside of a minute."""
    beyond = instant % MINUTE_US
    return instant - beyond + (beyond > 0)


@lru_cache(64)
def _places(days: frozenset[int], cuts: tuple[int, ...], within: tuple[int, int] | None) -> tuple[Ints, Ints]:
    """The places of a cover, with the bucket without expected times if nothing is said of these, and apart from them
    the minutes that a cut divides. Whoever watches a dashboard asks for the same ones all minute long."""
    chosen = cover(days, cuts, within)
    cut = divided(chosen[0], 0, np.array(cuts, np.int64))
    edges = place_of(0, chosen[0][cut])
    chosen[0] = chosen[0][~cut] if within is not None else np.append(chosen[0][~cut], NONE)
    places = np.concatenate([place_of(level, buckets) for level, buckets in enumerate(chosen)])
    places.flags.writeable = edges.flags.writeable = False
    return places, edges

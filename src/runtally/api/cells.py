"""Answers from cells: what this process keeps for them, and how it uses it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterator, Sequence
from typing import Final

import numpy as np

from ..core.changes import STATE_TYPES
from ..core.groups import FLAG_BITS, NO_TYPE
from ..core.levels import COARSEST, NONE, place_of
from ..core.selection import MAX_SETS, Selection
from ..store.view import View
from .answer import Attempt, Held, Question, attempt
from .joined import Joined
from .minutes import Minutes
from .numbering import Numbering
from .resolved import ALL_RUNS, Resolver
from .sums import CellSums, Missing

_MAX_AGAIN: Final = 100
_LATELY: Final = 16
_OFTEN: Final = 3
"""Of so many questions, so many that are of the same runs: there will be more."""
_MINUTES_PART: Final = 4
"""The share of the budget that raw runs of minutes may take: a fourth; sums take the rest."""


def scanned(selection: Selection) -> bool:
    """Whether a selection can only be answered by a scan of raw runs."""
    return bool(selection.raw) or len(selection.sets) > MAX_SETS


class Cells:
    """Sums of cells of all shards, and the numbers that they are kept under."""

    def __init__(self, budget_bytes: int) -> None:
        self._numbering = Numbering()
        self._resolver = Resolver(self._numbering)
        self._sums = CellSums(budget_bytes - budget_bytes // _MINUTES_PART, self._numbering)
        self._minutes = Minutes(budget_bytes // _MINUTES_PART, self._numbering)
        # The last questions', each with what of it tells sums apart.
        self._asked: deque[tuple[Hashable, Selection]] = deque(maxlen=_LATELY)

    def note_asked(self, selection: Selection) -> None:
        """Note a question, however often it is tried."""
        self._asked.append(((selection.shape, selection.sets) if selection.sets else (), selection))

    def answer(self, question: Question, views: Sequence[View], catalog: Joined) -> Attempt:
        """Answer from what was read, or say what has to be."""
        self._follow(views)
        held = Held(views, self._numbering, self._sums, self._minutes)
        for _ in range(_MAX_AGAIN):
            self._numbering.meet(views)
            found = attempt(question, self._resolver.resolve(question.selection, catalog), held)
            if not found.again:
                return found
        raise AssertionError("a resolved selection knows every cohort that was met")

    def prepare(self, views: Sequence[View], catalog: Joined) -> Iterator[None]:
        """Make anew what changed and has been asked for again and again, piece by piece, before somebody asks."""
        self._follow(views)
        self._numbering.meet(views)
        selections = dict(self._asked)
        for asked, times in Counter(asked for asked, _ in self._asked).items():
            if times >= _OFTEN:
                self._sums.remake(views, self._resolver.resolve(selections[asked], catalog))
                yield
        yield from self._minutes.remake(views)

    def runs_by_type(self, views: Sequence[View], missing: Missing) -> dict[str, int]:
        """How many runs there are of each state type, `OTHER` among them; what has to be read goes to `missing`."""
        self._follow(views)
        self._numbering.meet(views)
        days = np.array(sorted(set().union(*(view.days for view in views))), np.int64)
        places = np.append(place_of(COARSEST.number, days), place_of(0, np.array([NONE])))
        sums = self._sums.of(views, ALL_RUNS, places, np.empty(0, np.int64), missing).sums
        types = self._numbering.states.type_codes[sums.group >> FLAG_BITS]
        counts = np.bincount(types, sums.n, minlength=NO_TYPE + 1)
        return {name: int(count) for name, count in zip((*STATE_TYPES, "OTHER"), counts, strict=True)}

    def take_outcomes(self) -> tuple[int, int]:
        """How often a sum was here and was not, since this was last asked."""
        found = self._sums.hits, self._sums.misses
        self._sums.hits = self._sums.misses = 0
        return found

    @property
    def kept_bytes(self) -> int:
        """About the bytes that sums take."""
        return self._sums.weight

    @property
    def cohorts(self) -> int:
        """How many cohorts were met."""
        return len(self._numbering.cohorts)

    def _follow(self, views: Sequence[View]) -> None:
        for position, view in enumerate(views):
            dropped = view.dropped()
            if dropped is None:
                self._sums.drop(None)
                self._minutes.clear()
            else:
                self._sums.drop(dropped.buckets)
                minutes = (bucket for level, bucket in dropped.buckets if level == 0)
                self._minutes.drop(position, minutes, dropped.flow_runs)

    def trim(self) -> None:
        """Keep within the memory budget: between answers."""
        self._sums.trim()
        self._minutes.trim()

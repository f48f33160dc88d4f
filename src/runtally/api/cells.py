"""Answers from cells: what this process keeps for them, and how it uses it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..core.selection import MAX_SETS, Selection
from ..store.view import View
from .answer import Attempt, Held, Question, attempt
from .joined import Joined
from .numbering import Numbering
from .resolved import Resolver
from .sums import CellSums

_MAX_AGAIN: Final = 100


def scanned(selection: Selection) -> bool:
    """Whether a selection can only be answered by a scan of raw runs."""
    return bool(selection.raw) or len(selection.sets) > MAX_SETS


class Cells:
    """Sums of cells of all shards, and the numbers that they are kept under."""

    def __init__(self, budget_bytes: int) -> None:
        self._numbering = Numbering()
        self._resolver = Resolver(self._numbering)
        self._sums = CellSums(budget_bytes, self._numbering)

    def answer(self, question: Question, views: Sequence[View], catalog: Joined) -> Attempt:
        """Answer from what was read, or say what has to be."""
        for view in views:
            self._sums.drop(view.dropped())
        held = Held(views, self._numbering, self._sums)
        for _ in range(_MAX_AGAIN):
            self._numbering.meet(views)
            found = attempt(question, self._resolver.resolve(question.selection, catalog), held)
            if not found.again:
                return found
        raise AssertionError("a resolved selection knows every cohort that was met")

    @property
    def cohorts(self) -> int:
        """How many cohorts were met."""
        return len(self._numbering.cohorts)

    def trim(self) -> None:
        """Keep within the memory budget: between answers."""
        self._sums.trim()

"""Numbers of states and cohorts that hold for all shards, so that their cells can be added up.

They belong to this process and only grow; a shard's own numbers are translated, and may change with its epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.cohorts import Cohort, Cohorts
from ..core.combine import ranked
from ..core.groups import FLAG_BITS, NO_STATE, OTHER, State, States
from ..core.rows import Ints
from ..store.view import View


class Numbering:
    """All states and cohorts that were met."""

    def __init__(self) -> None:
        self.states = States()
        self.cohorts = Cohorts()
        self._ranked: tuple[list[State], Ints] = ([], np.empty(0, np.int64))
        self._translations: dict[str, _Translation] = {}

    def groups_of(self, views: Sequence[View], position: Ints, group: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        """Group numbers as ours, each of the shard whose view is at its position."""
        tables = [self._of(view).states(view) for view in views]
        state = _in_tables(tables, position, group >> FLAG_BITS)
        ours: npt.NDArray[np.uint32] = (state << FLAG_BITS | group & (1 << FLAG_BITS) - 1).astype(np.uint32)
        return ours

    def cohorts_of(self, views: Sequence[View], position: Ints, cohort: Ints) -> Ints:
        """Cohorts' numbers as ours, each of the shard whose view is at its position."""
        return _in_tables([self._of(view).cohorts(view) for view in views], position, cohort)

    def number(self, cohort: Cohort) -> int:
        """Our number of a cohort."""
        known = self.cohorts.number(cohort)
        return self.cohorts.append(cohort) if known is None else known

    def ranked(self) -> tuple[list[State], Ints]:
        """All states as an answer orders them, and by our number where in it each is; −1 for none and other."""
        if len(self._ranked[1]) != len(self.states):
            names = self.states.names
            states = ranked(state for state in names if state is not None)
            at = {state: number for number, state in enumerate(states)}
            self._ranked = states, np.array([-1 if state is None else at[state] for state in names], np.int64)
        return self._ranked

    def meet(self, views: Iterable[View]) -> None:
        """Number everything that the shards know by now."""
        for view in views:
            self._of(view).cohorts(view)
            self._of(view).states(view)

    def _of(self, view: View) -> _Translation:
        known = self._translations.get(view.shard)
        if known is None:
            known = self._translations[view.shard] = _Translation(self)
        return known


def _in_tables(tables: Sequence[Ints], position: Ints, index: npt.NDArray[Any]) -> Ints:
    """Entries of tables: of which one, and where in it."""
    first = np.cumsum([0, *map(len, tables[:-1])])
    found: Ints = np.concatenate(tables)[first[position] + index]
    return found


class _Translation:
    """One shard's numbers as ours."""

    def __init__(self, ours: Numbering) -> None:
        self._ours = ours
        self._cohorts_of: list[Cohort] = []
        self._cohorts: Ints = np.empty(0, np.int64)
        self._states_at: object = None
        self._states: Ints = np.empty(0, np.int64)

    def cohorts(self, view: View) -> Ints:
        known = view.cohorts
        if known is not self._cohorts_of or len(known) != len(self._cohorts):
            # The list grows at its end; another one belongs to another epoch.
            old = self._cohorts if known is self._cohorts_of else self._cohorts[:0]
            fresh = [self._ours.number(cohort) for cohort in known[len(old) :]]
            self._cohorts_of, self._cohorts = known, np.concatenate([old, np.array(fresh, np.int64)])
        return self._cohorts

    def states(self, view: View) -> Ints:
        at = view.states_version
        if at != self._states_at:
            ours = self._ours.states
            known = dict(view.states())
            mapped = np.full(1 + max(known, default=OTHER), NO_STATE, np.int64)
            mapped[OTHER] = OTHER
            ours.extend(state for state in known.values() if ours.number(state) is None)
            for number, state in known.items():
                mapped[number] = ours.number(state) or NO_STATE
            self._states_at, self._states = at, mapped
        return self._states

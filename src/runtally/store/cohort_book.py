"""The cohorts of a shard as its worker holds them: their numbers, and the scopes that their runs are counted in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from ..core.cohorts import NO_FLOW_RUN, UNKNOWN, Cohort, Cohorts, attribute, is_current, other_tags
from ..core.rows import Ints
from ..core.scopes import ALL, COHORT, SCOPES, Scope

ALL_NAME: Final = b""
_WEIGHT: Final = 1_000
"""Rough memory of one cohort, with its numbers and scopes."""


class CohortBook:
    """Numbers are the committed ones of the shard's dictionary. *Scope numbers* are this process's own: one sequence
    for all kinds of scope. `names[scope number]` is (kind, its name in the fields of cells)."""

    def __init__(self, max_cohorts: int, known: Iterable[Cohort] = ()) -> None:
        self._max = max_cohorts
        self._cohorts = Cohorts()
        self._child: list[bool] = []
        self._closed = False
        self._current = 0
        self._scopes: dict[Scope, list[int]] = {kind: [] for kind in SCOPES}
        self._of_name: dict[tuple[Scope, bytes], int] = {}
        self.names: list[tuple[Scope, bytes]] = []
        self._arrays: tuple[npt.NDArray[np.bool_], dict[Scope, Ints]] | None = None
        self.fresh: list[Cohort] = []
        for cohort in known:
            self._append(cohort)

    def __len__(self) -> int:
        return len(self._cohorts)

    @property
    def weight(self) -> int:
        """About the bytes that all of it takes."""
        return _WEIGHT * len(self)

    def number(self, cohort: Cohort) -> int:
        """The number of a cohort; a new one goes to `fresh` as well. Past the cap a new set of tags is *other tags*."""
        number = self._cohorts.number(cohort)
        if number is not None:
            return number
        # Once there are other tags no set gets a number of its own any more, whatever the cap is set to by then:
        # runs are subtracted from the cohort that they were added to.
        if (self._closed or self._current >= self._max) and cohort != NO_FLOW_RUN:
            cohort = other_tags(cohort)
            number = self._cohorts.number(cohort)
            if number is not None:
                return number
        self.fresh.append(cohort)
        return self._append(cohort)

    def committed_number(self, cohort: Cohort) -> int:
        """The number of the cohort that such runs were counted in, by this version or an earlier one."""
        number = self._cohorts.number(cohort)
        if number is None:
            number = self._cohorts.number(other_tags(cohort))
        assert number is not None, cohort
        return number

    def cohort(self, name: bytes) -> Cohort | None:
        """The cohort of that name, None for one that is not in the dictionary."""
        known = self._cohorts.known
        return known[int(name)] if name.isdigit() and int(name) < len(known) else None

    def committed(self) -> None:
        """Note that what was fresh is in Redis now."""
        self.fresh = []

    def child(self) -> npt.NDArray[np.bool_]:
        """By cohort number: whether its flow runs are subflow runs."""
        return self._as_arrays()[0]

    def scopes(self) -> dict[Scope, Ints]:
        """By kind and cohort number, the scope number, −1 for none."""
        return self._as_arrays()[1]

    def scope(self, kind: Scope, name: bytes) -> int:
        """The number of the scope of that name; the next one if it is new."""
        number = self._of_name.setdefault((kind, name), len(self.names))
        if number == len(self.names):
            self.names.append((kind, name))
        return number

    def _append(self, cohort: Cohort) -> int:
        number = self._cohorts.append(cohort)
        self._arrays = None
        # One that was made before an attribute was declared holds no run after the rebuild.
        if is_current(cohort):
            self._current += 1
            self._closed |= UNKNOWN in cohort
        self._child.append(attribute(cohort, "child") is True)
        for kind, numbers in self._scopes.items():
            name = _name(kind, cohort, number)
            numbers.append(-1 if name is None else self.scope(kind, name))
        return number

    def _as_arrays(self) -> tuple[npt.NDArray[np.bool_], dict[Scope, Ints]]:
        if self._arrays is None:
            scopes = {kind: np.array(numbers, np.int64) for kind, numbers in self._scopes.items()}
            self._arrays = np.array(self._child, np.bool_), scopes
        return self._arrays


def _name(kind: Scope, cohort: Cohort, number: int) -> bytes | None:
    if kind is ALL:
        return ALL_NAME
    if kind is COHORT:
        return b"%d" % number
    assert kind.attribute is not None
    identity: bytes | None = attribute(cohort, kind.attribute)
    return identity

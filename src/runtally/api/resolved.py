"""Which cohorts a selection takes, and where the cells of just these are.

A selection's cohort sets are resolved against the catalog and the cohorts known so far, and again when either moves.
Equal outcomes share one number, by which sums of cells are kept: whoever asks for the same cohorts, in whatever words
and order, is served by the same sums.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..core.cohorts import NAMES, NO_FLOW_RUN, UNKNOWN, Cohort, attribute
from ..core.predicate import Atom, evaluate
from ..core.rows import Ints
from ..core.scopes import ALL, COHORT, SCOPES, Scope
from ..core.selection import EXCLUDED, Selection, Verdict, codes, weigh
from ..store.bounded import Bounded
from ..store.cohort_book import ALL_NAME
from ..store.places import Place
from .joined import Joined
from .numbering import Numbering

_KEPT: Final = 1 << 26
"""Memory for what came out, in bytes."""
_ENTRY: Final = 1 << 12
_EVERYTHING: Final = 0
_IN_FLOW: Final = "in flow"


@dataclass(frozen=True, slots=True)
class Resolved:
    """`code` is that of each cohort by its number; `number` names the outcome. `single`: a scope, other than that of
    all runs, whose cells are those of the cohorts taken, at the levels that it has."""

    number: int
    code: Ints | None
    single: tuple[Scope, bytes] | None
    single_code: int = 0

    @property
    def empty(self) -> bool:
        """Whether no run of any known cohort is selected."""
        return self.code is not None and not bool((self.code >= 0).any())

    def kind(self, level: int) -> Scope:
        """The kind of scope whose cells are read at a level."""
        if self.code is None:
            return ALL
        return self.single[0] if self.single is not None and level in self.single[0].levels else COHORT

    def place(self, level: int, page: int) -> Place:
        """The cells to read of a page of buckets."""
        kind = self.kind(level)
        if kind is ALL or kind is COHORT:
            return Place(level, page, kind, ALL_NAME)
        assert self.single is not None
        return Place(level, page, kind, self.single[1])


ALL_RUNS: Final = Resolved(_EVERYTHING, None, None)


class Resolver:
    """Resolves selections, and remembers what came out."""

    def __init__(self, numbering: Numbering) -> None:
        self._numbering = numbering
        self._known: Bounded[Hashable, tuple[int, Resolved]] = Bounded(_KEPT, _weigh)
        # By code, and back: a number is found by the longest code that it was given for.
        self._numbers: Bounded[bytes, int] = Bounded(_KEPT, lambda _: _ENTRY)
        self._longest: Bounded[int, bytes] = Bounded(_KEPT, len)
        self._last = _EVERYTHING
        self._columns = {name: _Column(of) for name, of in _COLUMNS_OF.items()}

    def resolve(self, selection: Selection, catalog: Joined) -> Resolved:
        """The outcome by what is known now."""
        if not selection.sets:
            return ALL_RUNS
        cohorts = self._numbering.cohorts.known
        asked = (selection.shape, selection.sets)
        known = self._known.get(asked)
        if known is not None and known[0] == catalog.version:
            assert known[1].code is not None
            if len(known[1].code) == len(cohorts):
                return known[1]
        code = self._codes(selection, catalog, cohorts)
        found = Resolved(self._number(code, known[1] if known else None), code, *self._single(code, cohorts))
        self._known.put(asked, (catalog.version, found))
        self._known.trim()
        return found

    def _number(self, code: Ints, before: Resolved | None) -> int:
        """The number of an outcome. Further cohorts change no sum that is there: their runs came with a change."""
        packed = code.tobytes()
        known = self._numbers.get(packed)
        if known is None and before is not None:
            longest = self._longest.get(before.number)
            if longest is not None and packed.startswith(longest):
                self._numbers.discard(longest)
                known = before.number
        if known is None:
            self._last += 1
            known = self._last
        self._numbers.put(packed, known)
        self._longest.put(known, packed)
        self._numbers.trim()
        self._longest.trim()
        return known

    def _codes(self, selection: Selection, catalog: Joined, cohorts: list[Cohort]) -> Ints:
        def ask(atom: Atom) -> Verdict:
            column, row_of = _way(atom, catalog)
            values, numbers = self._columns[column].follow(cohorts)
            possible, certain = np.array([_ask(atom, value, row_of) for value in values], np.bool_).reshape(-1, 2).T
            return Verdict(possible[numbers], certain[numbers])

        verdicts = [weigh(tree, len(cohorts), ask) for tree in selection.sets]
        # Whatever asks about a flow run asks for one.
        values, numbers = self._columns[_IN_FLOW].follow(cohorts)
        in_flow = np.array(values, np.bool_)[numbers]
        return np.where(in_flow, codes(selection, verdicts), EXCLUDED)

    def _single(self, code: Ints, cohorts: list[Cohort]) -> tuple[tuple[Scope, bytes] | None, int]:
        """The one flow or deployment whose cohorts are those taken, all with one code."""
        taken = code != EXCLUDED
        first = int(taken.argmax()) if taken.any() else 0
        if not taken.any() or (code[taken] != code[first]).any():
            return None, 0
        for kind in SCOPES:
            if kind.attribute is None:
                continue
            values, numbers = self._columns[kind.attribute].follow(cohorts)
            identity = values[numbers[first]]
            if isinstance(identity, bytes) and np.array_equal(numbers == numbers[first], taken):
                return (kind, identity), int(code[first])
        return None, 0


class _Column:
    """What cohorts say of something: distinct values, and for each cohort the number of its value among them."""

    def __init__(self, of: Callable[[Cohort], Hashable]) -> None:
        self._of = of
        self._numbers: dict[Hashable, int] = {}
        self._of_cohort: npt.NDArray[np.intp] = np.empty(0, np.intp)

    def follow(self, cohorts: list[Cohort]) -> tuple[list[Any], npt.NDArray[np.intp]]:
        """The column of cohorts, which only grow."""
        known, numbers = len(self._of_cohort), self._numbers
        if known != len(cohorts):
            fresh = [numbers.setdefault(self._of(cohort), len(numbers)) for cohort in cohorts[known:]]
            self._of_cohort = np.concatenate([self._of_cohort, np.array(fresh, np.intp)])
        return [*numbers], self._of_cohort


_COLUMNS_OF: Final[Mapping[str, Callable[[Cohort], Hashable]]] = {
    "flow": lambda cohort: (attribute(cohort, "flow_id"), attribute(cohort, "flow_name")),
    **{name: lambda cohort, name=name: attribute(cohort, name) for name in NAMES},  # type: ignore[misc]
    _IN_FLOW: lambda cohort: cohort != NO_FLOW_RUN,
}
"""By name, what is asked of cohorts: their attributes, and what flows are told by."""


def _ask(atom: Atom, key: Any, row_of: Callable[[Any], Mapping[str, Any]]) -> tuple[bool, bool]:
    if key is UNKNOWN or (isinstance(key, tuple) and UNKNOWN in key):
        return True, False
    holds = evaluate(atom, row_of(key)) is True
    return holds, holds


def _way(atom: Atom, catalog: Joined) -> tuple[str, Callable[[Any], Mapping[str, Any]]]:
    """What of a cohort an atom is about, by the name of its column, and how that becomes a row."""
    entity, _, name = atom.column.partition(".")
    if entity == "flow":
        return entity, catalog.flow
    if entity == "deployment":
        return "deployment_id", catalog.deployment
    if name == "tags":
        return name, lambda value: {atom.column: value or ()}
    return name, lambda value: {atom.column: value}


def _weigh(known: tuple[int, Resolved]) -> int:
    code = known[1].code
    return 1000 + (0 if code is None else code.nbytes)

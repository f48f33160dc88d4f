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

from ..core.cohorts import NO_FLOW_RUN, UNKNOWN, Cohort, attribute
from ..core.predicate import Atom, evaluate
from ..core.rows import Ints
from ..core.scopes import ALL, COHORT, SCOPES, Scope
from ..core.selection import EXCLUDED, Selection, Verdict, codes, weigh
from ..store.bounded import Bounded
from ..store.cohort_book import ALL_FIELD
from ..store.places import Place
from .joined import Joined
from .numbering import Numbering

_KEPT: Final = 1 << 26
"""Memory for what came out, in bytes."""
_ENTRY: Final = 1 << 12
_EVERYTHING: Final = 0


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

    def place(self, level: int, bucket: int) -> Place:
        """The cells to read of a bucket."""
        kind = self.kind(level)
        if kind is ALL or kind is COHORT:
            return Place(level, bucket, kind, ALL_FIELD)
        assert self.single is not None
        return Place(level, bucket, kind, self.single[1])


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
        found = Resolved(self._number(code, known[1] if known else None), code, *_single(code, cohorts))
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
        asked = _Asked(catalog, cohorts)
        verdicts = [weigh(tree, len(cohorts), asked) for tree in selection.sets]
        code = codes(selection, verdicts)
        # Whatever asks about a flow run asks for one.
        code[[number for number, cohort in enumerate(cohorts) if cohort == NO_FLOW_RUN]] = EXCLUDED
        return code


class _Asked:
    """Atoms, put to cohorts."""

    def __init__(self, catalog: Joined, cohorts: list[Cohort]) -> None:
        self._catalog = catalog
        self._cohorts = cohorts

    def __call__(self, atom: Atom) -> Verdict:
        known: dict[Hashable, tuple[bool, bool]] = {}
        key_of, row_of = self._ways(atom)
        size = len(self._cohorts)
        possible, certain = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
        for number, cohort in enumerate(self._cohorts):
            key = key_of(cohort)
            verdict = known.get(key)
            if verdict is None:
                verdict = known[key] = _ask(atom, key, row_of)
            possible[number], certain[number] = verdict
        return Verdict(possible, certain)

    def _ways(self, atom: Atom) -> tuple[Callable[[Cohort], Any], Callable[[Any], Mapping[str, Any]]]:
        """What of a cohort an atom is about, and how that becomes columns."""
        entity, _, name = atom.column.partition(".")
        if entity == "flow":
            return lambda cohort: (attribute(cohort, "flow_id"), attribute(cohort, "flow_name")), self._catalog.flow
        if entity == "deployment":
            return lambda cohort: attribute(cohort, "deployment_id"), self._catalog.deployment
        if name == "tags":
            return lambda cohort: attribute(cohort, name), lambda value: {atom.column: value or ()}
        return lambda cohort: attribute(cohort, name), lambda value: {atom.column: value}


def _ask(atom: Atom, key: Any, row_of: Callable[[Any], Mapping[str, Any]]) -> tuple[bool, bool]:
    if key is UNKNOWN or (isinstance(key, tuple) and UNKNOWN in key):
        return True, False
    holds = evaluate(atom, row_of(key)) is True
    return holds, holds


def _single(code: Ints, cohorts: list[Cohort]) -> tuple[tuple[Scope, bytes] | None, int]:
    """The one flow or deployment whose cohorts are those taken, all with one code."""
    taken = np.flatnonzero(code != EXCLUDED).tolist()
    if not taken or (code[taken] != code[taken[0]]).any():
        return None, 0
    for kind in SCOPES:
        if kind.attribute is None:
            continue
        identity = attribute(cohorts[taken[0]], kind.attribute)
        if not isinstance(identity, bytes):
            continue
        same = [number for number, cohort in enumerate(cohorts) if attribute(cohort, kind.attribute) == identity]
        if same == taken:
            return (kind, identity), int(code[taken[0]])
    return None, 0


def _weigh(known: tuple[int, Resolved]) -> int:
    code = known[1].code
    return 1000 + (0 if code is None else code.nbytes)

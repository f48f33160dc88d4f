"""A request's predicate as cells can answer it.

A cell stands for many runs, so a question to it has three outcomes: it holds for all of them, for none, or for some.
A *verdict* is two masks: where the predicate may hold (`possible`) and where it holds for every run (`certain`). Cells
between the two are replaced by finer ones, in the end by raw runs, whose verdict is exact: for a run both masks agree.

Questions to flow runs, flows and deployments are put to cohorts: the largest parts of the tree that speak of nothing
else become *cohort sets*. What each set says of a cohort is packed into the cohort's *code*, two bits a set, which
then stands for the cohort: cells of cohorts with equal codes are summed up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .attributes import By, Test
from .cells import Sums
from .filters import FILTERS
from .groups import CHILD, FLAG_BITS, IN_FLOW, OTHER, PARENT, STARTED, States
from .levels import NONE, minute_of_place
from .predicate import DEPLOYMENT_EXISTS, FLOW_EXISTS, HAS_FLOW_RUN, And, Atom, Node, Or, atoms
from .rows import NULL, Ints, Rows

Mask = npt.NDArray[np.bool_]

MAX_SETS: Final = 30
"""A code has 64 bits."""
EXCLUDED: Final = -1
"""The code of cohorts that no run can be selected from."""


class Verdict(NamedTuple):
    """Where a predicate may hold, and where it holds for all."""

    possible: Mask
    certain: Mask


@dataclass(frozen=True, slots=True)
class CohortSet:
    """A leaf of a selection's tree: whether the cohort is in the set of that number."""

    number: int


ANYTHING: Final = CohortSet(-1)
"""Stands for what is not about cohorts."""

Leaf = Atom | CohortSet


@dataclass(frozen=True, slots=True)
class Joint:
    """An inner node of a selection's tree: the AND of its terms, or their OR."""

    either: bool
    terms: tuple[Joint | Leaf, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """`tree` with its cohort sets taken out as `sets`; `raw` are the atoms that only raw runs can answer.

    `shape` is the tree with ANYTHING for all that is not about cohorts: equal for equal questions to cohorts.
    `asks_flow_run`: to know a raw run's verdict takes its flow run.
    """

    tree: Joint | Leaf
    shape: Joint | Leaf
    sets: tuple[Node, ...]
    raw: tuple[Atom, ...]
    asks_flow_run: bool


def kind_of(atom: Atom) -> By:
    """How an atom is answered."""
    return _KINDS[atom.column, atom.test]


def selection_of(tree: Node) -> Selection:
    """The selection of a compiled predicate."""
    sets: list[Node] = []
    found = _without_cohorts(tree, sets)
    kinds = {atom: kind_of(atom) for atom in atoms(tree)}
    raw = tuple(atom for atom, kind in kinds.items() if kind is By.RAW)
    asks = bool(sets) or any(atom.column == _PARENT_COLUMN for atom in kinds)
    return Selection(found, _shape(found), tuple(sets), raw, asks)


def bounds(selection: Selection) -> list[int]:
    """The instants near which cells are undecided: those of the ranges that are asked for."""
    return [
        int(leaf.value) + (leaf.test is Test.BEFORE)  # type: ignore[arg-type]
        for leaf in _leaves(selection.tree)
        if isinstance(leaf, Atom) and leaf.test in (Test.BEFORE, Test.AFTER)
    ]


def expected_range(selection: Selection, begin: int, end: int) -> tuple[int, int]:
    """The part of [begin, end) in which the selection's runs are expected: what a conjunct says of it at once."""
    tree = selection.tree
    terms = tree.terms if isinstance(tree, Joint) and not tree.either else (tree,)
    for term in terms:
        if isinstance(term, Atom) and term.column == _EXPECTED:
            bound: Any = term.value
            if term.test is Test.AFTER:
                begin = max(begin, bound)
            else:
                end = min(end, bound + 1)
    return begin, max(begin, end)


def codes(selection: Selection, verdicts: list[Verdict]) -> Ints:
    """The code of each cohort, by what each cohort set says of it; EXCLUDED where nothing can be selected."""
    size = len(verdicts[0].possible)
    packed = np.zeros(size, np.int64)
    for number, verdict in enumerate(verdicts):
        packed |= verdict.possible.astype(np.int64) << 2 * number
        packed |= verdict.certain.astype(np.int64) << 2 * number + 1

    def ask(leaf: CohortSet) -> Verdict:
        if leaf != ANYTHING:
            return verdicts[leaf.number]
        anything = np.ones(size, np.bool_)
        return Verdict(anything, ~anything)

    return np.where(weigh(selection.shape, size, ask).possible, packed, EXCLUDED)


def weigh(node: Joint | Leaf | Node, size: int, ask: Callable[[Any], Verdict]) -> Verdict:
    """The verdict of a tree over `size` entries; `ask` gives that of a leaf."""
    if isinstance(node, Atom | CohortSet):
        return ask(node)
    either = node.either if isinstance(node, Joint) else isinstance(node, Or)
    possible, certain = np.full(size, not either), np.full(size, not either)
    for term in node.terms:
        verdict = weigh(term, size, ask)
        if either:
            possible |= verdict.possible
            certain |= verdict.certain
        else:
            possible &= verdict.possible
            certain &= verdict.certain
    return Verdict(possible, certain)


class Extent(NamedTuple):
    """What is known of entries that stand for one run or many: the columns that `verdict` asks.

    `code` is that of the cohort; start bounds mean nothing where the group is not started.
    """

    group: npt.NDArray[np.uint32]
    code: Ints
    timed: Mask
    expected_lo: Ints
    expected_hi: Ints
    start_lo: Ints
    start_hi: Ints


def extent_of_cells(sums: Sums) -> Extent:
    """Cells whose scopes are codes and whose buckets are places."""
    return Extent(
        sums.group,
        sums.scope,
        minute_of_place(sums.bucket) != NONE,
        sums.expected_lo,
        sums.expected_hi,
        sums.start_lo,
        sums.start_hi,
    )


def extent_of_rows(rows: Rows, code: Ints) -> Extent:
    """Raw runs: every bound is the value itself."""
    return Extent(rows.group, code, rows.expected != NULL, rows.expected, rows.expected, rows.start, rows.start)


def verdict(selection: Selection, entries: Extent, states: States) -> Verdict:
    """What the selection says of each entry."""
    return weigh(selection.tree, len(entries.group), lambda leaf: _ask(leaf, entries, states))


def _ask(leaf: Leaf, entries: Extent, states: States) -> Verdict:
    if isinstance(leaf, CohortSet):
        bits = entries.code >> 2 * leaf.number
        return Verdict((bits & 1).astype(bool), (bits & 2).astype(bool))
    flag = _FLAGS.get(leaf.column) if leaf.test is Test.IS_NULL else None
    if flag is not None:
        return _exactly(((entries.group & flag) == 0) == leaf.value)
    match leaf.column:
        case "task_run.state_type":
            return _state(leaf, entries.group, states, 0)
        case "task_run.state_name":
            return _state(leaf, entries.group, states, 1)
        case "task_run.start_time":
            started = (entries.group & STARTED).astype(bool)
            return _within(leaf, started, entries.start_lo, entries.start_hi)
        case "task_run.expected_start_time":
            return _within(leaf, entries.timed, entries.expected_lo, entries.expected_hi)
    # Only raw runs can tell, and these are asked in another way.
    anything = np.ones(len(entries.group), np.bool_)
    return Verdict(anything, ~anything)


def _exactly(mask: Mask) -> Verdict:
    return Verdict(mask, mask)


def _state(atom: Atom, group: npt.NDArray[np.uint32], states: States, part: int) -> Verdict:
    wanted: Any = atom.value
    known = np.array([state is not None and state[part] in wanted for state in states.names], np.bool_)
    number = group >> FLAG_BITS
    certain = known[number]
    return Verdict(certain | (number == OTHER), certain)


def _within(atom: Atom, there: Mask, low: Ints, high: Ints) -> Verdict:
    bound: Any = atom.value
    if atom.test is Test.AFTER:
        return Verdict(there & (high >= bound), there & (low >= bound))
    return Verdict(there & (low <= bound), there & (high <= bound))


def _without_cohorts(node: Node, sets: list[Node]) -> Joint | Leaf:
    """The tree with its largest parts about cohorts replaced by sets, which are appended."""
    if _about_cohorts(node):
        sets.append(node)
        return CohortSet(len(sets) - 1)
    if isinstance(node, Atom):
        return node
    either = isinstance(node, Or)
    about = tuple(term for term in node.terms if _about_cohorts(term))
    terms: list[Joint | Leaf] = [_without_cohorts(term, sets) for term in node.terms if term not in about]
    if about:
        terms.append(_without_cohorts(Or(about) if either else And(about), sets))
    return Joint(either, tuple(terms))


def _shape(node: Joint | Leaf) -> Joint | Leaf:
    if isinstance(node, Joint):
        return Joint(node.either, tuple(dict.fromkeys(map(_shape, node.terms))))
    return node if isinstance(node, CohortSet) else ANYTHING


def _about_cohorts(node: Node) -> bool:
    kinds = {kind_of(atom) for atom in atoms(node)}
    return kinds == {By.COHORT}


def _leaves(node: Joint | Leaf) -> Iterator[Leaf]:
    if isinstance(node, Joint):
        for term in node.terms:
            yield from _leaves(term)
    else:
        yield node


_EXPECTED: Final = "task_run.expected_start_time"
_PARENT_COLUMN: Final = "flow_run.parent_task_run_id"
_FLAGS: Final = {
    "task_run.start_time": STARTED,
    "task_run.flow_run_id": IN_FLOW,
    "task_run.child_flow_run_id": PARENT,
    _PARENT_COLUMN: CHILD,
}
_KINDS: Final[dict[tuple[str, Test], By]] = {
    (column, attribute.test): attribute.by
    for entity in FILTERS.values()
    for part in entity.parts
    for attribute in part.attributes
    if attribute.test is not None
    for column in attribute.columns
} | {
    (HAS_FLOW_RUN.column, HAS_FLOW_RUN.test): By.GROUP,
    (FLOW_EXISTS.column, FLOW_EXISTS.test): By.COHORT,
    (DEPLOYMENT_EXISTS.column, DEPLOYMENT_EXISTS.test): By.COHORT,
}

"""A predicate over raw runs.

A tree's top-level terms speak either of the task run itself or of its flow run (and that one's flow and deployment).
The former are answered here, run by run; the latter once a flow run (`joined.Table`), and looked up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..core.attributes import Test
from ..core.groups import FLAG_BITS, OTHER, State
from ..core.predicate import And, Atom, Node, all_of, atoms
from .columns import Columns, Part
from .masks import Mask, answer, by_value, like_some, of_times, one_of

_TASK_RUN: Final = "task_run."


@dataclass(frozen=True, slots=True)
class Split:
    """A tree in two: what the task run alone answers, and what its flow run does (None: nothing asked of it)."""

    task_run: Node
    flow_run: Node | None


def split(tree: Node) -> Split:
    """Take a tree's top-level terms apart by whom they speak of; no term speaks of both."""
    terms = tree.terms if isinstance(tree, And) else (tree,)
    own = [term for term in terms if all(atom.column.startswith(_TASK_RUN) for atom in atoms(term))]
    others = [term for term in terms if term not in own]
    return Split(all_of(own), all_of(others) if others else None)


@dataclass(frozen=True, slots=True)
class Dictionaries:
    """A shard's numberings: states by number, tag sets by number, flow runs by id (0: none)."""

    states: Mapping[int, State]
    tag_sets: Sequence[tuple[str, ...]]
    flow_runs: Mapping[bytes, int]


def selected(part: Part, tree: Node, flow_runs: Mask | None, known: Dictionaries) -> Mask:
    """Which runs the tree selects; `flow_runs` is the verdict on flow runs by number, None when they do not matter."""
    columns, open_ = part
    if flow_runs is not None:
        chosen = flow_runs[columns.flow_run]
        open_ = chosen if open_ is None else chosen & open_
    if open_ is None:
        open_ = np.ones(len(columns), np.bool_)
    return answer(tree, open_, lambda atom, rows: _ask(atom, columns, known, rows))


def _ask(atom: Atom, columns: Columns, known: Dictionaries, open_: Mask) -> Mask:
    column = atom.column.removeprefix(_TASK_RUN)
    match column:
        case "id":
            wanted: Any = atom.value
            return np.isin(columns.ids, np.array(list(wanted), "S16"))
        case "flow_run_id":
            return _flow_run_id(atom, columns, known)
        case "child_flow_run_id":
            return columns.parent ^ bool(atom.value)
        case "state_type" | "state_name":
            return _state(atom, columns, known, 0 if column == "state_type" else 1)
        case "tags":
            return by_value(atom, known.tag_sets)[columns.tags]
        case "name" if atom.test is Test.LIKE:
            return like_some(atom, columns.folded, open_)
        case "name":
            return one_of(atom, columns.names)
        case "start_time":
            return of_times(atom, columns.rows.start)
        case "end_time":
            return of_times(atom, columns.end)
        case "expected_start_time":
            return of_times(atom, columns.rows.expected)
    raise AssertionError(atom)


def _flow_run_id(atom: Atom, columns: Columns, known: Dictionaries) -> Mask:
    if atom.test is Test.IS_NULL:
        found: Mask = (columns.flow_run == 0) == atom.value
        return found
    wanted: Any = atom.value
    numbers = {known.flow_runs[identity] for identity in wanted if identity in known.flow_runs} - {0}
    return np.isin(columns.flow_run, np.array(list(numbers), np.int32))


def _state(atom: Atom, columns: Columns, known: Dictionaries, part: int) -> Mask:
    parts: list[str | None] = [None] * (1 + max(known.states, default=OTHER))
    for number, state in known.states.items():
        parts[number] = state[part]
    found: Mask = by_value(atom, parts)[columns.rows.group >> FLAG_BITS]
    return found

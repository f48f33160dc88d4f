"""A predicate over raw runs, column by column.

A tree's top-level terms speak either of the task run itself or of its flow run (and that one's flow and deployment).
The former are evaluated here on columns; the latter once a flow run (`joined.Selection`), and looked up.

Three-valued: an atom is two masks, where it is true and where it is false; NULL is neither.

    AND  true where all are true, false where one is false      OR  the other way round
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from ..core.attributes import Test
from ..core.groups import FLAG_BITS, OTHER, State
from ..core.like import like_to_regex
from ..core.predicate import TRUE, And, Atom, Node, Or, all_of, atoms
from ..core.rows import NULL, Ints
from ..errors import BadRequestError
from ..store.blocks import Block, Ids

Mask = npt.NDArray[np.bool_]
Masks = tuple[Mask, Mask]
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
    """A shard's numberings: states by number, tag sets by number."""

    states: Mapping[int, State]
    tag_sets: Sequence[tuple[str, ...]]


def selected(block: Block, tree: Split, flow_runs: Callable[[bytes], bool], known: Dictionaries) -> Mask:
    """Which runs of a block the tree selects; `flow_runs` is the verdict on a flow run by its id."""
    mask = np.ones(len(block), np.bool_) if tree.task_run == TRUE else _node(tree.task_run, block, known)[0]
    if tree.flow_run is None or not mask.any():
        return mask
    ids, inverse = _distinct_flow_runs(block)
    verdicts = np.fromiter(map(flow_runs, ids), np.bool_, len(ids))
    return mask & block.in_flow & verdicts[inverse]


def _node(node: Node, block: Block, known: Dictionaries) -> Masks:
    if isinstance(node, Atom):
        return _atom(node, block, known)
    parts = [_node(term, block, known) for term in node.terms]
    every = np.ones(len(block), np.bool_)
    none = np.zeros(len(block), np.bool_)
    if isinstance(node, Or):
        return _any([true for true, _ in parts], none), _all([false for _, false in parts], every)
    return _all([true for true, _ in parts], every), _any([false for _, false in parts], none)


def _all(masks: list[Mask], start: Mask) -> Mask:
    found: Mask = np.logical_and.reduce([start, *masks])
    return found


def _any(masks: list[Mask], start: Mask) -> Mask:
    found: Mask = np.logical_or.reduce([start, *masks])
    return found


def _atom(atom: Atom, block: Block, known: Dictionaries) -> Masks:
    column = atom.column.removeprefix(_TASK_RUN)
    match column:
        case "id":
            return _two_valued(_in_ids(block.ids, atom))
        case "flow_run_id" if atom.test is Test.IS_NULL:
            return _two_valued(block.in_flow != atom.value)
        case "flow_run_id":
            found = _in_ids(block.flow_run, atom)
            return found & block.in_flow, ~found & block.in_flow
        case "child_flow_run_id":
            return _two_valued(block.parent != atom.value)
        case "state_type" | "state_name":
            return _state(atom, block, known, 0 if column == "state_type" else 1)
        case "tags":
            return _tags(atom, block, known)
        case "name":
            return _name(atom, block)
        case "start_time":
            return _time(atom, block.rows.start)
        case "end_time":
            return _time(atom, block.end)
        case "expected_start_time":
            return _time(atom, block.rows.expected)
    raise AssertionError(atom)


def _two_valued(mask: Mask) -> Masks:
    return mask, ~mask


def _in_ids(column: Ids, atom: Atom) -> Mask:
    wanted: Any = atom.value
    return np.isin(column, np.array(list(wanted), "S16"))


def _time(atom: Atom, column: Ints) -> Masks:
    null = column == NULL
    if atom.test is Test.IS_NULL:
        return _two_valued(null == atom.value)
    bound: Any = atom.value
    found: Mask = column <= bound if atom.test is Test.BEFORE else column >= bound
    return found & ~null, ~found & ~null


def _state(atom: Atom, block: Block, known: Dictionaries, part: int) -> Masks:
    wanted: Any = atom.value
    size = 1 + max(known.states, default=OTHER)
    table = np.zeros(size, np.bool_)
    null = np.ones(size, np.bool_)
    for number, state in known.states.items():
        null[number] = False
        table[number] = (state[part] in wanted) == (atom.test is Test.IN)
    numbers = block.rows.group >> FLAG_BITS
    return table[numbers], ~table[numbers] & ~null[numbers]


def _tags(atom: Atom, block: Block, known: Dictionaries) -> Masks:
    wanted: Any = atom.value
    match atom.test:
        case Test.TAGS_ALL:
            verdicts = [wanted.issubset(tags) for tags in known.tag_sets]
        case Test.TAGS_ANY:
            verdicts = [not wanted.isdisjoint(tags) for tags in known.tag_sets]
        case _:
            verdicts = [(not tags) is wanted for tags in known.tag_sets]
    return _two_valued(np.array(verdicts, np.bool_)[block.tags])


def _name(atom: Atom, block: Block) -> Masks:
    names = block.memo.get("names")
    if names is None:
        names = block.memo["names"] = pl.Series(block.names, dtype=pl.String)
    wanted: Any = atom.value
    if atom.test is Test.LIKE:
        try:
            found = names.str.contains(like_to_regex(wanted))
        except pl.exceptions.ComputeError as error:
            raise BadRequestError(f"This like_ pattern cannot be searched for: {error}") from None
    else:
        found = names.is_in(list(wanted))
    null = names.is_null().to_numpy()
    hit = found.fill_null(value=False).to_numpy()
    return hit & ~null, ~hit & ~null


def _distinct_flow_runs(block: Block) -> tuple[list[bytes], npt.NDArray[np.intp]]:
    known = block.memo.get("flow_runs")
    if known is None:
        ids, inverse = np.unique(block.flow_run, return_inverse=True)
        known = block.memo["flow_runs"] = (ids.view("V16").tolist(), inverse)
    ids_and_inverse: tuple[list[bytes], npt.NDArray[np.intp]] = known
    return ids_and_inverse

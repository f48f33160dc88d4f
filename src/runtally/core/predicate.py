"""The predicate tree: which task runs the filters of a request select, in SQL's three-valued logic.

A tree is made of And, Or and Atom; there is no Not. An atom asks one question of one column (`attributes.Test`).
Columns are named `entity.field`, of a task run joined with its flow run, that one's flow and its deployment:

    task_run    id, name, tags, state_type, state_name, start_time, end_time, expected_start_time,
                flow_run_id, child_flow_run_id
    flow_run    id (= task_run.flow_run_id), name, tags, state_type, state_name, start_time, end_time,
                expected_start_time, start_or_expected (the first of the two that is not NULL),
                next_scheduled_start_time, deployment_id, work_queue_name, flow_version, parent_flow_run_id,
                parent_task_run_id, idempotency_key, created_by (NULL or not), created_by_id, created_by_type
    flow        exists, id, name, tags, any_deployment (NULL if no deployment belongs to it)
    deployment  exists, id, name, tags, paused, work_queue_name, flow_name (of the flow it belongs to)

Values: ids are 16 bytes, times µs, tags collections of text, the rest text or bool; None is NULL. `flow.exists`
and `deployment.exists` are never NULL (a row without flow run has neither); a tree asks them before anything
else about that entity, so the other columns of an entity that does not exist may hold anything.

How an atom treats NULL in its column: every test gives NULL, but IS_NULL, which never does. The tags of an
entity that exists are never NULL.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .attributes import Attribute, SubFilterRow, Test
from .filters import FILTERS
from .like import like_matcher
from .request import EntityFilter, FilterName, Filters, Operator, SubFilter, Value


@dataclass(frozen=True, slots=True)
class Atom:
    """A question to one column. `value`: a set for IN, NOT_IN and TAGS_ALL/ANY; µs for BEFORE and AFTER (both
    inclusive); a pattern for LIKE; True or False for IS, IS_NULL and TAGS_EMPTY."""

    column: str
    test: Test
    value: Value


@dataclass(frozen=True, slots=True)
class And:
    """False if a term is false, else NULL if one is NULL, else true; true without terms."""

    terms: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Or:
    """True if a term is true, else NULL if one is NULL, else false; false without terms."""

    terms: tuple[Node, ...] = ()


Node = And | Or | Atom

TRUE: Final = And()
FALSE: Final = Or()
HAS_FLOW_RUN: Final = Atom("task_run.flow_run_id", Test.IS_NULL, False)
FLOW_EXISTS: Final = Atom("flow.exists", Test.IS, True)
DEPLOYMENT_EXISTS: Final = Atom("deployment.exists", Test.IS, True)


def all_of(terms: Iterable[Node]) -> Node:
    """The AND of terms, without the trivial ones."""
    flat: list[Node] = []
    for term in terms:
        if term == FALSE:
            return FALSE
        flat += term.terms if isinstance(term, And) else (term,)
    return flat[0] if len(flat) == 1 else And(tuple(dict.fromkeys(flat)))


def any_of(terms: Iterable[Node]) -> Node:
    """The OR of terms, without the trivial ones."""
    flat: list[Node] = []
    for term in terms:
        if term == TRUE:
            return TRUE
        flat += term.terms if isinstance(term, Or) else (term,)
    return flat[0] if len(flat) == 1 else Or(tuple(dict.fromkeys(flat)))


def compile_filters(filters: Filters) -> Node:
    """The tree of a request's filters; TRUE when they restrict nothing.

    Any filter on flows, flow runs or deployments asks for a flow run; one on flows or deployments also for that
    row. Ids in `flow_runs` alone are asked of the task run itself, as Prefect does.
    """
    terms: list[Node] = []
    if filters.task_runs is not None:
        terms.append(_entity("task_runs", filters.task_runs))
    direct = _direct_flow_runs(filters)
    if direct is not None:
        terms.append(direct)
    elif filters.flows is not None or filters.flow_runs is not None or filters.deployments is not None:
        terms.append(HAS_FLOW_RUN)
        if filters.flow_runs is not None:
            terms.append(_entity("flow_runs", filters.flow_runs))
        if filters.flows is not None:
            terms += [FLOW_EXISTS, _entity("flows", filters.flows)]
        if filters.deployments is not None:
            terms += [DEPLOYMENT_EXISTS, _entity("deployments", filters.deployments)]
    return all_of(terms)


def _direct_flow_runs(filters: Filters) -> Node | None:
    """The short cut: a list of flow runs and nothing else about flow runs, flows and deployments."""
    given = filters.flow_runs
    if given is None or filters.flows is not None or filters.deployments is not None:
        return None
    if len(given.parts) != 1 or given.parts[0].name != "id":
        return None
    wanted = given.parts[0].get("any_")
    if not wanted or given.parts[0].get("not_any_"):
        return None
    return Atom("task_run.flow_run_id", Test.IN, wanted)


def _entity(name: FilterName, given: EntityFilter) -> Node:
    rows = {row.name: row for row in FILTERS[name].parts}
    terms = [
        _sub_filter(name, rows[part.name], part)
        for part in given.parts
        if any(attribute.test for attribute in rows[part.name].attributes)
    ]
    return _combined(given.operator, terms)


def _sub_filter(entity: FilterName, row: SubFilterRow, given: SubFilter) -> Node:
    if (entity, row.name) == ("task_runs", "flow_run_id"):
        given = _flow_run_id(given)
    restricting = [
        (attribute, value) for attribute in row.attributes if attribute.restricts(value := given.get(attribute.path))
    ]
    if row.name == "state":
        restricting = _usable_state_parts(restricting)
    return _combined(given.operator, [_attribute(attribute, value) for attribute, value in restricting])


def _flow_run_id(given: SubFilter) -> SubFilter:
    """`task_runs.flow_run_id` with what has no effect left out: `is_null_` true wins, otherwise a list does."""
    if given.get("is_null_") is True or given.get("any_") is None:
        return SubFilter(given.name, values=(("is_null_", given.get("is_null_")),))
    return SubFilter(given.name, values=(("any_", given.get("any_")),))


def _usable_state_parts(restricting: list[tuple[Attribute, Value]]) -> list[tuple[Attribute, Value]]:
    """Of `type` and `name` those that restrict by exactly one attribute; the others are no term at all."""
    parts = [attribute.path.partition(".")[0] for attribute, _ in restricting]
    return [pair for pair, part in zip(restricting, parts, strict=True) if parts.count(part) == 1]


def _combined(operator: Operator, terms: list[Node]) -> Node:
    """Nothing to combine is true, with either operator."""
    return any_of(terms) if operator is Operator.OR and terms else all_of(terms)


def _attribute(attribute: Attribute, value: Value) -> Node:
    assert attribute.test is not None
    if value == frozenset():
        return FALSE
    asked = not value if attribute.inverted else value
    return any_of(Atom(column, attribute.test, asked) for column in attribute.columns)


def atoms(node: Node) -> Iterator[Atom]:
    """The atoms of a tree, from left to right."""
    if isinstance(node, Atom):
        yield node
    else:
        for term in node.terms:
            yield from atoms(term)


def evaluate(node: Node, row: Mapping[str, Any]) -> bool | None:
    """What a tree says of one row (column name → value): True, False or None for NULL. Only True selects."""
    if isinstance(node, Atom):
        return _ask(node, row[node.column])
    decisive = isinstance(node, Or)
    verdict: bool | None = not decisive
    for term in node.terms:
        found = evaluate(term, row)
        if found is decisive:
            return decisive
        if found is None:
            verdict = None
    return verdict


def _ask(atom: Atom, held: Any) -> bool | None:
    value: Any = atom.value
    match atom.test:
        case Test.IS_NULL:
            return (held is None) is value
        case _ if held is None:
            return None
        case Test.IN:
            return bool(held in value)
        case Test.NOT_IN:
            return bool(held not in value)
        case Test.BEFORE:
            return bool(held <= value)
        case Test.AFTER:
            return bool(held >= value)
        case Test.IS:
            return held is value
        case Test.LIKE:
            return like_matcher(value)(held)
        case Test.TAGS_ALL:
            return bool(value.issubset(held))
        case Test.TAGS_ANY:
            return not value.isdisjoint(held)
        case Test.TAGS_EMPTY:
            return (not held) is value
    raise AssertionError(atom.test)

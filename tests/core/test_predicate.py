"""The predicate tree on hand-made rows: Prefect's known answers, and three-valued logic by truth tables."""

from __future__ import annotations

import itertools
import uuid
from typing import Any

import pytest

from runtally.api.models import CountBody, filters_of
from runtally.core.attributes import Test
from runtally.core.filters import FLOW_RUNS as FLOW_RUN_TABLE
from runtally.core.predicate import FALSE, TRUE, And, Atom, Or, all_of, any_of, compile_filters, evaluate
from runtally.core.request import NO_FILTERS
from runtally.core.time import instant_of


def number(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def ident(name: str | None) -> bytes | None:
    return None if name is None else uuid.UUID(number(name)).bytes


def second(value: int | None) -> int | None:
    return None if value is None else instant_of(f"2022-01-01T00:00:{value:02}Z")


FLOWS: dict[str, Any] = {
    "F1": {"name": "Alpha_Flow%1", "tags": ("db", "blue"), "any_deployment": ident("D1")},
    "F2": {"name": "beta", "tags": (), "any_deployment": ident("D2")},
    "F3": {"name": "gamma ÀÉ", "tags": ("db", "db"), "any_deployment": None},
}
DEPLOYMENTS: dict[str, Any] = {
    "D1": {"name": "Dep-One", "tags": ("x", "y"), "paused": True, "work_queue_name": "q1", "flow": "F1"},
    "D2": {"name": "dep-two", "tags": (), "paused": False, "work_queue_name": None, "flow": "F2"},
}
NO_FLOW_RUN: dict[str, Any] = {
    column: None
    for attribute in (attribute for part in FLOW_RUN_TABLE.parts for attribute in part.attributes)
    for column in (name.removeprefix("flow_run.") for name in attribute.columns)
}


def flow_run(key: str, flow: str, deployment: str | None, expected: int | None = None, **given: Any) -> dict[str, Any]:
    start = given.get("start_time")
    return {
        **NO_FLOW_RUN,
        "id": ident(key),
        "flow": flow,
        "deployment": deployment,
        "deployment_id": ident(deployment),
        "expected_start_time": second(expected),
        "start_or_expected": start if start is not None else second(expected),
        **given,
    }


FLOW_RUNS: dict[str, Any] = {
    "R1": flow_run(
        "R1", "F1", "D1", 0, name="happy-Marvin", tags=("a", "b"), state_type="COMPLETED", state_name="Completed",
        work_queue_name="q1", flow_version="v1", idempotency_key="k1", created_by=True, created_by_id=number("X"),
        created_by_type="DEPLOYMENT", start_time=second(10), end_time=second(20),
    ),
    "R2": flow_run("R2", "F2", None, 5, name="sad", tags=()),
    "R3": flow_run(
        "R3", "F1", "D3", 7, name="RunThree", tags=("b", "a"), state_type="RUNNING", state_name="Running",
        parent_task_run_id=ident("t5"), parent_flow_run_id=ident("R1"),
    ),
    "R4": flow_run(
        "R4", "F3", None, name="run_4", tags=("b",), state_type="FAILED", state_name="Custom", start_time=second(0),
        end_time=second(1), next_scheduled_start_time=second(30), created_by=True, created_by_type="AUTOMATION",
        idempotency_key="k4",
    ),
}  # fmt: skip


def task_run(number_: int, flow_run_: str | None, tags: tuple[str, ...] = (), **given: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": ident(f"t{number_}"), "name": f"t{number_}", "tags": tags, "flow_run": flow_run_,
        "flow_run_id": ident(flow_run_), "state_type": None, "state_name": None, "start_time": None, "end_time": None,
        "expected_start_time": second(number_), "child_flow_run_id": None,
    }  # fmt: skip
    return row | given


TASK_RUNS = [
    task_run(0, "R1", ("a", "b"), name="t0-Foo_bar", state_type="COMPLETED", state_name="Completed",
             start_time=second(1), end_time=second(2)),
    task_run(1, "R2", name="t1-foo%bar"),
    task_run(2, "R3", ("a",)),
    task_run(3, "R4", ("b", "b"), state_type="FAILED", state_name="Failed"),
    task_run(4, None, ("a",), state_type="RUNNING", state_name="Running", start_time=second(4)),
    task_run(5, "R1", ("c",), state_type="COMPLETED", state_name="Custom", child_flow_run_id=ident("R3")),
]  # fmt: skip


def joined(task: dict[str, Any]) -> dict[str, Any]:
    """A row as `evaluate` takes it; what does not exist is left NULL."""
    run = FLOW_RUNS.get(task["flow_run"], NO_FLOW_RUN)
    flow = FLOWS.get(run.get("flow"), dict.fromkeys(("name", "tags", "any_deployment")))
    deployment = DEPLOYMENTS.get(
        run.get("deployment"), dict.fromkeys(("name", "tags", "paused", "work_queue_name", "flow"))
    )
    return {
        **{f"task_run.{key}": value for key, value in task.items()},
        **{f"flow_run.{key}": value for key, value in run.items()},
        **{f"flow.{key}": value for key, value in flow.items()},
        **{f"deployment.{key}": value for key, value in deployment.items()},
        "flow.exists": run.get("flow") in FLOWS,
        "flow.id": ident(run.get("flow")),
        "deployment.exists": run.get("deployment") in DEPLOYMENTS,
        "deployment.id": ident(run.get("deployment")),
        "deployment.flow_name": FLOWS[deployment["flow"]]["name"] if deployment["flow"] else None,
    }


ROWS = [joined(task) for task in TASK_RUNS]


def selected(body: dict[str, Any]) -> str:
    tree = compile_filters(filters_of(CountBody.model_validate(body)))
    return "".join(str(index) for index, row in enumerate(ROWS) if evaluate(tree, row) is True)


def one(path: str, value: Any) -> dict[str, Any]:
    """`one("flows.id.any_", x)` is `{"flows": {"id": {"any_": x}}}`."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


F1, R1, X, D1, D3, T5 = (number(name) for name in ("F1", "R1", "X", "D1", "D3", "t5"))
AT_10, AT_06, AT_20 = (f"2022-01-01T00:00:{value}Z" for value in ("10", "06", "20"))

# (body, digits of the task runs that are selected)
VECTORS: list[tuple[dict[str, Any], str]] = [
    ({}, "012345"),
    ({"flows": None, "flow_runs": None, "task_runs": None, "deployments": None}, "012345"),
    ({"task_runs": {}}, "012345"),
    ({"flows": {}}, "01235"),
    ({"flow_runs": {}}, "01235"),
    ({"flows": {"operator": "or_"}}, "01235"),
    ({"deployments": {}}, "05"),
    (one("flows.id.any_", []), ""),
    (one("flows.id.not_any_", []), "01235"),
    (one("flows.id.not_any_", [F1]), "13"),
    (one("flows.id.any_", [F1.upper(), "{" + F1 + "}", f"urn:uuid:{F1}", F1.replace("-", "")]), "025"),
    (one("flows.deployment.is_null_", True), "3"),
    (one("flows.deployment.is_null_", False), "0125"),
    (one("flows.name.like_", "a_F"), "025"),
    (one("flows.name.like_", "a%1"), "025"),
    (one("flows.name.like_", "ALPHA"), "025"),
    (one("flows.name.like_", ""), "01235"),
    (one("flows.name.like_", "àé"), "3"),
    (one("flows.name.like_", "w\\%"), "025"),
    (one("flows.tags", {"operator": "or_", "all_": ["blue"], "is_null_": True}), "0125"),
    ({"flows": {"operator": "or_", "tags": {}, "name": {"any_": ["beta"]}}}, "01235"),
    (one("flow_runs.tags.any_", []), ""),
    (one("flow_runs.tags.all_", ["b", "a"]), "025"),
    (one("flow_runs.tags.all_", []), "01235"),
    (one("flow_runs.tags.is_null_", True), "1"),
    (one("flow_runs.deployment_id.is_null_", True), "13"),
    (one("flow_runs.deployment_id.is_null_", False), "025"),
    (one("flow_runs.deployment_id.any_", [D3]), "2"),
    (one("flow_runs.state.type.not_any_", ["COMPLETED"]), "23"),
    (one("flow_runs.state.type", {"any_": ["COMPLETED", "FAILED"], "not_any_": ["COMPLETED"]}), "01235"),
    (one("flow_runs.state.type", {"any_": ["COMPLETED", "FAILED"], "not_any_": []}), "035"),
    (one("flow_runs.state", {"operator": "or_", "type": {}, "name": {"any_": ["Custom"]}}), "3"),
    (one("flow_runs.state", {"operator": "or_"}), "01235"),
    (one("flow_runs.start_time.before_", AT_10), "01235"),
    (one("flow_runs.start_time.after_", AT_10), "05"),
    (one("flow_runs.start_time.before_", AT_06), "13"),
    (one("flow_runs.start_time.is_null_", True), "12"),
    (one("flow_runs.end_time.before_", AT_20), "035"),
    (one("flow_runs.end_time.after_", AT_20), "05"),
    (one("flow_runs.parent_flow_run_id.any_", [R1]), "2"),
    (one("flow_runs.parent_task_run_id.any_", [T5]), "2"),
    (one("flow_runs.idempotency_key.not_any_", ["k1"]), "3"),
    (one("flow_runs.created_by", {"operator": "or_", "type_": ["AUTOMATION"], "is_null_": True}), "123"),
    (one("flow_runs.created_by.id_", [X.upper()]), "05"),
    ({"flow_runs": {"operator": "or_", "id": {"any_": [R1]}, "name": {"any_": ["sad"]}}}, "015"),
    ({"flow_runs": {"operator": "or_", "id": {"any_": [R1]}}}, "05"),
    (one("flow_runs.id.any_", []), ""),
    (one("flow_runs.id", {"any_": [R1], "not_any_": [R1]}), ""),
    (one("task_runs.flow_run_id", {}), "01235"),
    (one("task_runs.flow_run_id.is_null_", True), "4"),
    (one("task_runs.flow_run_id.is_null_", None), "012345"),
    (one("task_runs.flow_run_id", {"any_": [R1], "is_null_": True, "operator": "or_"}), "4"),
    (one("task_runs.flow_run_id", {"any_": [R1], "is_null_": None}), "05"),
    (one("task_runs.flow_run_id", {"any_": [R1]}), "05"),
    (one("task_runs.flow_run_id", {"any_": []}), ""),
    ({"task_runs": {"operator": "or_", "flow_run_id": {"is_null_": None}, "name": {"any_": ["x"]}}}, "012345"),
    (one("task_runs.start_time.before_", "2023-01-01"), "04"),
    (one("task_runs.tags.all_", ["b", "a", "a"]), "0"),
    (one("task_runs.subflow_runs.exists_", True), "5"),
    (one("task_runs.subflow_runs.exists_", False), "01234"),
    (one("deployments.id.not_any_", [D1]), ""),
    (one("deployments.id.any_", [D3]), ""),
    (one("deployments.flow_or_deployment_name.like_", "alpha"), "05"),
    (one("deployments.flow_or_deployment_name.like_", "dep-ONE"), "05"),
    (one("deployments.paused.eq_", "yes"), "05"),
    ({"deployments": {"operator": "or_", "concurrency_limit": {"is_null_": True}, "name": {"any_": ["zzz"]}}}, ""),
    ({"deployments": {"operator": "or_", "paused": {}, "name": {"any_": ["zzz"]}}}, "05"),
    ({"deployments": {"concurrency_limit": {"ge_": 5}}}, "05"),
]


@pytest.mark.parametrize(("body", "expected"), VECTORS, ids=lambda value: str(value)[:70])
def test_known_answers(body, expected):
    assert selected(body) == expected


def test_no_filter_is_the_trivial_tree():
    assert compile_filters(NO_FILTERS) == TRUE


THREE = {True: Atom("t", Test.IS, True), False: Atom("f", Test.IS, True), None: Atom("n", Test.IS, True)}
TRUTH = {"t": True, "f": False, "n": None}


@pytest.mark.parametrize("values", list(itertools.product((True, False, None), repeat=3)), ids=str)
def test_and_and_or_are_sql_s(values):
    terms = tuple(THREE[value] for value in values)
    every = False if False in values else None if None in values else True
    some = True if True in values else None if None in values else False
    for combined in (And(terms), all_of(terms), all_of([terms[0], And(terms[1:]), TRUE])):
        assert evaluate(combined, TRUTH) is every
    for combined in (Or(terms), any_of(terms), any_of([terms[0], Or(terms[1:]), FALSE])):
        assert evaluate(combined, TRUTH) is some


def test_nothing_to_combine_is_true_for_and_and_false_for_or():
    assert evaluate(TRUE, {}) is True
    assert evaluate(FALSE, {}) is False
    assert all_of([THREE[True], FALSE]) == FALSE
    assert any_of([THREE[False], TRUE]) == TRUE


@pytest.mark.parametrize(
    ("test", "value"),
    [
        (Test.IN, frozenset({"a"})),
        (Test.NOT_IN, frozenset({"a"})),
        (Test.BEFORE, 1),
        (Test.AFTER, 1),
        (Test.IS, False),
        (Test.LIKE, "%"),
    ],
)
def test_every_test_but_is_null_gives_null_on_null(test, value):
    assert evaluate(Atom("c", test, value), {"c": None}) is None


@pytest.mark.parametrize(("held", "value", "expected"), [(None, True, True), (None, False, False), (0, True, False)])
def test_is_null_never_gives_null(held, value, expected):
    assert evaluate(Atom("c", Test.IS_NULL, value), {"c": held}) is expected

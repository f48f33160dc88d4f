"""What filters select: Prefect's own tests, and what its server was seen to do beyond them."""

from __future__ import annotations

import uuid
from typing import Any

from .told import COMPLETED, FAILED, PENDING, RUNNING, SCHEDULED, Body, Told, Vectors, at, body


def _counts() -> Vectors:
    told = Told("counts")
    for flow, tags in (("f-1", ["db", "blue"]), ("f-2", ["db"]), ("f-3", []), ("f-4", [])):
        told.tell("flow", flow, name=flow, tags=tags)
    for deployment, flow in (("d-1-1", "f-1"), ("d-1-2", "f-1"), ("d-3-1", "f-3")):
        told.tell("deployment", deployment, flow_id=flow, name=deployment)
    told.flow_run("A", "f-1", COMPLETED, name="test-happy-duck", tags=["db", "blue"], deployment_id="d-1-1")
    told.flow_run("B", "f-2", RUNNING, name="another-sad-duck", tags=["red"])
    told.flow_run("C", "f-3", COMPLETED, deployment_id="d-3-1")
    told.flow_run("D", "f-4")
    told.flow_run("E", "f-4", parent_task_run_id="D-2", parent_flow_run_id="D")
    for label in ("lonely-1", "lonely-2"):
        told.flow_run(label, "f-1", FAILED, tags=["db", "red"])
    for label, owner, state, name in (
        ("A-1", "A", RUNNING, "task-run-1"),
        ("A-2", "A", COMPLETED, "task-run-2"),
        ("A-2a", "A", COMPLETED, "task-run-2a"),
        ("B-1", "B", RUNNING, "quiet-cat"),
        ("B-2", "B", COMPLETED, "loud-dog"),
        ("B-3", "B", COMPLETED, "old-cow"),
        ("C-1", "C", FAILED, "fast-fish"),
        ("D-1", "D", None, "slow-snail"),
        ("D-2", "D", None, "big-bug"),
        ("E-1", "E", None, "wet-worm"),
    ):
        ended = {"end_time": at(seconds=1)} if state in (COMPLETED, FAILED) else {}
        child = {"child_flow_run_id": "E"} if label == "D-2" else {}
        told.task_run(label, owner, state, name=name, expected_start_time=at(), **ended, **child)
    ids, tomorrow = told.ids, at(days=1)
    completed = {"type": {"any_": ["COMPLETED"]}}
    return Vectors(
        told.events,
        ids,
        body(at(hours=-1), at(hours=1), 7200),
        [
            ({}, 10),
            ({"flows": {}}, 10),
            ({"flows": {}, "flow_runs": {}}, 10),
            ({"flows": {"name": {"any_": ["f-1", "f-2"]}}}, 6),
            ({"flows": {"name": {"any_": ["f-1", "f-100"]}}}, 3),
            ({"flows": {"name": {"any_": ["f-1"]}}}, 3),
            ({"flows": {"name": {"like_": "f-"}}}, 10),
            ({"task_runs": {"name": {"like_": "task-run"}}}, 3),
            ({"task_runs": {"name": {"like_": "run-2"}}}, 2),
            ({"task_runs": {"name": {"like_": "2a"}}}, 1),
            ({"flows": {"tags": {"all_": ["db"]}}}, 6),
            ({"flows": {"tags": {"all_": ["db", "blue"]}}}, 3),
            ({"flows": {"tags": {"all_": ["db", "red"]}}}, 0),
            ({"flow_runs": {"tags": {"all_": ["db", "red"]}}}, 0),
            ({"flow_runs": {"tags": {"all_": ["db", "blue"]}}}, 3),
            ({"flow_runs": {"name": {"like_": "test-happy"}}}, 3),
            ({"flow_runs": {"name": {"like_": "test-happy-mallard"}}}, 0),
            ({"deployments": {"id": {"any_": [ids["d-1-1"]]}}}, 3),
            ({"deployments": {"name": {"like_": "d_1"}}}, 3),
            ({"flow_runs": {"tags": {"is_null_": True}}}, 4),
            ({"flow_runs": {"state": completed}}, 4),
            ({"flow_runs": {"state": {**completed, "name": {"any_": ["NOT-COMPLETED"]}}}}, 0),
            ({"flow_runs": {"state": {"name": {"any_": ["Completed"]}}}}, 4),
            ({"flow_runs": {"state": completed}, "flows": {"tags": {"all_": ["xyz"]}}}, 0),
            ({"flow_runs": {"deployment_id": {"any_": [ids["d-1-1"], ids["d-1-2"]]}}}, 3),
            ({"flow_runs": {"deployment_id": {"any_": [ids["d-1-1"], ids["d-3-1"]]}}}, 4),
            ({"task_runs": {"subflow_runs": {"exists_": True}}}, 1),
            ({"task_runs": {"subflow_runs": {"exists_": False}}}, 9),
            ({"task_runs": {"subflow_runs": {"exists_": True}, "tags": {"all_": ["subflow"]}}}, 0),
            ({"task_runs": {"end_time": {"is_null_": False}}}, 5),
            ({"task_runs": {"end_time": {"is_null_": True}}}, 5),
            ({"task_runs": {"end_time": {"before_": tomorrow}}}, 5),
            ({"task_runs": {"end_time": {"after_": tomorrow}}}, 0),
        ],
    )


COUNTS = _counts()
"""Prefect's own selection tests; an answer is what /task_runs/count says. Three task runs have no state."""


def _selections() -> Vectors:
    told = Told("selections")
    told.tell("flow", "F1", name="Alpha_Flow%1", tags=["db", "blue"])
    told.tell("flow", "F2", name="beta", tags=[])
    told.tell("flow", "F3", name="gamma ÀÉ", tags=["db", "db"])
    told.tell("deployment", "D1", flow_id="F1", name="Dep-One", tags=["x", "y"], paused=True, work_queue_name="q1")
    told.tell("deployment", "D2", flow_id="F2", name="dep-two", tags=[], paused=False)
    told.tell("deployment", "D3", flow_id="F1", name="dep-three")
    told.tell("deployment", "D3", "delete")
    told.flow_run(
        "R1",
        "F1",
        COMPLETED,
        deployment_id="D1",
        name="happy-Marvin",
        tags=["a", "b"],
        work_queue_name="q1",
        flow_version="v1",
        idempotency_key="k1",
        created_by={"id": str(uuid.UUID(int=0xC0FFEE)), "type": "DEPLOYMENT"},
        expected_start_time=at(),
        start_time=at(seconds=10),
        end_time=at(seconds=20),
    )
    told.flow_run("R2", "F2", deployment_id=None, name="sad", tags=[], expected_start_time=at(seconds=5))
    told.flow_run(
        "R3",
        "F1",
        RUNNING,
        deployment_id="D3",
        name="RunThree",
        tags=["b", "a"],
        expected_start_time=at(seconds=7),
        parent_task_run_id="t5",
        parent_flow_run_id="R1",
    )
    told.flow_run(
        "R4",
        "F3",
        ("FAILED", "Custom"),
        name="run_4",
        tags=["b"],
        start_time=at(),
        end_time=at(seconds=1),
        next_scheduled_start_time=at(hours=1),
        created_by={"type": "AUTOMATION"},
        idempotency_key="k4",
    )
    for number, (owner, state, name, tags, times) in enumerate(
        [
            ("R1", COMPLETED, "t0-Foo_bar", ["a", "b"], {"start_time": at(seconds=1), "end_time": at(seconds=2)}),
            ("R2", PENDING, "t1-foo%bar", [], {}),
            ("R3", SCHEDULED, "t2", ["a"], {}),
            ("R4", FAILED, "t3", ["b", "b"], {}),
            (None, RUNNING, "t4", ["a"], {"start_time": at(seconds=4)}),
            ("R1", ("COMPLETED", "Custom"), "t5", ["c"], {}),
        ]
    ):
        child = {"child_flow_run_id": "R3"} if number == 5 else {}
        told.task_run(
            f"t{number}",
            owner,
            state,
            name=name,
            tags=tags,
            expected_start_time=at(seconds=number),
            **times,
            **child,
        )
    return Vectors(told.events, told.ids, body(at(), at(seconds=6), 1), _selected(told.ids))


def _selected(ids: dict[str, str]) -> list[tuple[Body, Any]]:
    every, owned = "t0 t1 t2 t3 t4 t5", "t0 t1 t2 t3 t5"
    not_zzz = {"operator": "or_", "name": {"any_": ["zzz"]}}

    def flow_runs(**sub_filters: Any) -> Body:
        return {"flow_runs": sub_filters}

    def task_runs(**sub_filters: Any) -> Body:
        return {"task_runs": sub_filters}

    table: list[tuple[Body, str]] = [
        ({}, every),
        (task_runs(), every),
        ({"flows": {}}, owned),
        (flow_runs(), owned),
        ({"flows": {"operator": "or_"}}, owned),
        ({"deployments": {}}, "t0 t5"),
        ({"flows": {"id": {"any_": []}}}, ""),
        ({"flows": {"id": {"not_any_": []}}}, owned),
        ({"flows": {"id": {"not_any_": [ids["F1"]]}}}, "t1 t3"),
        ({"flows": {"deployment": {"is_null_": True}}}, "t3"),
        ({"flows": {"deployment": {"is_null_": False}}}, "t0 t1 t2 t5"),
        ({"flows": {"name": {"like_": "a_F"}}}, "t0 t2 t5"),
        ({"flows": {"name": {"like_": "a%1"}}}, "t0 t2 t5"),
        ({"flows": {"name": {"like_": "ALPHA"}}}, "t0 t2 t5"),
        ({"flows": {"tags": {"operator": "or_", "all_": ["blue"], "is_null_": True}}}, "t0 t1 t2 t5"),
        ({"flows": {"operator": "or_", "tags": {}, "name": {"any_": ["beta"]}}}, owned),
        (flow_runs(tags={"any_": []}), ""),
        (flow_runs(tags={"all_": ["b", "a"]}), "t0 t2 t5"),
        (flow_runs(tags={"is_null_": True}), "t1"),
        (flow_runs(deployment_id={"is_null_": True}), "t1 t3"),
        (flow_runs(deployment_id={"is_null_": False}), "t0 t2 t5"),
        (flow_runs(state={"type": {"not_any_": ["COMPLETED"]}}), "t2 t3"),
        (flow_runs(state={"type": {"any_": ["COMPLETED", "FAILED"], "not_any_": ["COMPLETED"]}}), owned),
        (flow_runs(state={"operator": "or_", "type": {}, "name": {"any_": ["Custom"]}}), "t3"),
        (flow_runs(start_time={"before_": at(seconds=10)}), owned),
        (flow_runs(start_time={"after_": at(seconds=10)}), "t0 t5"),
        (flow_runs(start_time={"before_": at(seconds=6)}), "t1 t3"),
        (flow_runs(start_time={"is_null_": True}), "t1 t2"),
        (flow_runs(end_time={"before_": at(seconds=20)}), "t0 t3 t5"),
        (flow_runs(end_time={"after_": at(seconds=20)}), "t0 t5"),
        (flow_runs(parent_flow_run_id={"any_": [ids["R1"]]}), "t2"),
        (flow_runs(parent_task_run_id={"any_": [ids["t5"]]}), "t2"),
        (flow_runs(idempotency_key={"not_any_": ["k1"]}), "t3"),
        (flow_runs(created_by={"operator": "or_", "type_": ["AUTOMATION"], "is_null_": True}), "t1 t2 t3"),
        (flow_runs(operator="or_", id={"any_": [ids["R1"]]}, name={"any_": ["sad"]}), "t0 t1 t5"),
        (task_runs(flow_run_id={}), owned),
        (task_runs(flow_run_id={"is_null_": True}), "t4"),
        (task_runs(flow_run_id={"is_null_": None}), every),
        (task_runs(flow_run_id={"any_": [ids["R1"]], "is_null_": True, "operator": "or_"}), "t4"),
        (task_runs(start_time={"before_": "2023-01-01T00:00:00Z"}), "t0 t4"),
        (task_runs(tags={"all_": ["b", "a", "a"]}), "t0"),
        (task_runs(subflow_runs={"exists_": True}), "t5"),
        (task_runs(subflow_runs={"exists_": False}), "t0 t1 t2 t3 t4"),
        ({"deployments": {"id": {"not_any_": [ids["D1"]]}}}, ""),
        ({"deployments": {"id": {"any_": [ids["D3"]]}}}, ""),
        ({"deployments": {"concurrency_limit": {"is_null_": True}, **not_zzz}}, ""),
        ({"deployments": {"paused": {}, **not_zzz}}, "t0 t5"),
    ]
    return [(filter_, set(selected.split())) for filter_, selected in table]


SELECTIONS = _selections()
"""What each filter selects, as labels; t0…t5 are alone in the six bins of `range`, so the bins tell them apart."""

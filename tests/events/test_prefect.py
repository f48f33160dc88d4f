"""Prefect's own events are patches of what they know."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runtally.core.changes import ENTITIES
from runtally.errors import BadEventError
from runtally.events.wire import Ignored

from .agreement import agrees
from .samples import FLOW, FLOW_RUN, PREFECT_EVENTS, RUN, T_US, T, change_of, fields, id_of, read


def test_captured_prefect_events_are_read_as_the_reference_reads_them() -> None:
    kinds = [agrees(line) for line in PREFECT_EVENTS]
    assert {kind: kinds.count(kind) for kind in kinds} == {"task_run": 46, "flow_run": 6, "ignored": 2}


def test_a_prefect_event_is_a_patch_of_what_it_knows() -> None:
    line = next(line for line in PREFECT_EVENTS if b'"prefect.task-run.Completed"' in line)
    told = json.loads(line)
    change = change_of(line)
    assert (change.entity, change.action) == ("task_run", "patch")
    assert set(fields(change)) == set(ENTITIES["task_run"].fields) - {"child_flow_run_id"}
    assert fields(change)["name"] == told["payload"]["task_run"]["name"]
    line = next(line for line in PREFECT_EVENTS if b'"prefect.flow-run.Pending"' in line)
    assert set(fields(change_of(line))) == {"state", "name", "flow_id", "flow_name"}


def prefect(**over: Any) -> dict[str, Any]:
    return {
        "occurred": T,
        "event": "prefect.task-run.Running",
        "resource": {"prefect.resource.id": f"prefect.task-run.{RUN}", "prefect.orchestration": "client"},
        "payload": {"validated_state": {"type": "RUNNING"}, "task_run": {"name": "extract"}},
        **over,
    }


def test_a_prefect_state_without_a_name_is_called_by_its_type() -> None:
    change = change_of(prefect())
    assert fields(change) == {"state": ("RUNNING", "Running", T_US), "name": "extract"}
    assert change.flow_run_id is None


def test_the_first_related_flow_run_counts() -> None:
    related = [
        {"prefect.resource.id": f"prefect.flow-run.{each}", "prefect.resource.role": "flow-run"}
        for each in (FLOW_RUN, FLOW)
    ]
    assert change_of(prefect(related=related)).flow_run_id == id_of(FLOW_RUN)


@pytest.mark.parametrize(
    "message",
    [
        prefect(resource={}),
        prefect(event="prefect.task-run.Running", resource={"prefect.orchestration": "server"}),
        prefect(event="prefect.flow-run.heartbeat", payload={}),
        prefect(event="prefect.deployment.created"),
        prefect(event=""),
    ],
)
def test_other_prefect_events_are_ignored_with_a_word(message: dict[str, Any]) -> None:
    ignored = read(message)
    assert isinstance(ignored, Ignored)
    assert ignored.reason


@pytest.mark.parametrize(
    ("message", "reason", "named"),
    [
        (prefect(occurred=None), "missing field", "occurred"),
        (prefect(occurred=5), "wrong type", "occurred"),
        (prefect(occurred="2026-11-24"), "wrong value", "occurred"),
        (prefect(payload=None), "missing field", "type"),
        (prefect(payload=[]), "wrong type", "payload"),
        (prefect(payload={"validated_state": {"type": "x"}}), "wrong value", "state_type"),
        (prefect(payload={"validated_state": {"type": "RUNNING"}, "task_run": {"tags": 1}}), "wrong type", "tags"),
        (prefect(related={"x": 1}), "wrong type", "related"),
        (prefect(related=[{"prefect.resource.role": "flow-run"}]), "missing field", "prefect.resource.id"),
        (prefect(resource={"prefect.orchestration": "client"}), "missing field", "prefect.resource.id"),
        (
            prefect(resource={"prefect.resource.id": "x", "prefect.orchestration": "client"}),
            "wrong value",
            "prefect.task-run.",
        ),
        (prefect(payload={"validated_state": {"type": "RUNNING", "timestamp": "x"}}), "wrong value", "state_timestamp"),
    ],
)
def test_a_bad_prefect_event_says_what_is_wrong(message: dict[str, Any], reason: str, named: str) -> None:
    with pytest.raises(BadEventError) as caught:
        read(message)
    assert caught.value.reason == reason
    assert named in caught.value.detail

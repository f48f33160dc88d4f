"""Prefect's own events, as its events websocket gives them, read as patches.

They carry what the emitter knew: a task run's event has its full picture in `payload.task_run` without the ids, a flow
run's has little more than its state. Related tags mix those of task, flow run and deployment, so they are not used.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

from .contract import bad

_ID: Final = "prefect.resource.id"
_NAME: Final = "prefect.resource.name"
_ROLE: Final = "prefect.resource.role"
_TASK_RUN_FIELDS: Final = ("name", "tags", "expected_start_time", "start_time", "end_time", "total_run_time")
_RELATED_IDS: Final = {"flow_id": "flow", "deployment_id": "deployment", "parent_task_run_id": "task-run"}
_RELATED_NAMES: Final = {"flow_name": "flow", "deployment_name": "deployment", "work_queue_name": "work-queue"}

Json = dict[str, Any]


class Patch(NamedTuple):
    """A Prefect event in the words of our contract; `data` is not validated yet."""

    entity: Literal["task_run", "flow_run"]
    occurred: str
    data: Json


def translate(event: Json) -> Patch | str:
    """The patch that an event is, or in a word why it is of no interest.

    Raises `BadEventError` for an event about a run that lacks what Prefect always gives.
    """
    name, resource = event["event"], _object(event, "resource")
    if name.startswith("prefect.task-run."):
        if resource.get("prefect.orchestration") != "client":
            return "a task run's event that its own client did not send"
        return Patch("task_run", _text(event, "occurred"), _task_run(event, resource))
    if name.startswith("prefect.flow-run."):
        if not _object(event, "payload").get("validated_state"):
            return "a flow run's event without a state"
        return Patch("flow_run", _text(event, "occurred"), _flow_run(event, resource))
    return "an event about something else"


def _task_run(event: Json, resource: Json) -> Json:
    told = _object(_object(event, "payload"), "task_run")
    flow_run = _first(event, "flow-run")
    return {
        **{field: told[field] for field in _TASK_RUN_FIELDS if field in told},
        **_state_of(event),
        "id": _id(resource, "task-run"),
        "flow_run_id": None if flow_run is None else _id(flow_run, "flow-run"),
    }


def _flow_run(event: Json, resource: Json) -> Json:
    ids = {field: (role, _first(event, role)) for field, role in _RELATED_IDS.items()}
    names = {field: (_first(event, role) or {}).get(_NAME) for field, role in _RELATED_NAMES.items()}
    names["name"] = resource.get(_NAME)
    return {
        **{field: _id(related, role) for field, (role, related) in ids.items() if related is not None},
        **{field: name for field, name in names.items() if name is not None},
        **_state_of(event),
        "id": _id(resource, "flow-run"),
    }


def _state_of(event: Json) -> Json:
    state = _object(_object(event, "payload"), "validated_state")
    state_type = _text(state, "type")
    return {
        "state_type": state_type,
        "state_name": state.get("name") or state_type.title(),
        "state_timestamp": state.get("timestamp") or event["occurred"],
    }


def _first(event: Json, role: str) -> Json | None:
    related = event.get("related") or []
    if not isinstance(related, list):
        raise bad("wrong type", "Prefect event: related: expected an array")
    return next((each for each in related if isinstance(each, dict) and each.get(_ROLE) == role), None)


def _id(resource: Json, kind: str) -> str:
    text, prefix = _text(resource, _ID), f"prefect.{kind}."
    if not text.startswith(prefix):
        raise bad("wrong value", f"Prefect event: {_ID} does not begin with {prefix}")
    return text.removeprefix(prefix)


def _object(parent: Json, key: str) -> Json:
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad("wrong type", f"Prefect event: {key}: expected an object")
    return value


def _text(parent: Json, key: str) -> str:
    value = parent.get(key)
    if value is None:
        raise bad("missing field", f"Prefect event: {key} has to be given")
    if not isinstance(value, str):
        raise bad("wrong type", f"Prefect event: {key}: expected a text")
    return value

"""Prefect's own events, as its events websocket gives them, read as patches.

They carry what the emitter knew: a task run's event has its full picture in `payload.task_run` without the
ids, a flow run's has little more than its state. Related tags mix those of task, flow run and deployment, so
they are not used.
"""

from __future__ import annotations

from typing import Any, Final

from ..errors import BadEventError

_TASK_RUN: Final = "prefect.task-run."
_FLOW_RUN: Final = "prefect.flow-run."
_ID: Final = "prefect.resource.id"
_NAME: Final = "prefect.resource.name"
_ROLE: Final = "prefect.resource.role"
_FROM_PAYLOAD: Final[tuple[str, ...]] = ("tags", "expected_start_time", "start_time", "end_time", "total_run_time", "name")

Translation = tuple[Any, Any, dict[str, Any]]


def translate(event: dict[str, Any]) -> Translation | str:
    """(entity, occurred, data of a patch), or in a word why the event is of no interest.

    Raises `BadEventError` for an event that says it is about a run and lacks what identifies it.
    """
    name = event["event"]
    resource = event.get("resource")
    if not isinstance(resource, dict):
        raise BadEventError("missing field", "Prefect event without a resource")
    if name.startswith(_TASK_RUN):
        if resource.get("prefect.orchestration") != "client":
            return "a task run's event that its own client did not send"
        return "task_run", event.get("occurred"), _task_run(event, resource)
    if name.startswith(_FLOW_RUN):
        if not _state_of(event, resource):
            return "a flow run's event without a state"
        return "flow_run", event.get("occurred"), _flow_run(event, resource)
    return "an event of another kind"


def _task_run(event: dict[str, Any], resource: dict[str, Any]) -> dict[str, Any]:
    run = _object(_object(event.get("payload")).get("task_run"))
    data = {field: run[field] for field in _FROM_PAYLOAD if field in run}
    data.setdefault("name", resource.get(_NAME))
    state = _state_of(event, resource)
    if not state:
        raise BadEventError("missing field", "Prefect event: payload.validated_state has no type")
    details = _object(_object(_object(event.get("payload")).get("validated_state")).get("state_details"))
    child = details.get("child_flow_run_id")
    if child:
        data["child_flow_run_id"] = child
    return {
        **data,
        **state,
        "id": _id(resource, _TASK_RUN),
        "flow_run_id": _related(event, "flow-run", _FLOW_RUN),
    }


def _flow_run(event: dict[str, Any], resource: dict[str, Any]) -> dict[str, Any]:
    found = {
        "flow_id": _related(event, "flow", "prefect.flow."),
        "flow_name": _related_name(event, "flow"),
        "deployment_id": _related(event, "deployment", "prefect.deployment."),
        "deployment_name": _related_name(event, "deployment"),
        "work_queue_name": _related_name(event, "work-queue"),
        "parent_task_run_id": _related(event, "task-run", _TASK_RUN),
        "name": resource.get(_NAME),
    }
    known = {field: value for field, value in found.items() if value is not None}
    return {**known, **_state_of(event, resource), "id": _id(resource, _FLOW_RUN)}


def _state_of(event: dict[str, Any], resource: dict[str, Any]) -> dict[str, Any]:
    state = _object(_object(event.get("payload")).get("validated_state"))
    kind = state.get("type") or resource.get("prefect.state-type")
    if not kind:
        return {}
    return {
        "state_type": kind,
        "state_name": state.get("name") or resource.get("prefect.state-name") or str(kind).title(),
        "state_timestamp": state.get("timestamp") or event.get("occurred"),
    }


def _id(resource: dict[str, Any], prefix: str) -> str:
    text = resource.get(_ID)
    if not isinstance(text, str) or not text.startswith(prefix):
        raise BadEventError("missing field", f"Prefect event: {_ID} does not begin with {prefix}")
    return text.removeprefix(prefix)


def _related(event: dict[str, Any], role: str, prefix: str) -> str | None:
    found = _with_role(event, role)
    text = found.get(_ID)
    return text.removeprefix(prefix) if isinstance(text, str) else None


def _related_name(event: dict[str, Any], role: str) -> str | None:
    name = _with_role(event, role).get(_NAME)
    return name if isinstance(name, str) else None


def _with_role(event: dict[str, Any], role: str) -> dict[str, Any]:
    for resource in event.get("related") or ():
        if isinstance(resource, dict) and resource.get(_ROLE) == role:
            return resource
    return {}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}

"""What one event says, in either format: the fields it gives and the versions they have."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

from .times import event_time_us

HUNDRED_YEARS_US = 100 * 31_557_600 * 1_000_000
MAX_EVENT_BYTES = 1 << 20
MINUS_INFINITY = -(2**63)

STATE_TYPES = (
    "SCHEDULED",
    "PENDING",
    "RUNNING",
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "CRASHED",
    "PAUSED",
    "CANCELLING",
)
STATE_PARTS = ("state_type", "state_name", "state_timestamp")

# The fields beside the state itself. Those of STATE_FIELDS are as new as the state, the others as the event.
STATE_FIELDS = {
    "task_run": {"start_time": "time", "end_time": "time", "total_run_time": "seconds"},
    "flow_run": {"start_time": "time", "end_time": "time"},
    "flow": {},
    "deployment": {},
}
ATTRIBUTES = {
    "task_run": {"name": "text", "tags": "tags", "expected_start_time": "time", "child_flow_run_id": "flow_run"},
    "flow_run": {
        "name": "text",
        "tags": "tags",
        "expected_start_time": "time",
        "next_scheduled_start_time": "time",
        "flow_id": "flow",
        "flow_name": "text",
        "deployment_id": "deployment",
        "deployment_name": "text",
        "work_queue_name": "text",
        "flow_version": "text",
        "parent_task_run_id": "task_run",
        "parent_flow_run_id": "flow_run",
        "idempotency_key": "text",
        "created_by": "created_by",
    },
    "flow": {"name": "text", "tags": "tags"},
    "deployment": {"flow_id": "flow", "name": "text", "tags": "tags", "paused": "bool", "work_queue_name": "text"},
}
REQUIRED = {
    "task_run": ("name", *STATE_PARTS),
    "flow_run": ("flow_id",),
    "flow": ("name",),
    "deployment": ("flow_id", "name"),
}
# What null means where a column has a default.
DEFAULTS: dict[str, Any] = {"tags": [], "paused": False}

# Where Prefect's own events carry what.
NAME = "prefect.resource.name"
PREFECT_TASK_RUN = ("name", "tags", "expected_start_time", "start_time", "end_time", "total_run_time")
PREFECT_FLOW_RUN_IDS = {"flow_id": "flow", "deployment_id": "deployment", "parent_task_run_id": "task-run"}
PREFECT_FLOW_RUN_NAMES = {"flow_name": "flow", "deployment_name": "deployment", "work_queue_name": "work-queue"}


class BadEventError(Exception):
    """The event breaks the contract."""


class IgnoredEventError(Exception):
    """A well-formed event that says nothing about a run."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One event, understood. `fields` maps a field's name to (version, value); ids are hyphenated text."""

    entity: str
    action: str
    id: str
    flow_run_id: str | None
    fields: dict[str, tuple[tuple[int, int], Any]]


def parse(event: dict[str, Any] | bytes | str, latest_us: int | None) -> Fact:
    """Understand an event; `latest_us` bounds `occurred` and the state's timestamp.

    Raises BadEventError and IgnoredEventError.
    """
    if not isinstance(event, dict):
        event = _decode(event)
    if "entity" in event:
        return _own(event, latest_us)
    if isinstance(event.get("event"), str):
        return _own(_from_prefect(event), latest_us)
    raise BadEventError("neither our format nor Prefect's")


def id_text(entity: str, text: Any) -> str:
    """An id as hyphenated text: a UUID in any of its spellings, else uuid5 in the entity's own namespace."""
    if not isinstance(text, str):
        raise BadEventError("an id is a text")
    known = uuid_of(text)
    if known is not None:
        return known
    if not text or len(_utf8(text)) > 250:
        raise BadEventError("an id has 1 to 250 bytes")
    return str(uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_URL, f"runtally:{entity}"), text))


def uuid_of(text: str) -> str | None:
    """Hyphenated lower-case text of a UUID that is plain, hyphenated, in braces or a urn; None for other texts."""
    if len(text) == 38 and text[0] == "{" and text[-1] == "}":
        text = text[1:-1]
    elif len(text) == 45 and text.lower().startswith("urn:uuid:"):
        text = text[9:]
    elif len(text) == 32:
        text = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
    hyphens = [position for position, char in enumerate(text) if char == "-"]
    digits = text.replace("-", "").lower()
    if hyphens != [8, 13, 18, 23] or len(digits) != 32 or set(digits) - set("0123456789abcdef"):
        return None
    return text.lower()


def _decode(raw: bytes | str) -> dict[str, Any]:
    raw = raw if isinstance(raw, bytes) else _utf8(raw)
    if len(raw) > MAX_EVENT_BYTES:
        raise BadEventError("over 1 MiB")
    try:
        event = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise BadEventError("not JSON") from None
    if not isinstance(event, dict):
        raise BadEventError("not an object")
    if b"\\ud" in raw.lower():
        _utf8(json.dumps(event, ensure_ascii=False))
    return event


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _own(event: dict[str, Any], latest_us: int | None) -> Fact:
    entity, action, data = event["entity"], event.get("action"), event.get("data")
    if not isinstance(entity, str) or entity not in ATTRIBUTES:
        raise BadEventError("unknown entity")
    if action not in ("upsert", "patch", "delete"):
        raise BadEventError("unknown action")
    if not isinstance(data, dict):
        raise BadEventError("no data")
    occurred = _value("time", event.get("occurred"))
    _not_late(occurred, latest_us)
    own_id = id_text(entity, data.get("id"))
    flow_run_id = None
    if entity == "task_run":
        if "flow_run_id" not in data:
            raise BadEventError("flow_run_id may be null but not absent")
        if data["flow_run_id"] is not None:
            flow_run_id = id_text("flow_run", data["flow_run_id"])
    if action == "delete":
        return Fact(entity, action, own_id, flow_run_id, {})
    if action == "upsert":
        data = _complete(entity, data)
    fields = _state(entity, action, data, occurred, latest_us)
    for name, kind in ATTRIBUTES[entity].items():
        if name in data:
            value = DEFAULTS.get(name) if data[name] is None else _value(kind, data[name])
            fields[name] = ((occurred, 0), value)
    return Fact(entity, action, own_id, flow_run_id, fields)


def _complete(entity: str, data: dict[str, Any]) -> dict[str, Any]:
    """A full snapshot with every field spelled out: what is absent is null."""
    for name in REQUIRED[entity]:
        if data.get(name) is None:
            raise BadEventError(f"missing {name}")
    given = {name: value for name, value in data.items() if value is not None}
    return {**dict.fromkeys([*STATE_FIELDS[entity], *ATTRIBUTES[entity]]), **given}


def _state(
    entity: str, action: str, data: dict[str, Any], occurred: int, latest_us: int | None
) -> dict[str, tuple[tuple[int, int], Any]]:
    """The state and what goes with it; they are given together or not at all."""
    if not STATE_FIELDS[entity]:
        return {}
    speaks = any(name in data for name in STATE_PARTS)
    if not speaks:
        if action == "upsert":
            if any(data[name] is not None for name in STATE_FIELDS[entity]):
                raise BadEventError("times of a state without the state")
            return dict.fromkeys(("state", *STATE_FIELDS[entity]), ((MINUS_INFINITY, occurred), None))
        if any(name in data for name in STATE_FIELDS[entity]):
            raise BadEventError("times of a state without the state")
        return {}
    state_type, state_name, timestamp = (data.get(name) for name in STATE_PARTS)
    if state_type not in STATE_TYPES:
        raise BadEventError("not a state type")
    timestamp = _value("time", timestamp)
    _not_late(timestamp, latest_us)
    version = (timestamp, occurred)
    fields = {"state": (version, [state_type, _value("text", state_name), timestamp])}
    for name, kind in STATE_FIELDS[entity].items():
        if name in data:
            fields[name] = (version, _nullable(kind, data[name]))
    return fields


def _not_late(instant: int, latest_us: int | None) -> None:
    if latest_us is not None and instant > latest_us:
        raise BadEventError("a time further ahead of its record than a clock may be wrong")


def _nullable(kind: str, value: Any) -> Any:
    return None if value is None else _value(kind, value)


def _value(kind: str, value: Any) -> Any:
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "text" and isinstance(value, str):
        _utf8(value)
        return value
    if kind == "time" and isinstance(value, str):
        try:
            return event_time_us(value)
        except ValueError as error:
            raise BadEventError(f"impossible time: {error}") from None
    if kind == "seconds" and isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) * 1_000_000 <= HUNDRED_YEARS_US:
            raise BadEventError("total_run_time over 100 years")
        return round(value * 1e6)
    if kind == "tags" and isinstance(value, list):
        return [_value("text", tag) for tag in value]
    if kind == "created_by" and isinstance(value, dict):
        creator, creator_type = (_nullable("text", value.get(part)) for part in ("id", "type"))
        return [creator and (uuid_of(creator) or creator), creator_type]
    if kind in ATTRIBUTES:
        return id_text(kind, value)
    raise BadEventError(f"wrong type: {value!r} is no {kind}")


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadEventError("a lone surrogate") from None


def _from_prefect(event: dict[str, Any]) -> dict[str, Any]:
    """Prefect's own event as a patch in our format."""
    try:
        resource, payload = event["resource"], event.get("payload") or {}
        first: dict[Any, dict[str, Any]] = {}
        for related in event.get("related") or []:
            first.setdefault(related.get("prefect.resource.role"), related)
        state = payload.get("validated_state")
        if event["event"].startswith("prefect.task-run.") and resource.get("prefect.orchestration") == "client":
            told = payload.get("task_run") or {}
            data = {key: told[key] for key in PREFECT_TASK_RUN if key in told}
            data["flow_run_id"] = _id_in(first["flow-run"], "flow-run") if "flow-run" in first else None
            kind = "task-run"
        elif event["event"].startswith("prefect.flow-run.") and state:
            data = {key: _id_in(first[role], role) for key, role in PREFECT_FLOW_RUN_IDS.items() if role in first}
            names = {key: first.get(role, {}).get(NAME) for key, role in PREFECT_FLOW_RUN_NAMES.items()}
            names["name"] = resource.get(NAME)
            data |= {key: name for key, name in names.items() if name is not None}
            kind = "flow-run"
        else:
            raise IgnoredEventError(event["event"])
        data["id"] = _id_in(resource, kind)
        data["state_type"] = state["type"]
        data["state_name"] = state.get("name") or state["type"].title()
        data["state_timestamp"] = state.get("timestamp") or event["occurred"]
        return {"entity": kind.replace("-", "_"), "action": "patch", "occurred": event["occurred"], "data": data}
    except (KeyError, TypeError, AttributeError) as error:
        raise BadEventError(f"not as Prefect sends it: {error!r}") from None


def _id_in(resource: dict[str, Any], kind: str) -> str:
    found = resource["prefect.resource.id"]
    if not found.startswith(f"prefect.{kind}."):
        raise BadEventError(f"not the id of a {kind}")
    return found.removeprefix(f"prefect.{kind}.")

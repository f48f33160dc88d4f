"""From the bytes of a message to a `Change`: validation of the event contract (docs/events.md).

The common case, a full snapshot of a task run, is decoded straight into its struct; everything else takes a
second look that also finds the words for what is wrong.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from ..core.changes import DEPLOYMENT, ENTITIES, TASK_RUN, Change, EntityName
from ..errors import BadEventError
from . import prefect
from .ids import identity

MAX_EVENT_BYTES: Final = 1 << 20
LAST_TIME_US: Final = 7_258_118_400_000_000
"""1 January 2200; times before 1970 and from here on cannot be meant."""
_MAX_TOTAL_US: Final = 100 * 31_557_600 * 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Time = Annotated[datetime, Meta(tz=True)]
StateType = Literal[
    "SCHEDULED", "PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "CRASHED", "PAUSED", "CANCELLING"
]
Tags = tuple[str, ...]


class Ignored(NamedTuple):
    """An event that is understood and of no interest."""

    reason: str


class CreatedBy(Struct, gc=False):
    """Who made a flow run."""

    id: str | None = None
    type: str | None = None


class TaskRunSnapshot(Struct, gc=False):
    """`data` of a task run's upsert."""

    id: str
    flow_run_id: str | None
    name: str
    state_type: StateType
    state_name: str
    state_timestamp: Time
    tags: Tags | None = ()
    expected_start_time: Time | None = None
    start_time: Time | None = None
    end_time: Time | None = None
    total_run_time: float | None = None
    child_flow_run_id: str | None = None


class TaskRunPatch(Struct, gc=False):
    """`data` of a task run's patch."""

    id: str
    flow_run_id: str | None
    name: str | UnsetType | None = UNSET
    state_type: StateType | UnsetType = UNSET
    state_name: str | UnsetType = UNSET
    state_timestamp: Time | UnsetType = UNSET
    tags: Tags | UnsetType | None = UNSET
    expected_start_time: Time | UnsetType | None = UNSET
    start_time: Time | UnsetType | None = UNSET
    end_time: Time | UnsetType | None = UNSET
    total_run_time: float | UnsetType | None = UNSET
    child_flow_run_id: str | UnsetType | None = UNSET


class FlowRunPatch(Struct, gc=False):
    """`data` of a flow run's patch."""

    id: str
    flow_id: str | UnsetType | None = UNSET
    flow_name: str | UnsetType | None = UNSET
    deployment_id: str | UnsetType | None = UNSET
    deployment_name: str | UnsetType | None = UNSET
    name: str | UnsetType | None = UNSET
    tags: Tags | UnsetType | None = UNSET
    state_type: StateType | UnsetType | None = UNSET
    state_name: str | UnsetType | None = UNSET
    state_timestamp: Time | UnsetType | None = UNSET
    start_time: Time | UnsetType | None = UNSET
    end_time: Time | UnsetType | None = UNSET
    expected_start_time: Time | UnsetType | None = UNSET
    next_scheduled_start_time: Time | UnsetType | None = UNSET
    work_queue_name: str | UnsetType | None = UNSET
    flow_version: str | UnsetType | None = UNSET
    parent_task_run_id: str | UnsetType | None = UNSET
    parent_flow_run_id: str | UnsetType | None = UNSET
    idempotency_key: str | UnsetType | None = UNSET
    created_by: CreatedBy | UnsetType | None = UNSET


class FlowPatch(Struct, gc=False):
    """`data` of a flow's patch."""

    id: str
    name: str | UnsetType | None = UNSET
    tags: Tags | UnsetType | None = UNSET


class DeploymentPatch(Struct, gc=False):
    """`data` of a deployment's patch."""

    id: str
    flow_id: str | UnsetType | None = UNSET
    name: str | UnsetType | None = UNSET
    tags: Tags | UnsetType | None = UNSET
    paused: bool | UnsetType | None = UNSET
    work_queue_name: str | UnsetType | None = UNSET


class TaskRunKey(Struct, gc=False):
    """`data` of a task run's delete."""

    id: str
    flow_run_id: str | None


class Key(Struct, gc=False):
    """`data` of every other delete."""

    id: str


class _Snapshot(Struct, gc=False, tag_field="entity", tag="task_run"):
    action: Literal["upsert"]
    occurred: Time
    data: TaskRunSnapshot


class _Envelope(Struct, gc=False):
    entity: EntityName
    action: Literal["upsert", "patch", "delete"]
    occurred: Time
    data: msgspec.Raw


_REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "task_run": ("name", "state_type", "state_name", "state_timestamp"),
    "flow_run": ("flow_id",),
    "flow": ("name",),
    "deployment": ("flow_id", "name"),
}
_PATCHES: Final[dict[str, Any]] = {
    "task_run": msgspec.json.Decoder(TaskRunPatch),
    "flow_run": msgspec.json.Decoder(FlowRunPatch),
    "flow": msgspec.json.Decoder(FlowPatch),
    "deployment": msgspec.json.Decoder(DeploymentPatch),
}
_ID_OF: Final[dict[str, EntityName]] = {
    "flow_id": "flow",
    "deployment_id": "deployment",
    "parent_task_run_id": "task_run",
    "parent_flow_run_id": "flow_run",
    "child_flow_run_id": "flow_run",
}
_snapshot = msgspec.json.Decoder(_Snapshot).decode
_envelope = msgspec.json.Decoder(_Envelope).decode
_task_run_key = msgspec.json.Decoder(TaskRunKey).decode
_key = msgspec.json.Decoder(Key).decode
_anything = msgspec.json.Decoder().decode


def parse(
    value: bytes | None, *, topic: Literal["runs", "catalog"], record_us: int, max_clock_skew_us: int
) -> Change | Ignored:
    """One message as a change. `record_us` is the Kafka record's timestamp, against which clocks are judged.

    Accepts the events of docs/events.md and, on the topic of runs, Prefect's own. Raises `BadEventError` with a
    reason to group by and a detail that names the field.
    """
    if value is None:
        raise BadEventError("no value", "a message without a value says nothing; send a delete instead")
    if len(value) > MAX_EVENT_BYTES:
        raise BadEventError("over 1 MiB", f"the message has {len(value)} bytes")
    try:
        event = _snapshot(value)
    except msgspec.MsgspecError:
        change = _look_again(value)
        if isinstance(change, Ignored):
            return change
    else:
        change = _task_run(event.occurred, event.data)
    if ENTITIES[change.entity].topic != topic:
        raise BadEventError("wrong topic", f"a {change.entity} does not belong on the topic of {topic}")
    latest = record_us + max_clock_skew_us
    if change.occurred > latest:
        raise BadEventError("impossible time", "occurred lies further ahead of the record than clocks may differ")
    if change.given & 1 and topic == "runs":
        state = change.values[0]
        if state is not None and state[2] > latest:
            raise BadEventError(
                "impossible time", "state_timestamp lies further ahead of the record than clocks may differ"
            )
    return change


def micros(time: datetime, path: str) -> int:
    """A time as µs since the epoch; raises outside 1970…2200."""
    delta = time - _EPOCH
    us = (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
    if 0 <= us < LAST_TIME_US:
        return us
    raise BadEventError("impossible time", f"{path} lies outside 1970…2200")


def duration(seconds: float, path: str) -> int:
    """Seconds as µs; raises past 100 years either way."""
    us = round(seconds * 1_000_000)
    if -_MAX_TOTAL_US <= us <= _MAX_TOTAL_US:
        return us
    raise BadEventError("impossible time", f"{path} is longer than 100 years")


def _task_run(occurred: datetime, data: TaskRunSnapshot) -> Change:
    start, end, expected = data.start_time, data.end_time, data.expected_start_time
    total, child, flow_run = data.total_run_time, data.child_flow_run_id, data.flow_run_id
    return Change(
        "task_run",
        "upsert",
        identity("task_run", data.id),
        None if flow_run is None else identity("flow_run", flow_run),
        micros(occurred, "occurred"),
        TASK_RUN.all_given,
        (
            (data.state_type, data.state_name, micros(data.state_timestamp, "data.state_timestamp")),
            None if start is None else micros(start, "data.start_time"),
            None if end is None else micros(end, "data.end_time"),
            None if total is None else duration(total, "data.total_run_time"),
            data.name,
            data.tags or (),
            None if expected is None else micros(expected, "data.expected_start_time"),
            None if child is None else identity("flow_run", child),
        ),
    )


def _look_again(value: bytes) -> Change | Ignored:
    try:
        anything = _anything(value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadEventError("not JSON", str(error)) from None
    if not isinstance(anything, dict):
        raise BadEventError("wrong type", "an event is a JSON object")
    if "entity" not in anything and isinstance(anything.get("event"), str):
        return prefect_change(anything)
    try:
        event = _envelope(value)
        if event.action == "delete":
            return _delete(event)
        return _fields(event.entity, event.action, event.occurred, _PATCHES[event.entity].decode(event.data))
    except msgspec.ValidationError as error:
        raise _explained(error, anything) from None


def prefect_change(event: dict[str, Any]) -> Change | Ignored:
    """One of Prefect's own events, as a patch of what it knows."""
    found = prefect.translate(event)
    if isinstance(found, str):
        return Ignored(found)
    entity, occurred, data = found
    kind: Any = TaskRunPatch if entity == "task_run" else FlowRunPatch
    try:
        moment = msgspec.convert(occurred, Time)
        return _fields(entity, "patch", moment, msgspec.convert(data, kind))
    except msgspec.ValidationError as error:
        raise BadEventError("wrong type", f"Prefect event: {error}") from None


def _delete(event: _Envelope) -> Change:
    flow_run = None
    if event.entity == "task_run":
        owned = _task_run_key(event.data)
        name = owned.id
        flow_run = None if owned.flow_run_id is None else identity("flow_run", owned.flow_run_id)
    else:
        name = _key(event.data).id
    entity = ENTITIES[event.entity]
    occurred = micros(event.occurred, "occurred")
    return Change(
        entity.name, "delete", identity(entity.name, name), flow_run, occurred, 0, (None,) * len(entity.fields)
    )


def _fields(name: EntityName, action: Literal["upsert", "patch"], occurred: datetime, data: Any) -> Change:
    """The general form: whatever of the entity's fields the event gives."""
    entity = ENTITIES[name]
    if action == "upsert":
        for required in _REQUIRED[name]:
            if getattr(data, required) in (UNSET, None):
                raise BadEventError("missing field", f"data.{required} is required in an upsert of a {name}")
    given = 0
    values: list[Any] = []
    for number, field in enumerate(entity.fields):
        raw = _state(data) if field == "state" else getattr(data, field)
        if raw is not UNSET or action == "upsert":
            given |= 1 << number
        values.append(_value(field, None if raw is UNSET else raw))
    if name == "deployment" and given >> DEPLOYMENT.fields.index("paused") & 1:
        values[DEPLOYMENT.fields.index("paused")] = bool(values[DEPLOYMENT.fields.index("paused")])
    states = len(entity.state_fields)
    if action == "patch":
        if given & ((1 << states) - 1) and not given & 1:
            raise BadEventError("missing field", _WHOLE_STATE)
    elif states and values[0] is None and any(value is not None for value in values[1:states]):
        raise BadEventError("missing field", _WHOLE_STATE)
    flow_run = getattr(data, "flow_run_id", None)
    return Change(
        name,
        action,
        identity(name, data.id),
        None if flow_run is None else identity("flow_run", flow_run),
        micros(occurred, "occurred"),
        given,
        tuple(values),
    )


_WHOLE_STATE: Final = (
    "an event that gives a start, end or total run time, or part of a state, has to give state_type, state_name and "
    "state_timestamp"
)


def _state(data: Any) -> Any:
    parts = (data.state_type, data.state_name, data.state_timestamp)
    known = [part not in (UNSET, None) for part in parts]
    if all(known):
        return (parts[0], parts[1], micros(parts[2], "data.state_timestamp"))
    if any(known) or (isinstance(data, TaskRunPatch) and any(part is not UNSET for part in parts)):
        raise BadEventError("missing field", _WHOLE_STATE)
    return UNSET


def _value(field: str, raw: Any) -> Any:
    if raw is None:
        return () if field == "tags" else None
    if isinstance(raw, datetime):
        return micros(raw, f"data.{field}")
    if field == "total_run_time":
        return duration(raw, "data.total_run_time")
    if field in _ID_OF:
        return identity(_ID_OF[field], raw)
    if field == "created_by":
        return (raw.id, raw.type)
    return raw


def _explained(error: msgspec.ValidationError, event: dict[str, Any]) -> BadEventError:
    text = str(error)
    if "entity" in event and event["entity"] not in ENTITIES:
        return BadEventError("unknown entity", f"{event['entity']!r}; known are {', '.join(ENTITIES)}")
    if "missing required field" in text:
        return BadEventError("missing field", text)
    return BadEventError("wrong type" if "Expected" in text else "wrong value", text)

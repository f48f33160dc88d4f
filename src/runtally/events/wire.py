"""From the bytes of a message to a `Change`: the event contract (docs/events.md), enforced.

There are two ways. The common event, a full snapshot of a task run, is decoded straight into its struct. Whatever
that cannot take goes the general way, which walks the contract's table and finds the words for what is wrong. Both
give the same change for the same bytes.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple, cast

import msgspec
from msgspec import UNSET, Struct

from ..core.changes import ENTITIES, TASK_RUN, Action, Change, EntityName
from ..errors import BadEventError
from . import prefect
from .contract import CONTRACT, KINDS, NAMES, REQUIRED, StateType, bad, struct_of
from .ids import flow_run_identity, identity, uuid_text
from .times import EPOCH, FINER, LAST_US, MAX_DURATION_US, MICROSECOND, Time, duration_us, micros

MAX_EVENT_BYTES: Final = 1 << 20

Topic = Literal["runs", "catalog"]


class Ignored(NamedTuple):
    """An event that is understood and of no interest."""

    reason: str


class _TaskRun(Struct, gc=False):
    id: str
    flow_run_id: str | None
    name: str
    state_type: StateType
    state_name: str
    state_timestamp: Time
    tags: tuple[str, ...] | None = ()
    expected_start_time: Time | None = None
    start_time: Time | None = None
    end_time: Time | None = None
    total_run_time: float | None = None
    child_flow_run_id: str | None = None


class _Snapshot(Struct, gc=False, tag_field="entity", tag="task_run"):
    action: Literal["upsert"]
    occurred: Time
    data: _TaskRun


class _Envelope(Struct, gc=False):
    entity: Any = UNSET
    action: Any = UNSET
    occurred: Any = UNSET
    data: msgspec.Raw = msgspec.Raw()
    event: Any = UNSET


_NOT_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_ACTIONS: Final = ("upsert", "patch", "delete")
_BACKSLASH: Final = ord("\\")
_STATE_PARTS: Final = ("state_type", "state_name", "state_timestamp")
_WHOLE_STATE: Final = (
    "an event that gives a start, end or total run time, or part of a state, has to give state_type, state_name and "
    "state_timestamp"
)
_AHEAD: Final = "lies further ahead of the record than clocks may differ"

# Half the cost of calling `Change`, and this is done for every event.
_new_change = tuple.__new__
_snapshot = msgspec.json.Decoder(_Snapshot).decode
_envelope = msgspec.json.Decoder(_Envelope).decode
_anything = msgspec.json.Decoder().decode
_STRUCTS: Final = {entity: struct_of(entity) for entity in CONTRACT}
_DATA: Final = {entity: msgspec.json.Decoder(_STRUCTS[entity]).decode for entity in CONTRACT}
_KEYS: Final = {entity: msgspec.json.Decoder(struct_of(entity, keys_only=True)).decode for entity in CONTRACT}


def parse(value: bytes | None, *, topic: Topic, record_us: int, max_clock_skew_us: int) -> Change | Ignored:
    """One message as a change. `record_us` is the Kafka record's timestamp, against which clocks are judged.

    Accepts the events of docs/events.md and, on the topic of runs, Prefect's own. Raises `BadEventError` with a
    reason of `contract.REASONS` and a detail that names the field.
    """
    change = _quickly(value)
    if change is None:
        read_change = read(value)
        if isinstance(read_change, Ignored):
            return read_change
        change = read_change
    if ENTITIES[change.entity].topic != topic:
        raise bad("wrong topic", f"a {change.entity} does not belong on the topic of {topic}")
    latest_us = record_us + max_clock_skew_us
    if change.occurred > latest_us:
        raise bad("impossible time", f"occurred {_AHEAD}")
    if change.given & 1 and topic == "runs":
        state = change.values[0]
        if state is not None and state[2] > latest_us:
            raise bad("impossible time", f"state_timestamp {_AHEAD}")
    return change


def read(value: bytes | None) -> Change | Ignored:
    """One message, whatever it is, judged by itself: without its topic and its record's time. Raises like `parse`."""
    if value is None:
        raise bad("no value", "a message without a value says nothing; send a delete instead")
    if len(value) > MAX_EVENT_BYTES:
        raise bad("over 1 MiB", f"the message has {len(value)} bytes")
    try:
        event = _envelope(value)
    except msgspec.ValidationError:
        raise bad("wrong type", "an event is a JSON object") from None
    except _NOT_JSON as error:
        raise bad("not JSON", str(error)) from None
    if event.entity is UNSET and isinstance(event.event, str):
        return _from_prefect(value)
    return _own(event)


def _quickly(value: bytes | None) -> Change | None:
    """The change of a clean snapshot of a task run; None for everything that needs a closer look."""
    if value is None or len(value) > MAX_EVENT_BYTES or FINER.search(value):
        return None
    # Escaped digits or dots could hide what FINER looks for.
    if _BACKSLASH in value and (b"\\u003" in value or b"\\u002" in value):
        return None
    try:
        event = _snapshot(value)
    except _NOT_JSON:
        return None
    data = event.data
    occurred_us = (event.occurred - EPOCH) // MICROSECOND
    state_us = occurred_us
    if data.state_timestamp != event.occurred:
        state_us = (data.state_timestamp - EPOCH) // MICROSECOND
        if not 0 <= state_us < LAST_US:
            return None
    start_us = end_us = expected_us = total_us = None
    if data.start_time is not None:
        start_us = (data.start_time - EPOCH) // MICROSECOND
        if not 0 <= start_us < LAST_US:
            return None
    if data.end_time is not None:
        end_us = (data.end_time - EPOCH) // MICROSECOND
        if not 0 <= end_us < LAST_US:
            return None
    if data.expected_start_time is not None:
        expected_us = (data.expected_start_time - EPOCH) // MICROSECOND
        if not 0 <= expected_us < LAST_US:
            return None
    if data.total_run_time is not None:
        total = data.total_run_time * 1_000_000
        if not -MAX_DURATION_US <= total <= MAX_DURATION_US:
            return None
        total_us = round(total)
    if not 0 <= occurred_us < LAST_US:
        return None
    flow_run, child = data.flow_run_id, data.child_flow_run_id
    return _new_change(
        Change,
        (
            "task_run",
            "upsert",
            identity("task_run", data.id),
            None if flow_run is None else flow_run_identity(flow_run),
            occurred_us,
            TASK_RUN.all_given,
            (
                (data.state_type, data.state_name, state_us),
                start_us,
                end_us,
                total_us,
                data.name,
                data.tags or (),
                expected_us,
                None if child is None else flow_run_identity(child),
            ),
        ),
    )


def _own(event: _Envelope) -> Change:
    entity = _one_of(event.entity, tuple(CONTRACT), "entity")
    action = _one_of(event.action, _ACTIONS, "action")
    if event.occurred in (UNSET, None):
        raise bad("missing field", "occurred has to be given")
    if not isinstance(event.occurred, str):
        raise bad("wrong type", "occurred: expected a text")
    occurred_us = micros(event.occurred, "occurred")
    if not bytes(event.data):
        raise bad("missing field", "data has to be given")
    decode = (_KEYS if action == "delete" else _DATA)[cast(EntityName, entity)]
    try:
        data = decode(event.data)
    except msgspec.ValidationError as error:
        raise _explained(error, "data") from None
    except _NOT_JSON as error:
        raise bad("not JSON", str(error)) from None
    return _change(cast(EntityName, entity), cast(Action, action), occurred_us, data, "data.")


def _from_prefect(value: bytes) -> Change | Ignored:
    try:
        found = prefect.translate(_anything(value))
    except _NOT_JSON as error:
        raise bad("not JSON", str(error)) from None
    if isinstance(found, str):
        return Ignored(found)
    try:
        data = msgspec.convert(found.data, _STRUCTS[found.entity])
    except msgspec.ValidationError as error:
        raise _explained(error, "Prefect event") from None
    return _change(found.entity, "patch", micros(found.occurred, "occurred"), data, "Prefect event: ")


def _change(name: EntityName, action: Action, occurred_us: int, data: Any, prefix: str) -> Change:
    """The general form: whatever of the entity's fields the event gives."""
    entity = ENTITIES[name]
    if data.id in (UNSET, None):
        raise bad("missing field", f"{prefix}id has to be given")
    flow_run = None
    if name == "task_run":
        if data.flow_run_id is UNSET:
            raise bad("missing field", f"{prefix}flow_run_id has to be given; null if there is no flow run")
        flow_run = None if data.flow_run_id is None else identity("flow_run", data.flow_run_id)
    own = identity(name, data.id)
    if action == "delete":
        return Change(name, action, own, flow_run, occurred_us, 0, (None,) * len(entity.fields))
    if action == "upsert":
        for required in REQUIRED[name]:
            if getattr(data, required) in (UNSET, None):
                raise bad("missing field", f"{prefix}{required} has to be given in an upsert of a {name}")
    given, values = 0, []
    for number, field in enumerate(entity.fields):
        raw = _state(data, action, prefix) if field == "state" else getattr(data, field)
        if raw is UNSET and action == "upsert":
            raw = None
        if raw is not UNSET:
            given |= 1 << number
        values.append(None if raw is UNSET else _value(name, field, raw, prefix))
    if (
        entity.state_fields
        and values[:1] == [None]
        and any(_speaks(getattr(data, field), action) for field in entity.state_fields[1:])
    ):
        raise bad("missing field", f"{prefix}state_type: {_WHOLE_STATE}")
    return Change(name, action, own, flow_run, occurred_us, given, tuple(values))


def _state(data: Any, action: Action, prefix: str) -> Any:
    parts = [getattr(data, part) for part in _STATE_PARTS]
    if not any(_speaks(part, action) for part in parts):
        return UNSET
    for name, part in zip(_STATE_PARTS, parts, strict=True):
        if part in (UNSET, None):
            raise bad("missing field", f"{prefix}{name}: {_WHOLE_STATE}")
    return (parts[0], parts[1], micros(parts[2], f"{prefix}state_timestamp"))


def _speaks(raw: Any, action: Action) -> bool:
    # In a snapshot null says no more than absence does; in a patch it says null.
    return raw is not UNSET and (action == "patch" or raw is not None)


def _value(entity: EntityName, field: str, raw: Any, prefix: str) -> Any:
    kind = KINDS[entity].get(field)
    if raw is None:
        return _NULLS.get(kind)
    if kind == "time":
        return micros(raw, f"{prefix}{field}")
    if kind == "seconds":
        return duration_us(raw, f"{prefix}{field}")
    if kind == "id":
        return identity(cast(EntityName, NAMES[entity][field]), raw)
    if kind == "creator":
        return (None if raw.id is None else uuid_text(raw.id), raw.type)
    return raw


_NULLS: Final[dict[str | None, Any]] = {"tags": (), "flag": False}


def _one_of(value: Any, known: tuple[str, ...], name: str) -> str:
    if value in (UNSET, None):
        raise bad("missing field", f"{name} has to be given")
    if not isinstance(value, str):
        raise bad("wrong type", f"{name}: expected a text")
    if value not in known:
        raise bad(f"unknown {name}", f"{value[:100]!r}; known are {', '.join(known)}")
    return value


def _explained(error: msgspec.ValidationError, root: str) -> BadEventError:
    # msgspec says "Expected `str`, got `int` - at `$.tags[...]`".
    words, _, path = str(error).partition(" - at `$")
    reason = "wrong type" if words.startswith("Expected") else "wrong value"
    if words == "Number out of range":
        reason = "impossible time"
    return bad(reason, f"{root}{path.rstrip('`')}: {words}")

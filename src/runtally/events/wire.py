"""From the bytes of a message to a `Change`: the event contract (docs/events.md), enforced.

One event at a time, walking the contract's table, with the words for what is wrong. `snapshots` reads the common events
many at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final, Literal, NamedTuple, cast

import msgspec
from msgspec import UNSET, Struct

from ..core.changes import ENTITIES, Action, Change, EntityName
from ..errors import BadEventError
from . import prefect
from .contract import CONTRACT, REQUIRED, Field, Kind, bad, struct_of
from .ids import identity, known_identity, uuid_text
from .times import duration_us, micros

MAX_EVENT_BYTES: Final = 1 << 20

Topic = Literal["runs", "catalog"]


class Ignored(NamedTuple):
    """An event that is understood and of no interest."""

    reason: str


class _Envelope(Struct, gc=False):
    entity: Any = UNSET
    action: Any = UNSET
    occurred: Any = UNSET
    data: msgspec.Raw = msgspec.Raw()
    event: Any = UNSET


NOT_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for what is no JSON, or not of the expected types."""
_ACTIONS: Final = ("upsert", "patch", "delete")
_STATE_PARTS: Final = ("state_type", "state_name", "state_timestamp")
_WHOLE_STATE: Final = (
    "an event that gives a start, end or total run time, or part of a state, has to give state_type, state_name and "
    "state_timestamp"
)
_envelope = msgspec.json.Decoder(_Envelope).decode
_anything = msgspec.json.Decoder().decode
STRUCTS: Final = {entity: struct_of(entity) for entity in CONTRACT}
_DATA: Final = {entity: msgspec.json.Decoder(STRUCTS[entity]).decode for entity in CONTRACT}
_KEYS: Final = {entity: msgspec.json.Decoder(struct_of(entity, keys_only=True)).decode for entity in CONTRACT}


def parse(value: bytes | None, *, topic: Topic, record_us: int, max_clock_skew_us: int) -> Change | Ignored:
    """One message as a change. `record_us` is the Kafka record's timestamp, against which clocks are judged.

    Accepts the events of docs/events.md and, on the topic of runs, Prefect's own. Raises `BadEventError` with a
    reason of `contract.REASONS` and a detail that names the field.
    """
    change = read(value)
    if isinstance(change, Ignored):
        return change
    if ENTITIES[change.entity].topic != topic:
        raise bad("wrong topic", f"a {change.entity} does not belong on the topic of {topic}")
    return _timely(change, record_us + max_clock_skew_us)


def parse_any(value: bytes | None, latest_us: int) -> Change | Ignored:
    """The same for an event that has no record yet: on whatever topic it belongs, no clock past `latest_us`."""
    change = read(value)
    return change if isinstance(change, Ignored) else _timely(change, latest_us)


def read(value: bytes | None) -> Change | Ignored:
    """One message, whatever it is, judged by itself: without its topic and its record's time. Raises like `parse`."""
    if value is None:
        raise bad("no value", "a message without a value says nothing; send a delete instead")
    if len(value) > MAX_EVENT_BYTES:
        raise bad("over 1 MiB", f"the message has {len(value)} bytes")
    try:
        value.decode()
        event = _envelope(value)
    except msgspec.ValidationError:
        raise bad("wrong type", "an event is a JSON object") from None
    except NOT_JSON as error:
        raise bad("not JSON", str(error)) from None
    if event.entity is UNSET and isinstance(event.event, str):
        return _from_prefect(value)
    return _own(event)


def _timely(change: Change, latest_us: int) -> Change:
    if change.occurred > latest_us:
        raise _ahead("occurred")
    state = change.values[0] if ENTITIES[change.entity].state_fields else None
    if state is not None and state[2] > latest_us:
        raise _ahead("data.state_timestamp")
    return change


def of_snapshot(entity: EntityName, occurred: str, data: Any, latest_us: int) -> Change:
    """An upsert that somebody else has decoded, `data` as one of `STRUCTS`. Raises like `parse`."""
    return _timely(_change(entity, "upsert", micros(occurred, "occurred"), data, "data."), latest_us)


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
    except NOT_JSON as error:
        raise bad("not JSON", str(error)) from None
    return _change(cast(EntityName, entity), cast(Action, action), occurred_us, data, "data.")


def _from_prefect(value: bytes) -> Change | Ignored:
    try:
        found = prefect.translate(_anything(value))
    except NOT_JSON as error:
        raise bad("not JSON", str(error)) from None
    if isinstance(found, str):
        return Ignored(found)
    try:
        data = msgspec.convert(found.data, STRUCTS[found.entity])
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
        flow_run = None if data.flow_run_id is None else known_identity("flow_run", data.flow_run_id)
    own = identity(name, data.id)
    if action == "delete":
        return Change(name, action, own, flow_run, occurred_us, 0, (None,) * len(entity.fields))
    snapshot = action == "upsert"
    if snapshot:
        for required in REQUIRED[name]:
            if getattr(data, required) in (UNSET, None):
                raise bad("missing field", f"{prefix}{required} has to be given in an upsert of a {name}")
    given, bit = 0, 1
    values: list[Any] = []
    if entity.state_fields:
        state = _state(data, snapshot, prefix)
        if state is None and any(_speaks(getattr(data, field), snapshot) for field in entity.state_fields[1:]):
            raise bad("missing field", f"{prefix}state_type: {_WHOLE_STATE}")
        values.append(state)
        given, bit = int(snapshot or state is not None), 2
    plan = _PLANS[name]
    for (field, null, converted), raw in zip(plan.fields, plan.of(data), strict=True):
        if raw is UNSET and not snapshot:
            values.append(None)
        else:
            given |= bit
            if raw is None or raw is UNSET:
                values.append(null)
            else:
                values.append(raw if converted is None else converted(raw, prefix + field))
        bit <<= 1
    return Change(name, action, own, flow_run, occurred_us, given, tuple(values))


def _state(data: Any, snapshot: bool, prefix: str) -> tuple[str, str, int] | None:
    parts = (data.state_type, data.state_name, data.state_timestamp)
    if None in parts or UNSET in parts:
        if not any(_speaks(part, snapshot) for part in parts):
            return None
        name = next(name for name, part in zip(_STATE_PARTS, parts, strict=True) if part is UNSET or part is None)
        raise bad("missing field", f"{prefix}{name}: {_WHOLE_STATE}")
    return (parts[0], parts[1], micros(parts[2], f"{prefix}state_timestamp"))


def _speaks(raw: Any, snapshot: bool) -> bool:
    # In a snapshot null says no more than absence does; in a patch it says null.
    return raw is not UNSET and not (snapshot and raw is None)


_Converted = Callable[[Any, str], Any]
"""What makes the value of a field from what an event gives, and the field's path for what is wrong with it."""
_CONVERTED: Final[dict[Kind, _Converted]] = {
    "time": micros,
    "seconds": duration_us,
    "creator": lambda raw, _: (None if raw.id is None else uuid_text(raw.id), raw.type),
}
_NULLS: Final[dict[str, Any]] = {"tags": (), "flag": False}


class _Plan(NamedTuple):
    """The fields of an entity beside its state, in the order of their numbers, each with its null and what makes its
    value (None: it is as it is given); and what fetches them all."""

    fields: tuple[tuple[str, Any, _Converted | None], ...]
    of: Callable[[Any], tuple[Any, ...]]


def _plan(entity: EntityName) -> _Plan:
    names = [name for name in ENTITIES[entity].fields if name != "state"]
    told = {field.name: field for field in CONTRACT[entity]}
    fields = tuple((name, _NULLS.get(told[name].kind), _converted(told[name])) for name in names)
    return _Plan(fields, attrgetter(*names))


def _converted(field: Field) -> _Converted | None:
    named = field.names
    return _CONVERTED.get(field.kind) if named is None else lambda raw, _: known_identity(named, raw)


_PLANS: Final = {entity: _plan(entity) for entity in CONTRACT}


def _ahead(field: str) -> BadEventError:
    return bad("impossible time", f"{field} lies further ahead of the Kafka record than clocks may differ")


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

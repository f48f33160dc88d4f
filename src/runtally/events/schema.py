"""The event contract for other programs and for people: JSON Schema, and the tables of docs/events.md."""

from __future__ import annotations

from typing import Any, Final, get_args

from ..core.changes import ENTITIES, EntityName
from .contract import CONTRACT, REASONS, Field, Kind, StateType
from .ids import MAX_ID_BYTES

Json = dict[str, Any]

_KINDS: Final[dict[Kind, tuple[Json, str]]] = {
    "id": (
        {"type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES},
        "id",
    ),
    "text": ({"type": "string"}, "text"),
    "state type": ({"enum": list(get_args(StateType))}, "state type"),
    "time": ({"type": "string", "format": "date-time"}, "time"),
    "seconds": ({"type": "number"}, "seconds"),
    "tags": ({"type": "array", "items": {"type": "string"}}, "array of texts"),
    "flag": ({"type": "boolean"}, "true or false"),
    "creator": (
        {"type": "object", "properties": {"id": {"type": ["string", "null"]}, "type": {"type": ["string", "null"]}}},
        "object with `id` and `type`, both text",
    ),
}


def events_schema() -> Json:
    """The JSON Schema (2020-12) of our own events. It takes every event that the contract takes; that clocks may not be
    ahead and that an upsert gives a state as a whole it does not say."""
    variants = [_event(entity, action) for entity in CONTRACT for action in ("upsert", "patch", "delete")]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "runtally event",
        "description": "One entity per Kafka message. Unknown keys are ignored.",
        "oneOf": variants,
    }


def field_table(entity: EntityName) -> str:
    """The fields of an entity's `data` as a Markdown table; `*` marks what an upsert, `**` what every action gives."""
    rows = ["| field | holds | meaning |", "| --- | --- | --- |"]
    for field in CONTRACT[entity]:
        mark = "\\*\\*" if field.always else "\\*" if field.required else ""
        rows.append(f"| `{field.name}`{mark} | {_KINDS[field.kind][1]} | {field.meaning} |")
    return "\n".join(rows)


def reason_table() -> str:
    """Why an event can be bad, as a Markdown table."""
    return "\n".join(
        ["| reason | meaning |", "| --- | --- |", *(f"| {name} | {text} |" for name, text in REASONS.items())]
    )


def tables() -> dict[str, str]:
    """Every table of docs/events.md by its name, which stands in the marks around it there."""
    return {**{f"fields of {entity}": field_table(entity) for entity in CONTRACT}, "reasons": reason_table()}


def _event(entity: EntityName, action: str) -> Json:
    fields = [field for field in CONTRACT[entity] if action != "delete" or field.always]
    required = [field.name for field in fields if field.always or (action == "upsert" and field.required)]
    state = ["state_type", "state_name", "state_timestamp"]
    data: Json = {
        "type": "object",
        "properties": {field.name: _property(field, action) for field in fields},
        "required": required,
    }
    if action == "patch" and ENTITIES[entity].state_fields:
        given = [*state, *ENTITIES[entity].state_fields[1:]]
        data["dependentRequired"] = {name: [other for other in state if other != name] for name in given}
    return {
        "title": f"{action} of a {entity}",
        "type": "object",
        "properties": {
            "entity": {"const": entity},
            "action": {"const": action},
            "occurred": {"type": "string", "format": "date-time"},
            "data": data,
        },
        "required": ["entity", "action", "occurred", "data"],
    }


def _property(field: Field, action: str) -> Json:
    schema, _ = _KINDS[field.kind]
    never_null = field.name == "id" or (action == "upsert" and field.required)
    if action == "patch" and field.name.startswith("state_"):
        never_null = True
    return {**(schema if never_null else _or_null(schema)), "description": field.meaning}


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}

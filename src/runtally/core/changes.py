"""What an event says, as the core sees it: a change to one entity.

An entity has *fields*, and every field belongs to one of two version groups (docs/design.md, "Versions"):
state fields are ordered by (state_timestamp, occurred), attributes by `occurred`. `ENTITIES` declares them;
a field's position in its entity's tuple is its number everywhere: in `Change.values`, in the bit mask
`Change.given` and in stored records.

Value types (µs are integers since the epoch, ids are 16 bytes):

    state            (state_type, state_name, state_timestamp µs)
    *_time           µs
    total_run_time   µs, may be negative
    *_id             16 bytes
    tags             tuple of text, as given
    created_by       (id text | None, type text | None)
    paused           bool
    everything else  text
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

EntityName = Literal["task_run", "flow_run", "flow", "deployment"]
Action = Literal["upsert", "patch", "delete"]

STATE_TYPES: Final = (
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
TERMINAL_STATE_TYPES: Final = frozenset({"COMPLETED", "CANCELLED", "FAILED", "CRASHED"})


@dataclass(frozen=True, slots=True)
class Entity:
    """One kind of entity: its topic and its fields, state fields first.

    `fields` are all fields, a field's index is its number; `all_given` is the mask of a full snapshot.
    """

    name: EntityName
    topic: Literal["runs", "catalog"]
    state_fields: tuple[str, ...]
    attributes: tuple[str, ...]
    fields: tuple[str, ...] = field(init=False)
    all_given: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", self.state_fields + self.attributes)
        object.__setattr__(self, "all_given", (1 << len(self.fields)) - 1)


TASK_RUN: Final = Entity(
    "task_run",
    "runs",
    state_fields=("state", "start_time", "end_time", "total_run_time"),
    attributes=("name", "tags", "expected_start_time", "child_flow_run_id"),
)
FLOW_RUN: Final = Entity(
    "flow_run",
    "runs",
    state_fields=("state", "start_time", "end_time"),
    attributes=(
        "name",
        "tags",
        "expected_start_time",
        "next_scheduled_start_time",
        "flow_id",
        "flow_name",
        "deployment_id",
        "deployment_name",
        "work_queue_name",
        "flow_version",
        "parent_task_run_id",
        "parent_flow_run_id",
        "idempotency_key",
        "created_by",
    ),
)
FLOW: Final = Entity("flow", "catalog", state_fields=(), attributes=("name", "tags"))
DEPLOYMENT: Final = Entity(
    "deployment",
    "catalog",
    state_fields=(),
    attributes=("flow_id", "name", "tags", "paused", "work_queue_name"),
)
ENTITIES: Final[dict[str, Entity]] = {e.name: e for e in (TASK_RUN, FLOW_RUN, FLOW, DEPLOYMENT)}


class Change(NamedTuple):
    """One event, validated.

    `values` has one entry per field of the entity; `given` is the bit mask of the fields that the event
    speaks of (an upsert: all; a delete: none). An ungiven value is None and means nothing. A given state is
    never None except in an upsert of a flow run that has no state; then the other state fields are None too.
    `flow_run_id` is set for task runs only.
    """

    entity: EntityName
    action: Action
    id: bytes
    flow_run_id: bytes | None
    occurred: int
    given: int
    values: tuple[Any, ...]


def canonical(value: Any) -> bytes:
    """The bytes that break a tie between two values of equal version: the greater wins, None is lowest.

    Compact JSON of the stored value: times as integer µs, ids as hyphenated text, no ASCII escapes.
    """
    if value is None:
        return b""
    if isinstance(value, bytes):
        value = str(uuid.UUID(bytes=value))
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")

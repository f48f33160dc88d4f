"""The event contract as a table: the entities' fields, what they hold and which of them an event has to give.

Everything else that knows the fields is made from `CONTRACT`: the structs that decode events, the JSON Schema and
the tables of docs/events.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ..core.changes import EntityName
from ..errors import BadEventError

StateType = Literal[
    "SCHEDULED", "PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "CRASHED", "PAUSED", "CANCELLING"
]
Kind = Literal["id", "text", "state type", "time", "seconds", "tags", "flag", "creator"]


class Creator(Struct, gc=False):
    """Who made a flow run."""

    id: str | None = None
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """One key of `data`. `required`: in an upsert, and then not null · `always`: in every action, null allowed unless
    it is the entity's own id · `names`: the entity that an id belongs to."""

    name: str
    kind: Kind
    meaning: str
    required: bool = False
    always: bool = False
    names: EntityName | None = None


_STATE: Final = (
    ("state_type", "state type", "Together with the next two: the state, given as a whole or not at all."),
    ("state_name", "text", "Any text: `Completed`, `Cached`, `TimedOut`, your own."),
    ("state_timestamp", "time", "When the run entered the state; the newest state wins."),
)


def _state(*, required: bool) -> tuple[Field, ...]:
    return tuple(Field(name, cast(Kind, kind), meaning, required=required) for name, kind, meaning in _STATE)


CONTRACT: Final[dict[EntityName, tuple[Field, ...]]] = {
    "task_run": (
        Field("id", "id", "The task run.", always=True, names="task_run"),
        Field("flow_run_id", "id", "Its flow run, null if it has none; never changes.", always=True, names="flow_run"),
        Field("name", "text", "Its name.", required=True),
        Field("tags", "tags", "Its tags."),
        *_state(required=True),
        Field("expected_start_time", "time", "Decides its bin of the history; without one it is in none."),
        Field("start_time", "time", "When it began to run."),
        Field("end_time", "time", "When it ended."),
        Field("total_run_time", "seconds", "Time spent running; absent: end − start where both are known, else 0."),
        Field("child_flow_run_id", "id", "The subflow run that this task run stands for.", names="flow_run"),
    ),
    "flow_run": (
        Field("id", "id", "The flow run.", always=True, names="flow_run"),
        Field("flow_id", "id", "Its flow.", required=True, names="flow"),
        Field("flow_name", "text", "Its flow's name, used while the catalog does not know the flow."),
        Field("deployment_id", "id", "Its deployment.", names="deployment"),
        Field("deployment_name", "text", "Its deployment's name, used while the catalog does not know it."),
        Field("name", "text", "Its name."),
        Field("tags", "tags", "Its tags."),
        *_state(required=False),
        Field("start_time", "time", "When it began to run."),
        Field("end_time", "time", "When it ended."),
        Field("expected_start_time", "time", "When it should begin."),
        Field("next_scheduled_start_time", "time", "When it is scheduled next."),
        Field("work_queue_name", "text", "Its work queue."),
        Field("flow_version", "text", "The version of its flow."),
        Field("parent_task_run_id", "id", "The task run that stands for it, if it is a subflow.", names="task_run"),
        Field("parent_flow_run_id", "id", "The flow run that called it, if it is a subflow.", names="flow_run"),
        Field("idempotency_key", "text", "The key it was created with."),
        Field("created_by", "creator", "Who created it."),
    ),
    "flow": (
        Field("id", "id", "The flow.", always=True, names="flow"),
        Field("name", "text", "Its name.", required=True),
        Field("tags", "tags", "Its tags."),
    ),
    "deployment": (
        Field("id", "id", "The deployment.", always=True, names="deployment"),
        Field("flow_id", "id", "Its flow.", required=True, names="flow"),
        Field("name", "text", "Its name.", required=True),
        Field("tags", "tags", "Its tags."),
        Field("paused", "flag", "Whether its schedules are paused; null or absent: false."),
        Field("work_queue_name", "text", "Its work queue."),
    ),
}
REQUIRED: Final = {
    entity: tuple(field.name for field in fields if field.required) for entity, fields in CONTRACT.items()
}

REASONS: Final[dict[str, str]] = {
    "no value": "The message has no value (a Kafka tombstone). Send a `delete` instead.",
    "over 1 MiB": "The message is larger than an event may be.",
    "not JSON": "The value is not JSON in UTF-8, or is nested too deeply.",
    "missing field": "A field that has to be given is not, or is null; or a state is given in part.",
    "wrong type": "A field holds another type of JSON value than the table says.",
    "wrong value": "The type is right, but the text is no state type, no time with an offset, or no id.",
    "unknown entity": "`entity` is none of the four.",
    "unknown action": "`action` is none of `upsert`, `patch` and `delete`.",
    "wrong topic": "The entity belongs on the other topic.",
    "wrong partition": "It was forwarded to its own partition and came out in another one again: the number of "
    "partitions was changed.",
    "impossible time": "A time outside 1970…2200, a `total_run_time` over 100 years, or an `occurred` or "
    "`state_timestamp` further ahead of the Kafka record than `RUNTALLY_MAX_CLOCK_SKEW`.",
}
"""Why an event can be bad: the reason, which is stable, and what it means."""


def bad(reason: str, detail: str) -> BadEventError:
    """The error for a bad event; the reason is one of `REASONS`."""
    assert reason in REASONS
    return BadEventError(reason, detail)


# Times stay text here: only text tells how many digits a fraction has.
_TYPES: Final[dict[Kind, Any]] = {
    "id": str,
    "text": str,
    "state type": StateType,
    "time": str,
    "seconds": float,
    "tags": tuple[str, ...],
    "flag": bool,
    "creator": Creator,
}


def struct_of(entity: EntityName, *, keys_only: bool = False) -> type[Struct]:
    """The struct that decodes `data` of an entity: every field may be absent or null, which the reader judges.

    `keys_only`: just the fields that every action has to give, since a delete's other fields do not matter.
    """
    members = [
        (field.name, _TYPES[field.kind] | None | UnsetType, UNSET)
        for field in CONTRACT[entity]
        if field.always or not keys_only
    ]
    return msgspec.defstruct(f"{entity}_data", members, gc=False)

"""How the known answers are told: estates as events, entities by labels."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

Body = dict[str, Any]
Event = dict[str, Any]

DT = datetime(2021, 7, 1, tzinfo=UTC)
DT_US = 1_625_097_600_000_000


@dataclass(frozen=True, slots=True)
class Vectors:
    """An estate and what requests to it answer; the kind of answer depends on the vectors, see each."""

    events: list[Event]
    ids: dict[str, str]
    range: Body
    cases: list[tuple[Body, Any]]
    now_us: int = DT_US + 86_400_000_000


def at(**after: float) -> str:
    """The instant so long after DT, as an event writes it."""
    return (DT + timedelta(**after)).isoformat()


def body(start: str, end: str, width: float) -> Body:
    return {"history_start": start, "history_end": end, "history_interval_seconds": width}


class Told:
    """Collects the events of an estate; entities are named by labels, each label a fixed UUID."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.events: list[Event] = []
        self.ids: dict[str, str] = {}

    def id(self, label: str | None) -> str | None:
        if label is None:
            return None
        return self.ids.setdefault(label, str(uuid.uuid5(uuid.NAMESPACE_URL, f"runtally-vectors:{self.name}:{label}")))

    def tell(self, entity: str, label: str, action: str = "upsert", **data: Any) -> None:
        for field, value in data.items():
            if field.endswith("_id"):
                data[field] = self.id(value)
        data["id"] = self.id(label)
        self.events.append({"entity": entity, "action": action, "occurred": at(hours=1), "data": data})

    def task_run(self, label: str, flow_run: str | None, state: tuple[str, str] | None, **data: Any) -> None:
        """A task run, in a state since DT unless `state_timestamp` says otherwise; one without a state is a patch."""
        self.tell(
            "task_run", label, "upsert" if state else "patch", **{"flow_run_id": flow_run, **state_parts(state), **data}
        )

    def flow_run(self, label: str, flow: str, state: tuple[str, str] | None = None, **data: Any) -> None:
        self.tell("flow_run", label, **{"flow_id": flow, "name": label, **state_parts(state), **data})


def state_parts(state: tuple[str, str] | None) -> dict[str, str]:
    return {"state_type": state[0], "state_name": state[1], "state_timestamp": at()} if state else {}


COMPLETED, FAILED, RUNNING = ("COMPLETED", "Completed"), ("FAILED", "Failed"), ("RUNNING", "Running")
PENDING, SCHEDULED = ("PENDING", "Pending"), ("SCHEDULED", "Scheduled")

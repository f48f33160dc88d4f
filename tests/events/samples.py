"""Good events to start from, and how to read one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runtally.core.changes import ENTITIES, Change
from runtally.events.wire import Ignored, parse

T = "2026-11-24T10:01:33.118006Z"
T_US = 1_795_514_493_118_006
DAY_US = 86_400_000_000
RUN, FLOW_RUN, FLOW = (f"0c0ffee0-0000-4000-8000-{number:012}" for number in (1, 2, 3))

PREFECT_EVENTS = (Path(__file__).parents[1] / "data" / "prefect-events.jsonl").read_bytes().splitlines()

STATE = {"state_type": "RUNNING", "state_name": "Running", "state_timestamp": T}
DATA: dict[str, dict[str, Any]] = {
    "task_run": {"id": RUN, "flow_run_id": FLOW_RUN, "name": "extract", **STATE},
    "flow_run": {"id": FLOW_RUN, "flow_id": FLOW},
    "flow": {"id": FLOW, "name": "etl"},
    "deployment": {"id": RUN, "flow_id": FLOW, "name": "prod"},
}


def event(entity: str = "task_run", action: str = "upsert", /, *, without: str = "", **data: Any) -> dict[str, Any]:
    """A good event; `data` goes over what it holds, `without` names a field to leave out."""
    told = {**DATA[entity], **data}
    if action == "patch" and "state_type" not in data:
        told = {key: value for key, value in told.items() if key not in STATE or key in data}
    told.pop(without, None)
    return {"entity": entity, "action": action, "occurred": T, "data": told}


def raw(value: Any) -> bytes:
    """The bytes of a message; a lone surrogate in it makes them invalid UTF-8."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def read(value: Any, *, record_us: int = T_US) -> Change | Ignored:
    """Parse a message on the topic it belongs on."""
    entity = str(value.get("entity")) if isinstance(value, dict) else ""
    topic = ENTITIES[entity].topic if entity in ENTITIES else "runs"
    message = value if value is None or isinstance(value, bytes) else raw(value)
    return parse(message, topic=topic, record_us=record_us, max_clock_skew_us=DAY_US)


def change_of(value: Any) -> Change:
    """The change that a message is."""
    change = read(value)
    assert isinstance(change, Change)
    return change


def fields(change: Change) -> dict[str, Any]:
    """The fields that a change speaks of."""
    names = ENTITIES[change.entity].fields
    return {
        name: value
        for number, (name, value) in enumerate(zip(names, change.values, strict=True))
        if change.given >> number & 1
    }


def id_of(text: str) -> bytes:
    """The bytes of a hyphenated UUID."""
    return bytes.fromhex(text.replace("-", ""))

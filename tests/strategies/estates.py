"""Estates as the events that tell them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from .pools import (
    BASE_US,
    CREATORS,
    DEPLOYMENTS,
    FLOW_RUNS,
    FLOWS,
    NAMES,
    SECOND_US,
    STATES,
    TAGS,
    TASK_RUNS,
    TOTALS_S,
    WORDS,
    dice_up_to,
    instant_us,
    spelled,
    text_of,
)

Event = dict[str, Any]


def estates(*, events: int = 60, latest_us: int | None = None) -> st.SearchStrategy[list[Event]]:
    """Up to so many events in the order of arrival: snapshots, patches, deletes, repeats, old and new ones mixed.

    `latest_us` bounds `occurred` and the state timestamps, for servers that compare them with their own clock.
    The flow run of a task run is fixed by its place in TASK_RUNS, as producers promise.
    """
    return dice_up_to(events).map(lambda dices: estate_of(dices, latest_us))


def estate_of(dices: list[random.Random], latest_us: int | None = None) -> list[Event]:
    """What `estates` draws."""
    told: list[Event] = []
    for dice in dices:
        if told and dice.random() < 0.08:
            told.append(dice.choice(told))
        else:
            told.append(_event(dice, latest_us))
    return told


def flow_run_of(task_run: str) -> str | None:
    """The flow run that a task run of TASK_RUNS belongs to; every seventh has none."""
    number = TASK_RUNS.index(task_run)
    return None if number % 7 == 3 else FLOW_RUNS[number % len(FLOW_RUNS)]


def _event(dice: random.Random, latest_us: int | None) -> Event:
    entity = dice.choices(["task_run", "flow_run", "flow", "deployment"], [12, 5, 1, 2])[0]
    action = dice.choices(["upsert", "patch", "delete"], [14, 5, 0.25])[0]
    own_id = dice.choice(
        {"task_run": TASK_RUNS, "flow_run": FLOW_RUNS, "flow": FLOWS, "deployment": DEPLOYMENTS}[entity]
    )
    data: dict[str, Any] = {"id": spelled(dice, own_id)}
    if entity == "task_run":
        owner = flow_run_of(own_id)
        data["flow_run_id"] = owner and spelled(dice, owner)
    if action != "delete":
        fields = {name: draw(dice) for name, draw in _FIELDS[entity].items() if dice.random() < 0.75}
        if action == "upsert":
            for name in _REQUIRED[entity]:
                while fields.get(name) is None:
                    fields[name] = _FIELDS[entity][name](dice)
        if _STATES_OF[entity] and (dice.random() < 0.6 or (entity, action) == ("task_run", "upsert")):
            fields |= _state(dice, entity, latest_us)
        data |= fields
    return {"entity": entity, "action": action, "occurred": text_of(_version_us(dice, latest_us)), "data": data}


def _state(dice: random.Random, entity: str, latest_us: int | None) -> dict[str, Any]:
    state_type, state_name = dice.choice(STATES)
    fields = {"state_type": state_type, "state_name": state_name}
    fields["state_timestamp"] = text_of(_version_us(dice, latest_us))
    return fields | {name: draw(dice) for name, draw in _STATES_OF[entity].items() if dice.random() < 0.5}


def _version_us(dice: random.Random, latest_us: int | None) -> int:
    """Times that order versions: few, so that many are equal; some in the future, some far away."""
    chance = dice.random()
    instant = BASE_US + dice.randrange(6) * 90 * SECOND_US if chance < 0.7 else instant_us(dice)
    return instant if latest_us is None else min(instant, latest_us)


def _of(pool: list[Any], null: float = 0.1) -> Callable[[random.Random], Any]:
    return lambda dice: None if dice.random() < null else dice.choice(pool)


def _id(pool: list[str]) -> Callable[[random.Random], Any]:
    return lambda dice: None if dice.random() < 0.15 else spelled(dice, dice.choice(pool))


def _time(dice: random.Random) -> str | None:
    return None if dice.random() < 0.1 else text_of(instant_us(dice))


def _tags(dice: random.Random) -> list[str] | None:
    return None if dice.random() < 0.05 else dice.choices(TAGS, k=dice.randrange(4))


def _created_by(dice: random.Random) -> dict[str, Any] | None:
    if dice.random() < 0.2:
        return None
    given = {"id": _id(CREATORS)(dice), "type": _of(["DEPLOYMENT", "AUTOMATION"])(dice)}
    return {name: value for name, value in given.items() if dice.random() < 0.8}


_STATES_OF: dict[str, dict[str, Callable[[random.Random], Any]]] = {
    "task_run": {"start_time": _time, "end_time": _time, "total_run_time": _of(TOTALS_S)},
    "flow_run": {"start_time": _time, "end_time": _time},
    "flow": {},
    "deployment": {},
}
_FIELDS: dict[str, dict[str, Callable[[random.Random], Any]]] = {
    "task_run": {
        "name": _of(NAMES),
        "tags": _tags,
        "expected_start_time": _time,
        "child_flow_run_id": _id(FLOW_RUNS),
        "unknown": _of([1]),
    },
    "flow_run": {
        "name": _of(NAMES),
        "tags": _tags,
        "expected_start_time": _time,
        "next_scheduled_start_time": _time,
        "flow_id": _id(FLOWS),
        "flow_name": _of(NAMES),
        "deployment_id": _id(DEPLOYMENTS),
        "deployment_name": _of(NAMES),
        "work_queue_name": _of(WORDS),
        "flow_version": _of(WORDS),
        "parent_task_run_id": _id(TASK_RUNS),
        "parent_flow_run_id": _id(FLOW_RUNS),
        "idempotency_key": _of(WORDS),
        "created_by": _created_by,
    },
    "flow": {"name": _of(NAMES), "tags": _tags},
    "deployment": {
        "flow_id": _id(FLOWS),
        "name": _of(NAMES),
        "tags": _tags,
        "paused": _of([True, False]),
        "work_queue_name": _of(WORDS),
    },
}
_REQUIRED = {"task_run": ["name"], "flow_run": ["flow_id"], "flow": ["name"], "deployment": ["flow_id", "name"]}

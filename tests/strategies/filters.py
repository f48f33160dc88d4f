"""Filters over every field: nested operators, NULLs, empty lists and objects, repeats and spellings of ids."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from .pools import (
    CREATORS,
    DEPLOYMENTS,
    FLOW_RUNS,
    FLOWS,
    LIKES,
    NAMES,
    SEEDS,
    STATES,
    TAGS,
    TASK_RUNS,
    WORDS,
    instant_us,
    spelled,
    text_of,
)

Body = dict[str, Any]
Draw = Callable[[random.Random], Any]
Subs = dict[str, dict[str, tuple[bool, dict[str, Draw]]]]
"""Per entity and sub-filter: whether it has an operator, and how its attributes are drawn."""


def filters() -> st.SearchStrategy[Body]:
    """The filter part of a body: each entity absent, null, or an operator and up to three sub-filters."""
    return SEEDS.map(lambda seed: filters_of(random.Random(seed)))


def filters_of(dice: random.Random, among: Subs | None = None) -> Body:
    """What `filters` draws; `among` names other sub-filters than all there are."""
    body: Body = {}
    for entity, subs in (SUBS if among is None else among).items():
        if dice.random() < 0.6:
            continue
        filter_: Body = {}
        for name in dice.sample(list(subs), dice.choice((0, 1, 1, 1, 2, 2, 3))):
            filter_[name] = _sub(dice, *subs[name])
        if dice.random() < 0.6:
            filter_["operator"] = dice.choice(["and_", "or_", "or_"])
        body[entity] = filter_ if dice.random() < 0.95 else None
    if dice.random() < 0.03:
        body["work_pool_queues"] = {"bogus": 1}
    return body


def sub_filters() -> list[tuple[str, str, str]]:
    """Every (entity, sub-filter, attribute) that `filters` can draw."""
    return [(entity, sub, name) for entity, subs in SUBS.items() for sub, (_, names) in subs.items() for name in names]


def _sub(dice: random.Random, has_operator: bool, attributes: dict[str, Draw]) -> Body | None:
    if dice.random() < 0.04:
        return None
    sub = {name: draw(dice) for name, draw in attributes.items() if dice.random() < min(0.9, 1.2 / len(attributes))}
    if has_operator and dice.random() < 0.5:
        sub["operator"] = dice.choice(["and_", "or_"])
    return sub


def nullable(draw: Draw) -> Draw:
    return lambda dice: None if dice.random() < 0.06 else draw(dice)


def _list(pool: list[str], of: Callable[[random.Random, str], str] = lambda dice, text: text) -> Draw:
    """A list of up to six, often with repeats, sometimes empty or null."""
    return nullable(lambda dice: [of(dice, dice.choice(pool)) for _ in range(dice.choice((0, 1, 2, 2, 3, 4, 6)))])


def _ids(entity: str, pool: list[str]) -> Draw:
    """Ids of the pool as UUIDs, which is what the API speaks; a text id has the uuid5 of its entity's namespace."""
    namespace = uuid.uuid5(uuid.NAMESPACE_URL, f"runtally:{entity}")
    return _list([text if len(text) == 36 else str(uuid.uuid5(namespace, text)) for text in pool], spelled)


def _text_list_of(pool: list[str]) -> Draw:
    return _list([*pool, "nothing has this"])


def _choice(pool: list[Any]) -> Draw:
    return nullable(lambda dice: dice.choice(pool))


def _parts(attributes: dict[str, Draw]) -> Draw:
    return nullable(lambda dice: {name: draw(dice) for name, draw in attributes.items() if dice.random() < 0.6})


_BOOL = _choice([True, True, True, False, False, False, 1, 0, 1.0, "t", "OFF", "yes", "n"])
_TIME = nullable(lambda dice: text_of(instant_us(dice), dice))
_TYPES = _list(sorted({kind for kind, _ in STATES}))
_STATE_NAMES = _text_list_of(sorted({name for _, name in STATES}))
_LIKE = _choice(LIKES)
_NAME = (False, {"any_": _text_list_of(NAMES), "like_": _LIKE})
_TAG_LIST = _text_list_of(TAGS)
_RANGE = {"before_": _TIME, "after_": _TIME}

SUBS: Subs = {
    "flows": {
        "id": (False, {"any_": _ids("flow", FLOWS), "not_any_": _ids("flow", FLOWS)}),
        "deployment": (True, {"is_null_": _BOOL}),
        "name": _NAME,
        "tags": (True, {"all_": _TAG_LIST, "is_null_": _BOOL}),
    },
    "flow_runs": {
        "id": (False, {"any_": _ids("flow_run", FLOW_RUNS), "not_any_": _ids("flow_run", FLOW_RUNS)}),
        "name": _NAME,
        "tags": (True, {"all_": _TAG_LIST, "any_": _TAG_LIST, "is_null_": _BOOL}),
        "deployment_id": (True, {"any_": _ids("deployment", DEPLOYMENTS), "is_null_": _BOOL}),
        "work_queue_name": (True, {"any_": _text_list_of(WORDS), "is_null_": _BOOL}),
        "state": (
            True,
            {
                "type": _parts({"any_": _TYPES, "not_any_": _TYPES}),
                "name": _parts({"any_": _STATE_NAMES, "not_any_": _STATE_NAMES}),
            },
        ),
        "flow_version": (False, {"any_": _text_list_of(WORDS)}),
        "start_time": (False, {**_RANGE, "is_null_": _BOOL}),
        "end_time": (False, {**_RANGE, "is_null_": _BOOL}),
        "expected_start_time": (False, _RANGE),
        "next_scheduled_start_time": (False, _RANGE),
        "parent_flow_run_id": (True, {"any_": _ids("flow_run", FLOW_RUNS)}),
        "parent_task_run_id": (True, {"any_": _ids("task_run", TASK_RUNS), "is_null_": _BOOL}),
        "idempotency_key": (False, {"any_": _text_list_of(WORDS), "not_any_": _text_list_of(WORDS)}),
        "created_by": (
            True,
            {
                "id_": _ids("creator", CREATORS),
                "type_": _text_list_of(["DEPLOYMENT", "AUTOMATION", "automation"]),
                "is_null_": _BOOL,
            },
        ),
    },
    "task_runs": {
        "id": (False, {"any_": _ids("task_run", TASK_RUNS)}),
        "name": _NAME,
        "tags": (True, {"all_": _TAG_LIST, "is_null_": _BOOL}),
        "state": (True, {"type": _parts({"any_": _TYPES}), "name": _parts({"any_": _STATE_NAMES})}),
        "start_time": (False, {**_RANGE, "is_null_": _BOOL}),
        "end_time": (False, {**_RANGE, "is_null_": _BOOL}),
        "expected_start_time": (False, _RANGE),
        "subflow_runs": (False, {"exists_": _BOOL}),
        "flow_run_id": (True, {"any_": _ids("flow_run", FLOW_RUNS), "is_null_": _BOOL}),
    },
    "deployments": {
        "id": (False, {"any_": _ids("deployment", DEPLOYMENTS), "not_any_": _ids("deployment", DEPLOYMENTS)}),
        "name": _NAME,
        "flow_or_deployment_name": (False, {"like_": _LIKE}),
        "paused": (False, {"eq_": _BOOL}),
        "tags": (True, {"all_": _TAG_LIST, "any_": _TAG_LIST, "is_null_": _BOOL}),
        "work_queue_name": (False, {"any_": _text_list_of(WORDS)}),
        "concurrency_limit": (
            False,
            {"ge_": _choice([0, 1, "2", 3.0]), "le_": _choice([0, 5]), "is_null_": _BOOL},
        ),
    },
}

"""Estates and questions for what cells can get wrong: everything happens at the instants that are asked about.

A *stage* is drawn first: a few windows, moments and filter bounds, and with them the *anchors*, which are their edges
and those of the buckets around them. Events and questions then take nearly all their times from anchors, ±1 µs.
The attributes that cells know change late, often and in any order: runs move between minutes, flow runs change tags,
parent, flow, deployment and queue, come after their task runs or never, catalog entries are renamed and deleted.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from runtally.core.attributes import By
from runtally.core.filters import FILTERS

from .filters import SUBS, Subs, filters_of, nullable
from .histories import question
from .pools import (
    BASE_US,
    DAY_US,
    DEPLOYMENTS,
    FAR_US,
    FLOW_RUNS,
    FLOWS,
    LEVELS_US,
    NAMES,
    SECOND_US,
    SEEDS,
    STATES,
    TAGS,
    TASK_RUNS,
    TOTALS_S,
    WORDS,
    seeds_up_to,
    spelled,
    text_of,
)

Event = dict[str, Any]
Body = dict[str, Any]

RUNS = [*TASK_RUNS, *(str(uuid.UUID(int=0x7A5C_1000 + number)) for number in range(26))]
"""Enough for cells of several runs."""
TOLD_FLOW_RUNS = FLOW_RUNS[1:]
"""Task runs name one more, which no event describes."""
WIDTHS_S = [1.123456, 60, 61, 90.5, 300, 600, 3600, 4319.99995, 4320, 21_600, 30_240, 86_400]
_HOUR = 3600 * SECOND_US
_FREQUENT = [*STATES[:4], STATES[6]]
MANY_STATES = [*STATES, *_FREQUENT * 4, *((kind, f"custom {n}") for n in range(8) for kind in ("RUNNING", "COMPLETED"))]


@dataclass(frozen=True, slots=True)
class Stage:
    """Windows as (start, end, width) and moments in µs, widths in seconds; `anchors` hold all their edges.

    From the event `calm_after` on nothing is told of flow runs, so that catalog and task runs move alone.
    """

    calm_after: int
    windows: list[tuple[int, int, float]]
    moments: list[int]
    bounds: list[int]
    anchors: list[int]

    def near(self, dice: random.Random) -> int:
        """An instant where something is decided, or rarely any other."""
        chance = dice.random()
        if chance < 0.02:
            return dice.choice(FAR_US)
        if chance < 0.1:
            return BASE_US + dice.randrange(2 * DAY_US)
        if chance < 0.25:
            return dice.choice(self.anchors) + dice.randrange(-60, 60) * SECOND_US
        return dice.choice(self.anchors) + dice.choice((-1, 0, 0, 1))

    def bound(self, dice: random.Random) -> int:
        """An instant that a filter names."""
        return dice.choice([*self.bounds, self.near(dice)]) + dice.choice((-1, 0, 0, 1))


class Play:
    """An example: `events` in the order of arrival, and `questions` (history body, `now` in µs) to ask between them.

    Made of seeds, by which a failing one is shown: of the stage, and of each event and question.
    """

    def __init__(self, stage_seed: int, event_seeds: list[int], question_seeds: list[int]) -> None:
        self._seeds = (stage_seed, event_seeds, question_seeds)
        stage = _stage(random.Random(stage_seed))
        self.events = [_event(random.Random(seed), stage, number) for number, seed in enumerate(event_seeds)]
        self.questions: list[tuple[Body, int]] = []
        for seed in question_seeds:
            self.questions.append(_question(random.Random(seed), stage, self.questions))

    def __repr__(self) -> str:
        return "Play({}, {}, {})".format(*self._seeds)


def plays(events: int, questions: int) -> st.SearchStrategy[Play]:
    """Up to so many events and questions."""
    return st.builds(Play, SEEDS, seeds_up_to(events), seeds_up_to(questions))


def run_of(run: str) -> str | None:
    """The flow run that one of RUNS belongs to; every fifth has none."""
    number = RUNS.index(run)
    return None if number % 5 == 4 else FLOW_RUNS[number % len(FLOW_RUNS)]


def _stage(dice: random.Random) -> Stage:
    origin = BASE_US + dice.choice(LEVELS_US) * dice.randrange(4)
    windows = []
    edges = []
    for _ in range(3):
        width_s = dice.choice(WIDTHS_S)
        width = round(width_s * SECOND_US)
        start = origin - dice.randrange(3) * width + dice.choice((-1, 0, 0, 1, dice.randrange(60 * SECOND_US)))
        bins = dice.choice((1, 2, 5, 20, 21))
        windows.append((start, start + bins * width + dice.choice((-1, 0, 0, 1, -width // 3)), width_s))
        edges += [start, *(start + dice.randrange(bins + 1) * width for _ in range(2)), windows[-1][1]]
    moments = [origin, *(dice.choice(edges) + dice.choice((-1, 0, 1, dice.randrange(7200 * SECOND_US))) for _ in "12")]
    some = [dice.choice([*edges, *moments]) + dice.randrange(-1, 2) * dice.choice((1, _HOUR)) for _ in "12"]
    bounds = [origin, *some]
    anchors = [*edges, *moments, *bounds]
    for width in LEVELS_US:
        anchors += [near // width * width for near in dice.sample(anchors, 2)]
    return Stage(dice.choice((50, 1 << 30)), windows, moments, bounds, anchors)


# -- questions


def _question(dice: random.Random, stage: Stage, asked: list[tuple[Body, int]]) -> tuple[Body, int]:
    now = dice.choice(stage.moments) + dice.choice((-1, 0, 0, 1))
    chance = dice.random()
    if asked and chance < 0.15:
        return dice.choice(asked)[0], now
    if chance < 0.25:
        body, now = question(dice)
    else:
        start, end, width_s = dice.choice(stage.windows)
        body = {"history_start": text_of(start, dice), "history_end": text_of(end, dice)}
        body["history_interval_seconds"] = width_s
    chance = dice.random()
    if chance < 0.08:
        return body, now
    if chance < 0.2:
        return {**body, **filters_of(dice)}, now
    filters = filters_of(dice, _of_cells(stage, raw=dice.random() < 0.1))
    if chance < 0.45:
        # As dashboards do: ranges that every run has to be in.
        filters["task_runs"] = {
            name: {bound: text_of(stage.bound(dice)) for bound in ("before_", "after_") if dice.random() < 0.7}
            for name in dice.choice((["start_time"], ["expected_start_time"], ["start_time", "expected_start_time"]))
        }
    elif chance < 0.55:
        filters |= _single(dice)
    return {**body, **filters}, now


def _single(dice: random.Random) -> Body:
    """One flow or deployment, and something that not all of its flow runs need fulfil."""
    flow_runs: Body = {"operator": "or_", "tags": {"any_": dice.sample(TAGS[:3], 1)}}
    if dice.random() < 0.7:
        flow_runs["parent_task_run_id"] = {"is_null_": dice.random() < 0.5}
    one = {"id": {"any_": [dice.choice([text for text in FLOWS if len(text) == 36])]}}
    deployed = {"id": {"any_": [dice.choice(DEPLOYMENTS)]}}
    found: Body = {"flows": one} if dice.random() < 0.6 else {"deployments": deployed}
    return {**found, "flow_runs": flow_runs} if dice.random() < 0.6 else found


def _of_cells(stage: Stage, *, raw: bool) -> Subs:
    """What cells can answer, asked near the stage's instants; with `raw` everything else too."""

    def time(dice: random.Random) -> str:
        return text_of(stage.bound(dice), dice)

    return {
        entity: {
            name: (has_operator, found)
            for name, (has_operator, attributes) in subs.items()
            if (
                found := {
                    attribute: nullable(time) if attribute in ("before_", "after_") else draw
                    for attribute, draw in attributes.items()
                    if raw or (entity, name, attribute) not in _RAW
                }
            )
        }
        for entity, subs in SUBS.items()
    }


_RAW = {
    (entity, part.name, attribute.path.partition(".")[0])
    for entity, row in FILTERS.items()
    for part in row.parts
    for attribute in part.attributes
    if attribute.by is By.RAW
}


# -- events


def _event(dice: random.Random, stage: Stage, number: int) -> Event:
    weights = [22, 9 if number < stage.calm_after else 0, 2, 3]
    entity = dice.choices(["task_run", "flow_run", "flow", "deployment"], weights)[0]
    action = dice.choices(["upsert", "patch", "delete"], [12, 5, 0.4])[0]
    pool = {"task_run": RUNS, "flow_run": TOLD_FLOW_RUNS, "flow": FLOWS, "deployment": DEPLOYMENTS}[entity]
    own_id = dice.choice(pool)
    data: dict[str, Any] = {"id": spelled(dice, own_id)}
    if entity == "task_run":
        data["flow_run_id"] = run_of(own_id)
    if action != "delete":
        data |= _DATA[entity](dice, stage, action == "patch")
    # Mostly each event is newer than the ones before it, so that what is told moves what is there.
    age = number if dice.random() < 0.75 else dice.randrange(number + 1)
    occurred = BASE_US + age * 30 * SECOND_US
    return {"entity": entity, "action": action, "occurred": text_of(occurred), "data": data}


def _task_run(dice: random.Random, stage: Stage, patch: bool) -> Event:
    # A name that is never NULL, so that `like_: "%"` makes the same question one for raw runs.
    data: Event = {"name": dice.choice(NAMES)}
    expected = None if dice.random() < 0.08 else stage.near(dice)
    if not patch or dice.random() < 0.5:
        data["expected_start_time"] = _text(expected)
    if dice.random() < 0.3:
        data["child_flow_run_id"] = dice.choice([None, *FLOW_RUNS])
    if patch and dice.random() < 0.4:
        return data
    state_time = stage.near(dice)
    data["state_type"], data["state_name"] = dice.choice(MANY_STATES)
    data["state_timestamp"] = text_of(state_time)
    start = _start(dice, stage, expected)
    data["start_time"] = _text(start)
    if start is not None and dice.random() < 0.4:
        data["end_time"] = text_of(dice.choice([start, start + 90 * SECOND_US, start - 1, state_time]))
    chance = dice.random()
    if chance < 0.3:
        # The instant at which its run time turns positive is at one of the moments.
        data["total_run_time"] = (state_time - dice.choice(stage.moments) - dice.choice((-1, 0, 1))) / SECOND_US
    elif chance < 0.7:
        data["total_run_time"] = dice.choice(TOTALS_S)
    return data


def _start(dice: random.Random, stage: Stage, expected: int | None) -> int | None:
    """None, around the expected time on either side, or where something is asked."""
    if dice.random() < 0.35:
        return None
    if expected is None or dice.random() < 0.4:
        return stage.near(dice)
    return expected + dice.choice((-5400 * SECOND_US, -60 * SECOND_US, -1, 0, 1, 59 * SECOND_US, 3600 * SECOND_US))


def _flow_run(dice: random.Random, stage: Stage, patch: bool) -> Event:
    given = {name: draw(dice) for name, draw in _FLOW_RUN.items() if dice.random() < (0.35 if patch else 0.85)}
    return given if patch else {"flow_id": dice.choice(FLOWS), **given}


def _flow(dice: random.Random, _: Stage, patch: bool) -> Event:
    return {"tags": _tags(dice)} if patch else {"name": dice.choice(NAMES), "tags": _tags(dice)}


def _deployment(dice: random.Random, _: Stage, patch: bool) -> Event:
    given = {"tags": _tags(dice), "paused": dice.random() < 0.5, "work_queue_name": dice.choice([None, *WORDS])}
    if patch:
        return {name: value for name, value in given.items() if dice.random() < 0.6}
    return {**given, "flow_id": dice.choice(FLOWS), "name": dice.choice(NAMES)}


def _text(instant: int | None) -> str | None:
    return None if instant is None else text_of(instant)


def _tags(dice: random.Random) -> list[str]:
    """Few sets, told with duplicates and in any order."""
    return dice.choices(TAGS[:3], k=dice.randrange(4))


_FLOW_RUN: dict[str, Callable[[random.Random], Any]] = {
    "flow_id": lambda dice: dice.choice(FLOWS),
    "flow_name": lambda dice: dice.choice([None, *NAMES]),
    "tags": _tags,
    "deployment_id": lambda dice: dice.choice([None, *DEPLOYMENTS]),
    "work_queue_name": lambda dice: dice.choice([None, *WORDS]),
    "parent_task_run_id": lambda dice: dice.choice([None, None, RUNS[0]]),
}
_DATA: dict[str, Callable[[random.Random, Stage, bool], Event]] = {
    "task_run": _task_run,
    "flow_run": _flow_run,
    "flow": _flow,
    "deployment": _deployment,
}

"""The demo's estate is the same at any time asked, valid, varied, and as busy as promised."""

import functools
import json
from collections import Counter

import pytest

from runtally.simulate import estate, play
from runtally.simulate.play import Message, Player
from runtally.simulate.runs import LEAD_US, LIFE_US, RUNS_A_SLOT, SLOT_US, Run, runs

NOW = 1_795_522_933_123_456
_HOUR_US = 3_600_000_000
_MINUTE_US = 60_000_000
_DEMO = estate.make(7)


@functools.cache
def _slot(number: int) -> list[Run]:
    return list(runs(_DEMO, number))


@pytest.fixture(autouse=True)
def _slots_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot is a pure function of the estate, and every player wants the three hours before."""
    monkeypatch.setattr(play, "runs", lambda _, number: _slot(number))


def _player() -> Player:
    return Player(_DEMO, "runs", "catalog")


def _latest(messages: list[Message]) -> dict[str, Message]:
    """The newest message of each run, by its id."""
    found: dict[str, Message] = {}
    for message in messages:
        event = json.loads(message[2])
        before = found.get(event["data"]["id"])
        if before is None or json.loads(before[2])["occurred"] <= event["occurred"]:
            found[event["data"]["id"]] = message
    return found


def _live(player: Player, start: int, end: int, most: int = 1000) -> list[Message]:
    return [message for now in range(start, end, 250_000) for message in player.due(now, most)]


def test_a_slot_is_a_pure_function_of_seed_and_time() -> None:
    slot = NOW // SLOT_US
    assert list(runs(estate.make(7), slot)) == list(runs(estate.make(7), slot))
    assert list(runs(estate.make(7), slot)) != list(runs(estate.make(8), slot))


def test_steps_are_in_order_and_stay_near_their_slot() -> None:
    for slot in range(NOW // SLOT_US - 1000, NOW // SLOT_US):
        found = _slot(slot)
        assert len(found) == RUNS_A_SLOT
        for run in found:
            at = [step.at for step in run.steps]
            assert at == sorted(at)
            assert at[0] >= slot * SLOT_US - LEAD_US
            assert at[-1] <= slot * SLOT_US + LIFE_US


def test_a_day_is_at_most_260000_snapshots_and_about_twenty_events_a_second() -> None:
    assert RUNS_A_SLOT * 86_400_000_000 // SLOT_US < 255_000
    slots = range(NOW // SLOT_US - 500, NOW // SLOT_US)
    steps = sum(len(run.steps) for slot in slots for run in _slot(slot))
    assert 6 < steps / (len(slots) * SLOT_US / 1_000_000) < 14


def test_the_estate_has_everything_that_an_estate_has() -> None:
    states: Counter[tuple[str, str, str]] = Counter()
    flags: Counter[str] = Counter()
    for slot in range(NOW // SLOT_US - 3000, NOW // SLOT_US):
        for run in _slot(slot):
            for step in run.steps:
                states[run.entity, step.state_type, step.state_name] += 1
            last = run.steps[-1]
            flags["without a flow run"] += run.entity == "task_run" and run.data["flow_run_id"] is None
            flags["stands for a subflow"] += "child_flow_run_id" in run.data
            flags["subflow"] += "parent_task_run_id" in run.data
            flags["never started"] += last.start is None and last.end is None
            flags["without deployment"] += run.entity == "flow_run" and "deployment_id" not in run.data
    for expected in (
        *(("task_run", "SCHEDULED", name) for name in ("Scheduled", "Late", "AwaitingRetry")),
        *(("task_run", "COMPLETED", name) for name in ("Completed", "Cached", "Skipped", "Delivered")),
        *(("task_run", "FAILED", name) for name in ("Failed", "TimedOut", "BelowQualityGate")),
        ("task_run", "RUNNING", "Retrying"),
        ("task_run", "CRASHED", "Crashed"),
        ("task_run", "CANCELLED", "Cancelled"),
        ("flow_run", "CRASHED", "Crashed"),
        ("flow_run", "CANCELLING", "Cancelling"),
        ("flow_run", "SCHEDULED", "Late"),
    ):
        assert states[expected] > 0, expected
    assert len(flags) == 5
    assert all(flags.values()), flags


def test_live_steps_end_where_a_snapshot_of_the_past_would() -> None:
    later = NOW + 20 * _MINUTE_US
    player = _player()
    followed = [message for part in player.catch_up(NOW - _HOUR_US, NOW) for message in part]
    followed += _live(player, NOW, later + 250_000)
    told = [message for part in _player().catch_up(NOW - _HOUR_US, later) for message in part]
    assert _latest(followed) == _latest(told)


def test_a_second_player_goes_on_where_the_first_stopped() -> None:
    first = _player()
    known = [message for part in first.catch_up(NOW - _HOUR_US, NOW) for message in part]
    known += _live(first, NOW, NOW + 5 * _MINUTE_US)
    later = NOW + 30 * _MINUTE_US
    gap = [message for part in _player().catch_up(first.until, later) for message in part]
    told = [message for part in _player().catch_up(NOW - _HOUR_US, later) for message in part]
    assert len(gap) < len(told) / 2
    assert _latest(known + gap) == _latest(told)


def test_what_is_over_the_rate_waits_and_is_not_lost() -> None:
    player = _player()
    for _ in player.catch_up(NOW, NOW):
        pass
    later = NOW + 2 * _MINUTE_US
    slow: list[Message] = []
    while player.until < later:
        part = player.due(later, 5)
        assert len(part) <= 5
        slow += part
    other = _player()
    for _ in other.catch_up(NOW, NOW):
        pass
    assert slow == _live(other, later, later + 1, most=10_000)


def test_the_catalog_is_told_with_the_same_words_each_time() -> None:
    assert _player().catalog() == _player().catalog()
    assert {json.loads(value)["entity"] for _, _, value in _player().catalog()} == {"flow", "deployment"}

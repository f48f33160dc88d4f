"""The model: a log, and whatever may happen between it, Redis, workers, commands and answers; in this process, with a
clock of its own and a real Valkey.

These are the rules: what may happen, in any order. What each of them does and checks is told in `tests/model`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from runtally.settings import Settings

from .api.test_rollups_answer import from_raw
from .conftest import LONG, in_parts
from .model.log import PARTITIONS, RUNS_SHARDS, SHARDS
from .model.snapshot import NODES
from .model.world import COMMANDS, WORKERS, World
from .strategies.hostile import Play, plays

_PARTS = 4
MINUTE_US = 60_000_000

workers = st.integers(0, WORKERS - 1)
shards = st.sampled_from(SHARDS)
runs_shards = st.sampled_from(RUNS_SHARDS)
commands = st.integers(0, COMMANDS - 1)
sizes = st.sampled_from([1, 2, 5, 20])
forms = st.sampled_from(["cells", "raw", "count"])
fuses = st.sampled_from([None, None, None, 0, 1, 2])


class Model(RuleBasedStateMachine):
    """One example: everything that happens to one estate."""

    server: Settings
    forgets = False

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._held: list[dict[str, Any]] = []
        self._questions: list[tuple[dict[str, Any], int]] = []
        self._run(self._start())

    async def _start(self) -> None:
        self._world = World(self.server, forgets=self.forgets)
        await self._world.start()
        self._log = self._world.log

    def _run(self, work: Coroutine[Any, Any, Any]) -> None:
        self._runner.run(work)

    def teardown(self) -> None:
        """Whatever happened, when all has been applied the cells are right, and all answers."""
        self._run(self._world.end(self._questions))
        self._runner.close()

    # -- the log

    @initialize(play=plays(120, 24), much=st.booleans())
    def begin(self, play: Play, much: bool) -> None:
        """What there is to tell and to ask, and whether that is much."""
        if much:
            self._world.take_few_for_many()
        self._coming = [*play.events]
        self._questions = play.questions

    @precondition(lambda self: self._coming)
    @rule(count=st.integers(1, 12))
    def emit(self, count: int) -> None:
        """A producer tells the next events."""
        events, self._coming = self._coming[:count], self._coming[count:]
        self._log.append(events)

    @precondition(lambda self: self._coming)
    @rule()
    def hold_back(self) -> None:
        """An event will come later than those after it."""
        self._held.append(self._coming.pop(0))

    @precondition(lambda self: self._held)
    @rule()
    def come_late(self) -> None:
        """What was held back comes."""
        held, self._held = self._held, []
        self._log.append(held)

    @precondition(lambda self: self._log.told)
    @rule(dice=st.randoms(use_true_random=False), count=st.integers(1, 8))
    def duplicate(self, dice: Any, count: int) -> None:
        """A producer that was in doubt tells some again, in any order."""
        self._log.append(dice.choices(self._log.told, k=count))

    @rule(name=shards)
    def append_nothing(self, name: str) -> None:
        """A record that says nothing to us."""
        self._log.append_nothing(name)

    @rule(minutes=st.sampled_from([1, 60, 1440]))
    def wait(self, minutes: int) -> None:
        """Time passes."""
        self._log.now_us += minutes * MINUTE_US

    # -- workers

    @rule(worker=workers, name=shards)
    def take_over(self, worker: int, name: str) -> None:
        self._run(self._world.take_over(worker, name))

    @rule(worker=workers, name=shards)
    def end_worker(self, worker: int, name: str) -> None:
        self._run(self._world.replace(worker, name))

    @rule(worker=workers, name=shards, size=sizes)
    def apply(self, worker: int, name: str, size: int) -> None:
        self._run(self._world.apply(worker, name, size))

    @rule(worker=workers, name=shards, size=sizes, shift=st.sampled_from([-7, -1, 1]))
    def deliver_wrongly(self, worker: int, name: str, size: int, shift: int) -> None:
        self._run(self._world.deliver_wrongly(worker, name, size, shift))

    @rule(size=sizes)
    def catch_up(self, size: int) -> None:
        self._run(self._world.catch_up(size))

    @rule(worker=workers, name=shards, size=sizes, committed=st.booleans(), dies=st.booleans())
    def lose_outcome(self, worker: int, name: str, size: int, committed: bool, dies: bool) -> None:
        self._run(self._world.lose_outcome(worker, name, size, committed=committed, dies=dies))

    @rule(workers=st.permutations(range(WORKERS)), name=shards, size=sizes, trips=st.integers(0, 6), more=st.booleans())
    def overtake(self, workers: list[int], name: str, size: int, trips: int, more: bool) -> None:
        self._run(self._world.overtake(workers[0], workers[1], name, size, trips, more=more))

    @rule(worker=workers, name=shards)
    def pulse(self, worker: int, name: str) -> None:
        self._run(self._world.pulse(worker, name))

    @rule(name=runs_shards)
    def ask_for_rebuild(self, name: str) -> None:
        self._run(self._world.ask_for_rebuild(name))

    @rule(worker=workers, name=runs_shards, steps=st.integers(1, 4))
    def rebuild(self, worker: int, name: str, steps: int) -> None:
        self._run(self._world.rebuild(worker, name, steps))

    # -- Redis

    @rule()
    def keep(self) -> None:
        self._run(self._world.keep())

    @rule(node=st.sampled_from(NODES))
    def roll_back(self, node: str | None) -> None:
        self._run(self._world.roll_back(node))

    @rule()
    def flush(self) -> None:
        self._run(self._world.flush())

    # -- all data anew from the log

    @rule(number=commands, steps=st.sampled_from([1, 2, 5, 100, 100]), fuse=fuses)
    def rebuild_from_log(self, number: int, steps: int, fuse: int | None) -> None:
        """A command begins or goes on, at most so far, and may crash."""
        self._run(self._world.rebuild_from_log(number, steps, fuse))

    @rule(number=commands)
    def end_rebuild_from_log(self, number: int) -> None:
        self._run(self._world.end_command(number))

    # -- answers

    @precondition(lambda self: self._questions)
    @rule(dice=st.randoms(use_true_random=False), forms=st.lists(forms, min_size=1, max_size=4))
    def ask(self, dice: Any, forms: list[str]) -> None:
        """Anybody asks anything."""
        for form in forms:
            body, now = dice.choice(self._questions)
            if form == "raw":
                body = from_raw(body) or body
            self._run(self._world.ask(body, now, form))

    @precondition(lambda self: self._questions and self._coming)
    @rule(count=st.integers(1, 12), size=sizes, number=st.integers(0, 23))
    def emit_and_ask(self, count: int, size: int, number: int) -> None:
        """The ordinary course of things."""
        self.emit(count)
        self.catch_up(size)
        self._run(self._world.ask(*self._questions[number % len(self._questions)], "cells"))


class Expiring(Model):
    """The same with retentions, and days that pass: shards forget, each by its own log. What is left has to be what one
    worker leaves without a fault, down to the index."""

    forgets = True

    @rule(days=st.sampled_from([1, 9, 12, 30, 45]))
    def wait_for_days(self, days: int) -> None:
        """Something becomes too old."""
        self.wait(days * 1440)

    @rule(worker=workers, name=runs_shards, steps=st.integers(1, 3))
    def expire(self, worker: int, name: str, steps: int) -> None:
        self._run(self._world.expire(worker, name, steps))


@pytest.mark.property
@pytest.mark.timeout(1200)
@in_parts(_PARTS)
def test_whatever_happens_an_answer_is_the_references_on_the_log_that_the_ledger_names(valkey: str) -> None:
    _play(
        Model,
        Settings(
            redis_url=valkey, redis_prefix="model", max_staleness=0, raw_retention="never", rollup_retention="never"
        ),
    )


@pytest.mark.property
@pytest.mark.timeout(1200)
def test_whatever_happens_what_is_left_is_what_one_worker_leaves(valkey: str) -> None:
    _play(
        Expiring,
        Settings(redis_url=valkey, redis_prefix="model", max_staleness=0, raw_retention="10d", rollup_retention="40d"),
    )


def _play(machine: type[Model], settings: Settings) -> None:
    class Here(machine):  # type: ignore[valid-type, misc]
        server = settings.model_copy(update={"partitions": PARTITIONS})

    run_state_machine_as_test(
        Here,
        settings=hypothesis.settings(
            max_examples=LONG * (32 if machine.forgets else 96) // _PARTS or (3 if machine.forgets else 8),
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=[*hypothesis.HealthCheck],
        ),
    )

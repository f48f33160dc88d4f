"""The model: a log, and whatever may happen between it, Redis, workers and answers; in this process, with a clock of
its own and a real Valkey.

The log is a list for each shard. Several workers may hold a shard at the same time, most of them wrongly so. A write
has to succeed exactly when the ledger is as the writer left it, and whatever is answered has to be what the reference
makes of the log up to the offsets that the answer names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from redis.asyncio import Redis

from runtally.core.changes import Change
from runtally.errors import BadRequestError, FencedError, NotReadyError, ServerLostError
from runtally.events.partition import Partitioner
from runtally.ops.verify import verify
from runtally.settings import Settings
from runtally.store.catalog import CatalogShard
from runtally.store.fence import Batch
from runtally.store.keys import CATALOG, Keys
from runtally.store.ledger import GENERATION, LogEnds, Mark
from runtally.store.link import Link
from runtally.store.rebuild import Request
from runtally.store.runs import RunsShard
from runtally.store.shard import shard

from .api.living import asked, check_count, check_history, counted, living
from .api.test_rollups_answer import from_raw
from .chaos.shadow import contents, differences
from .conftest import LONG, in_parts
from .reference import Reference
from .store.estate import changes_of
from .strategies.hostile import Play, plays
from .strategies.pools import BASE_US

Event = dict[str, Any]
Stand = tuple[str, int, int]
"""Epoch, seq and next offset of a ledger."""

_PARTS = 4
PARTITIONS = 2
WORKERS = 3
SHARDS = [*map(str, range(PARTITIONS)), CATALOG]
RUNS_SHARDS = SHARDS[:-1]
DAY_US = 86_400_000_000

workers = st.integers(0, WORKERS - 1)
shards = st.sampled_from(SHARDS)
sizes = st.sampled_from([1, 2, 5, 20])
forms = st.sampled_from(["cells", "raw", "count"])


class Entry(NamedTuple):
    """A record of the log. Without an event: one that is bad, ignored, or of the broker's own."""

    event: Event | None
    change: Change | None
    record_us: int


@dataclass(slots=True)
class Holder:
    """A worker's hold on a shard. `left`: the ledger as it left it; None: it has to open the shard first."""

    shard: RunsShard | CatalogShard
    left: Stand | None = None


class CrashError(Exception):
    """The process ends here."""


@dataclass(slots=True)
class Snapshot:
    """All that Redis held once."""

    keys: dict[bytes, bytes] = field(default_factory=dict)


class Model(RuleBasedStateMachine):
    """One example: everything that happens to one estate."""

    server: Settings
    expires = False

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._run(self._start())

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(work)

    async def _start(self) -> None:
        settings = self.server
        self._redis = Redis.from_url(settings.redis_url, protocol=2)
        await self._redis.flushall()
        self._link = Link(self._redis)
        self._partition_of = Partitioner(PARTITIONS)
        self._log: dict[str, list[Entry]] = {name: [] for name in SHARDS}
        self._now = BASE_US
        self._held: list[Event] = []
        self._holders = {(worker, name): Holder(self._new(name)) for worker in range(WORKERS) for name in SHARDS}
        self._snapshot = Snapshot()
        self._questions: list[tuple[dict[str, Any], int]] = []
        for name in SHARDS:
            await self._open(self._holders[0, name])
        self._living = living(settings)
        self._service = await self._living.__aenter__()

    def teardown(self) -> None:
        """Whatever happened, when all has been applied the cells are right, and all answers."""
        self._run(self._end())
        self._runner.close()

    async def _end(self) -> None:
        try:
            await self._catch_up()
            found = await verify(self.server, None, lambda done, total: None)
            assert found.same, found.named
            for name in SHARDS:
                assert not await self._differences(name)
            for number, (body, now) in enumerate(self._questions):
                await self._ask(body, now, ("cells", "count")[number % 2])
        finally:
            await self._living.__aexit__(None, None, None)
            for holder in self._holders.values():
                await holder.shard.close()
            await self._link.close()
            await self._redis.aclose()

    # -- the log

    @initialize(play=plays(120, 24))
    def begin(self, play: Play) -> None:
        """What there is to tell and to ask."""
        self._coming = [*play.events]
        self._questions = play.questions
        self._told: list[Event] = []

    @precondition(lambda self: self._coming)
    @rule(count=st.integers(1, 12))
    def emit(self, count: int) -> None:
        """A producer tells the next events."""
        events, self._coming = self._coming[:count], self._coming[count:]
        self._append(events)

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
        self._append(held)

    @precondition(lambda self: self._told)
    @rule(dice=st.randoms(use_true_random=False), count=st.integers(1, 8))
    def duplicate(self, dice: Any, count: int) -> None:
        """A producer that was in doubt tells some again, in any order."""
        self._append(dice.choices(self._told, k=count))

    @rule(name=shards)
    def append_nothing(self, name: str) -> None:
        """A record that says nothing to us."""
        self._log[name].append(Entry(None, None, self._now))

    @rule(minutes=st.sampled_from([1, 60, 1440]))
    def wait(self, minutes: int) -> None:
        """Time passes."""
        self._now += minutes * 60_000_000

    def _append(self, events: list[Event]) -> None:
        for event in events:
            for topic in ("runs", "catalog"):
                for change in changes_of([event], topic):
                    name = CATALOG if topic == "catalog" else str(self._partition_of(change))
                    self._log[name].append(Entry(event, change, self._now))
                    self._told.append(event)

    # -- workers

    @rule(worker=workers, name=shards)
    def take_over(self, worker: int, name: str) -> None:
        """A rebalance, or a worker that looks again: from now on only this one may write."""
        self._run(self._open(self._holders[worker, name]))

    @rule(worker=workers, name=shards)
    def end_worker(self, worker: int, name: str) -> None:
        """A process ends and another one begins in its place, which knows nothing."""
        self._run(self._replace(worker, name))

    @rule(worker=workers, name=shards, size=sizes)
    def apply(self, worker: int, name: str, size: int) -> None:
        """Commit a batch; a zombie is refused, and has changed nothing."""
        self._run(self._apply(self._holders[worker, name], name, size))

    @rule(worker=workers, name=shards, size=sizes, shift=st.sampled_from([-7, -1, 1]))
    def deliver_wrongly(self, worker: int, name: str, size: int, shift: int) -> None:
        """A batch comes once more, or one before it went missing: it is refused."""
        self._run(self._deliver_wrongly(self._holders[worker, name], name, size, shift))

    @rule(size=sizes)
    def catch_up(self, size: int) -> None:
        """Everything that is in the log is applied."""
        self._run(self._catch_up(size))

    @rule(worker=workers, name=shards, size=sizes, committed=st.booleans(), dies=st.booleans())
    def lose_outcome(self, worker: int, name: str, size: int, committed: bool, dies: bool) -> None:
        """Redis goes away during a commit, before or after it was done; or the worker does."""
        self._run(self._lose_outcome(worker, name, size, committed, dies))

    @rule(workers=st.permutations(range(WORKERS)), name=shards, size=sizes, more=st.booleans())
    def overtake(self, workers: list[int], name: str, size: int, more: bool) -> None:
        """Another worker takes the shard between this one's reads and its commit."""
        slow, quick = (self._holders[worker, name] for worker in workers[:2])
        self._run(self._overtake(slow, quick, name, size, more))

    @rule(worker=workers, name=shards)
    def pulse(self, worker: int, name: str) -> None:
        """A worker sees whether the ledger is as it left it."""
        self._run(self._pulse(self._holders[worker, name], name))

    async def _open(self, holder: Holder) -> None:
        name = holder.shard.name
        log = self._log[name]

        async def record(offset: int) -> Mark:
            return _mark(offset, log[offset])

        before = await self._stand(name)
        at = await holder.shard.open(LogEnds(0, len(log), 1 if name == CATALOG else PARTITIONS, record))
        assert at == (0 if before is None else before[2])
        holder.left = await self._stand(name)

    def _new(self, name: str) -> RunsShard | CatalogShard:
        if name == CATALOG:
            return CatalogShard(self._redis, self.server)
        return RunsShard(self._redis, self.server, int(name))

    async def _replace(self, worker: int, name: str) -> None:
        await self._holders[worker, name].shard.close()
        self._holders[worker, name] = Holder(self._new(name))

    def _batch(self, name: str, begin: int, size: int) -> Batch | None:
        """The next records of one day, as a lane cuts them."""
        waiting = self._log[name][begin : begin + size]
        if not waiting:
            return None
        today = waiting[0].record_us // DAY_US
        entries = [entry for entry in waiting if entry.record_us // DAY_US == today]
        changes = [entry.change for entry in entries if entry.change is not None]
        after = begin + len(entries)
        return Batch(begin, after, changes, _mark(after - 1, entries[-1]), max(entry.record_us for entry in entries))

    async def _apply(self, holder: Holder, name: str, size: int) -> None:
        if holder.left is None:
            await self._open(holder)
        left = holder.left
        assert left is not None
        batch = self._batch(name, left[2], size)
        if batch is None:
            return
        before = await self._stand(name)
        if before == left:
            await holder.shard.apply(batch)
            holder.left = await self._stand(name)
            assert holder.left is not None
            assert (holder.left[0], holder.left[2]) == (left[0], batch.next_offset)
            assert holder.left[1] > left[1]
        else:
            with pytest.raises(FencedError):
                await holder.shard.apply(batch)
            holder.left = None
            assert await self._stand(name) == before

    async def _differences(self, name: str) -> list[str]:
        """How a shard differs from what one worker makes of the same log without a fault."""
        settings = self.server.model_copy(update={"redis_prefix": f"{self.server.redis_prefix}-clean"})
        clean = shard(self._redis, settings, name, GENERATION)
        try:
            await clean.open(LogEnds(0, 0, 1 if name == CATALOG else PARTITIONS, _nothing))
            while (batch := self._batch(name, clean.next_offset, 7)) is not None:
                await clean.apply(batch)
        finally:
            await clean.close()
        have = await contents(self._redis, self.server, name)
        return differences(have, await contents(self._redis, settings, name))

    async def _deliver_wrongly(self, holder: Holder, name: str, size: int, shift: int) -> None:
        if holder.left is None:
            await self._open(holder)
        assert holder.left is not None
        batch = self._batch(name, max(0, holder.left[2] + shift), size)
        if batch is None or batch.first_offset == holder.left[2]:
            return
        before = await self._stand(name)
        with pytest.raises(FencedError):
            await holder.shard.apply(batch)
        holder.left = None
        assert await self._stand(name) == before

    async def _catch_up(self, size: int = 50) -> None:
        for name, log in self._log.items():
            owner = self._holders[0, name]
            while owner.left is None or owner.left != await self._stand(name):
                await self._open(owner)
            while owner.left[2] < len(log):
                await self._apply(owner, name, size)

    async def _lose_outcome(self, worker: int, name: str, size: int, committed: bool, dies: bool) -> None:
        holder = self._holders[worker, name]
        if holder.left is None or holder.left != await self._stand(name):
            await self._open(holder)
        assert holder.left is not None
        batch = self._batch(name, holder.left[2], size)
        if batch is None:
            return
        fence = holder.shard._fence
        commit = fence.commit

        async def interrupted(*arguments: Any) -> None:
            if committed:
                await commit(*arguments)
            raise CrashError if dies else ServerLostError("Redis is away")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fence, "commit", interrupted)
            with pytest.raises((CrashError, ServerLostError)):
                await holder.shard.apply(batch)
        holder.left = None
        if dies:
            await self._replace(worker, name)

    async def _overtake(self, slow: Holder, quick: Holder, name: str, size: int, more: bool) -> None:
        if slow.left is None or slow.left != await self._stand(name):
            await self._open(slow)
        assert slow.left is not None
        batch = self._batch(name, slow.left[2], size)
        if batch is None:
            return
        fence = slow.shard._fence
        commit = fence.commit

        async def overtaken(*arguments: Any) -> None:
            await self._open(quick)
            if more:
                await self._apply(quick, name, size)
            await commit(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fence, "commit", overtaken)
            with pytest.raises(FencedError):
                await slow.shard.apply(batch)
        slow.left = None

    async def _pulse(self, holder: Holder, name: str) -> None:
        if holder.left is None:
            return
        before = await self._stand(name)
        position = holder.left[2] if holder.left[2] == len(self._log[name]) else None
        same = await holder.shard.pulse(position)
        assert same is (before == holder.left)
        holder.left = await self._stand(name) if same else None

    # -- Redis

    @rule()
    def keep(self) -> None:
        """Remember what Redis holds."""
        self._run(self._keep())

    @rule(name=st.sampled_from([None, *SHARDS]))
    def roll_back(self, name: str | None) -> None:
        """Redis, or what one of its nodes held, is what it was when it was last remembered."""
        self._run(self._roll_back(name))

    @rule()
    def flush(self) -> None:
        """Redis is emptied."""
        self._run(self._redis.flushall())

    async def _keep(self) -> None:
        self._snapshot = Snapshot({key: await self._redis.dump(key) async for key in self._redis.scan_iter(count=1000)})

    async def _roll_back(self, name: str | None) -> None:
        root = b"" if name is None else Keys(self.server.redis_prefix, GENERATION, name).root
        held = [key async for key in self._redis.scan_iter(count=1000) if key.startswith(root)]
        if held:
            await self._redis.delete(*held)
        for key, value in self._snapshot.keys.items():
            if key.startswith(root):
                await self._redis.restore(key, 0, value, replace=True)

    async def _stand(self, name: str) -> Stand | None:
        key = Keys(self.server.redis_prefix, GENERATION, name).ledger
        epoch, seq, next_ = await self._redis.hmget(key, "epoch", "seq", "next")
        return None if epoch is None else (epoch.decode(), int(seq), int(next_))

    # -- rebuilding

    @rule(name=st.sampled_from(RUNS_SHARDS))
    def ask_for_rebuild(self, name: str) -> None:
        """Somebody asks for a shard's cells to be made anew."""
        self._run(Request(self._link, self.server, name).ask())

    @rule(worker=workers, name=st.sampled_from(RUNS_SHARDS), steps=st.integers(1, 4))
    def rebuild(self, worker: int, name: str, steps: int) -> None:
        """A worker does some days of it; a zombie is refused."""
        for _ in range(steps):
            self._run(self._rebuild(self._holders[worker, name], name))

    async def _rebuild(self, holder: Holder, name: str) -> None:
        if holder.left is None:
            await self._open(holder)
        before = await self._stand(name)
        left = holder.left
        assert left is not None
        if before == left:
            done = await holder.shard.step()
            holder.left = await self._stand(name)
            assert holder.left == (left[0], left[1] + done, left[2])
            return
        try:
            assert not await holder.shard.step(), "a zombie has done a step"
        except FencedError:
            holder.left = None
        assert await self._stand(name) == before

    # -- answers

    @precondition(lambda self: self._questions)
    @rule(dice=st.randoms(use_true_random=False), forms=st.lists(forms, min_size=1, max_size=4))
    def ask(self, dice: Any, forms: list[str]) -> None:
        """An answer is what the reference makes of the log up to where the ledgers are; or there is none."""
        for form in forms:
            body, now = dice.choice(self._questions)
            if form == "raw":
                body = from_raw(body) or body
            self._run(self._ask(body, now, form))

    @precondition(lambda self: self._questions and self._coming)
    @rule(count=st.integers(1, 12), size=sizes, number=st.integers(0, 23))
    def emit_and_ask(self, count: int, size: int, number: int) -> None:
        """The ordinary course of things."""
        self.emit(count)
        self.catch_up(size)
        self._run(self._ask(*self._questions[number % len(self._questions)], "cells"))

    def _reference(self, ledger: dict[str, int]) -> Reference | None:
        """What is true where the ledgers are; None where a reference of all shards cannot tell."""
        reference = Reference()
        for name, after in ledger.items():
            for entry in self._log[name][:after]:
                if entry.event is not None:
                    reference.apply(entry.event)
        return reference

    async def _ask(self, body: dict[str, Any], now: int, form: str) -> None:
        stands = {name: await self._stand(name) for name in SHARDS}
        ledger = {name: stand[2] for name, stand in stands.items() if stand is not None}
        try:
            answer: Any = await (counted if form == "count" else asked)(self._service, body, now)
        except NotReadyError:
            assert len(ledger) < len(SHARDS), "there was an answer"
            return
        except BadRequestError as error:
            if self.expires and "RUNTALLY_RAW_RETENTION" in str(error):
                return
            raise
        assert answer.stand.ledger == ledger
        reference = self._reference(ledger)
        if reference is None:
            return
        if form == "count":
            check_count(answer, reference, body)
        else:
            check_history(answer, reference, body, now)


def _mark(offset: int, entry: Entry) -> Mark:
    return Mark(offset, entry.record_us // 1000, 0)


async def _nothing(offset: int) -> Mark | None:
    raise AssertionError(offset)


class Expiring(Model):
    """The same with retentions, and days that pass: shards forget, each by its own log. What is left has to be what one
    worker leaves without a fault, down to the index."""

    expires = True

    @rule(days=st.sampled_from([1, 9, 12, 30, 45]))
    def wait_for_days(self, days: int) -> None:
        """Something becomes too old."""
        self._now += days * DAY_US

    @rule(worker=workers, name=st.sampled_from(RUNS_SHARDS), steps=st.integers(1, 3))
    def expire(self, worker: int, name: str, steps: int) -> None:
        """A worker begins to put away what is old, and may not come to the end; a zombie is refused."""
        self._run(self._expire(self._holders[worker, name], name, steps))

    async def _expire(self, holder: Holder, name: str, steps: int) -> None:
        if holder.left is None:
            await self._open(holder)
        assert holder.left is not None
        assert isinstance(holder.shard, RunsShard)
        batch = self._batch(name, holder.left[2], 1)
        if batch is None:
            return
        before = await self._stand(name)
        same = before == holder.left
        try:
            for _ in range(steps):
                await holder.shard.expire(batch.watermark_us)
        except FencedError:
            assert not same
            holder.left = None
        else:
            holder.left = await self._stand(name) if same else holder.left
        if not same:
            assert await self._stand(name) == before

    def _reference(self, ledger: dict[str, int]) -> Reference | None:
        return None


@pytest.mark.property
@pytest.mark.timeout(1200)
@in_parts(_PARTS)
def test_whatever_happens_an_answer_is_the_references_on_the_log_that_the_ledger_names(valkey: str) -> None:
    _play(Model, Settings(redis_url=valkey, redis_prefix="model", raw_retention="never", rollup_retention="never"))


@pytest.mark.property
@pytest.mark.timeout(1200)
def test_whatever_happens_what_is_left_is_what_one_worker_leaves(valkey: str) -> None:
    _play(Expiring, Settings(redis_url=valkey, redis_prefix="model", raw_retention="10d", rollup_retention="40d"))


def _play(machine: type[Model], settings: Settings) -> None:
    class Here(machine):  # type: ignore[valid-type, misc]
        server = settings.model_copy(update={"partitions": PARTITIONS})

    run_state_machine_as_test(
        Here,
        settings=hypothesis.settings(
            max_examples=LONG * (32 if machine.expires else 96) // _PARTS or (3 if machine.expires else 8),
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=[*hypothesis.HealthCheck],
        ),
    )

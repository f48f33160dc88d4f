"""A flow run with very many task runs moves or goes at once, and holds nobody up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from runtally.core.bins import Bins
from runtally.core.changes import FLOW_RUN, TASK_RUN, Change
from runtally.core.levels import DAY_US
from runtally.errors import FencedError
from runtally.settings import Settings
from runtally.store import aside, edit, rollups
from runtally.store.fence import Batch
from runtally.store.ledger import GENERATION, Mark
from runtally.store.records import flow_run_of
from runtally.store.view import View
from tests.conftest import HUGE, SettingsFactory

from .estate import Estate, log
from .owners import orphans

OTHERS = 100
MOST_S = 0.3
START_US = 1_790_000_000_000_000
OWNER = bytes(15) + b"f"
OTHER = bytes(15) + b"o"


def task_runs(
    first: int, last: int, owner: bytes | None = OWNER, base: int = 0, step: int = 1, every_us: int = 100_000
) -> list[Change]:
    """Ended runs, one after the other, or each so many of them."""
    found = []
    for number in range(first, last, step):
        at = START_US + number * every_us
        values = (("COMPLETED", "Completed", at), at, at + 5, 5, "task", ("a",), at, None)
        own_id = (base + number).to_bytes(16, "big")
        found.append(Change("task_run", "upsert", own_id, owner, at, TASK_RUN.all_given, values))
    return found


def flow_run(minute: int, tags: tuple[str, ...], action: str = "upsert") -> Change:
    values = [None] * len(FLOW_RUN.fields)
    values[FLOW_RUN.fields.index("tags")] = tags
    given = FLOW_RUN.all_given if action == "upsert" else 0
    return Change("flow_run", action, OWNER, None, START_US + minute * 60_000_000, given, tuple(values))  # type: ignore[arg-type]


class Gaps:
    """The longest time that the event loop worked without a pause: of this thread's own time, since others share the
    machine."""

    loop_s = 0.0


@asynccontextmanager
async def gaps() -> AsyncIterator[Gaps]:
    found = Gaps()

    async def watch() -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0.005)
            found.loop_s = max(found.loop_s, time.thread_time() - began)

    watching = asyncio.create_task(watch())
    try:
        yield found
    finally:
        watching.cancel()


class Large:
    """A shard with a flow run of very many task runs, and others at the same times."""

    def __init__(self, redis: Redis, own: Settings, members: int = 0, span_us: int = 0) -> None:
        self.redis = redis
        self.members = members
        self.every_us = span_us // max(members, 1)
        self.prefix = own.redis_prefix
        self.estate = Estate(redis, own, partitions=1)
        self.shard = self.estate.runs[0]
        self.offset = 0

    async def fill(self) -> None:
        await self.estate.open()
        await self.apply([flow_run(0, ("x",))])
        for first in range(0, self.members, 4_000):
            await self.apply(task_runs(first, min(self.members, first + 4_000), every_us=self.every_us))
        for others, owner in ((1 << 64, OTHER), (2 << 64, None)):
            await self.apply(task_runs(0, self.members, owner, others, self.members // OTHERS, self.every_us))

    async def apply(self, changes: list[Change]) -> None:
        after = self.offset + len(changes)
        await self.shard.apply(Batch(self.offset, after, changes, Mark(after - 1, 0, 0), 0))
        self.offset = after

    async def apply_flow_run(self, change: Change) -> None:
        """Without holding anybody up."""
        await self.redis.config_set("latency-monitor-threshold", 1)
        await self.redis.execute_command("LATENCY", "RESET")
        async with gaps() as found:
            began = time.monotonic()
            await self.apply([change])
            took_s = time.monotonic() - began
        longest = [line for line in await self.redis.execute_command("LATENCY", "LATEST") if b"command" in line[0]]
        redis_s = max((line[3] for line in longest), default=0) / 1000
        print(f"{self.members:,} members, {change.action}: {took_s:.2f} s, gaps {found.loop_s:.3f} {redis_s:.3f} s")
        assert max(found.loop_s, redis_s) < MOST_S

    async def raw(self) -> dict[bytes, bytes]:
        keys = await self.redis.keys(f"{self.prefix}:*:raw:*")
        async with self.redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.ttl(key)
                pipeline.hgetall(key)
            replies = await pipeline.execute()
        assert {*replies[::2]} <= {-1}
        return {run: record for of_bucket in replies[1::2] for run, record in of_bucket.items()}

    async def runs(self) -> int:
        """How many all of it says there are: who has read along answers as who begins."""
        bins = Bins(START_US - START_US % DAY_US, DAY_US // 4, 40 * 4)
        now = START_US + 400 * DAY_US
        answer = await self.estate.history(bins, now)
        along, self.estate.views = self.estate.views, [View(self.prefix, GENERATION, "0", 1 << 26)]
        assert await self.estate.history(bins, now) == answer
        self.estate.views = along
        return sum(count for states in answer for count, _, _ in states.values())

    async def is_sound(self) -> bool:
        whole = HUGE or await self.estate.cell_differences() == []
        return whole and await orphans(self.redis, self.prefix, "0") == []


HALF_A_DAY = pytest.param((DAY_US // 2, 3_000, 1_000), id="half-a-day")
A_MONTH = pytest.param((30 * DAY_US, 300, 250), id="a-month")


@pytest.fixture(params=[HALF_A_DAY, A_MONTH])
async def large(
    request: pytest.FixtureRequest, settings: SettingsFactory, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Large]:
    """Its members are spread over half a day or a month; few of them are taken for very many."""
    span_us, members, most_touched = request.param
    if HUGE:
        members = 500_000
    else:
        monkeypatch.setattr(aside, "AT_ONCE", members // 4)
        # Of half a day's minutes readers are told.
        monkeypatch.setattr(edit, "MOST_TOUCHED", most_touched)
        monkeypatch.setattr(rollups, "STRETCH", 200)
    own = settings(kafka="127.0.0.1:1", worker_memory=64 << 20, partitions=1)
    async with Redis.from_url(own.redis_url, protocol=2) as redis:
        found = Large(redis, own, members, span_us)
        await found.fill()
        yield found
        await found.estate.close()


@pytest.mark.timeout(600)
async def test_a_flow_run_with_very_many_task_runs_moves_and_goes_without_holding_others_up(large: Large) -> None:
    before = await large.raw()
    stay = {run: record for run, record in before.items() if flow_run_of(record) != OWNER}
    assert await large.runs() == len(before)
    await large.apply_flow_run(flow_run(1, ("y",)))
    assert await large.raw() == before
    assert await large.runs() == len(before)
    assert await large.is_sound()
    await large.apply_flow_run(flow_run(2, (), "delete"))
    assert await large.raw() == stay
    assert await large.runs() == len(stay)
    assert await large.is_sound()
    assert await large.redis.keys("*:aside:*") == await large.redis.keys(b"*:members:" + OWNER) == []


async def test_a_batch_of_very_many_flow_runs_reads_no_more_than_it_may_remember(
    settings: SettingsFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = settings(kafka="127.0.0.1:1", worker_memory=64 << 20, partitions=64)
    async with Redis.from_url(own.redis_url, protocol=2) as redis:
        small = Large(redis, own)
        await small.estate.open()
        owners = [number.to_bytes(16, "big") for number in range(1, 21)]
        for number, owner in enumerate(owners):
            await small.apply(task_runs(0, 100, owner, number << 64))
        await small.shard.open(log(end=small.offset, partitions=1))
        families = small.shard._families
        most = 0

        def settle(touched: Any) -> None:
            nonlocal most
            most = max(most, sum(len(families[owner].members) for owner in owners))
            done(touched)

        done = families.settle
        monkeypatch.setattr(families, "settle", settle)
        await small.apply(
            [one for number, owner in enumerate(owners) for one in task_runs(99, 101, owner, number << 64)]
        )
        assert most * 320 < own.worker_cache // 2 // 64 + 40 * 320
        assert await small.is_sound()
        assert len(await small.raw()) == 20 * 101
        await small.estate.close()


@pytest.mark.parametrize("large", [HALF_A_DAY], indirect=True)
async def test_what_was_put_aside_and_is_gone_before_the_commit_takes_no_run_along(
    large: Large, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await large.raw()
    fence = large.shard._fence
    commit = fence.commit

    async def too_late(*given: Any) -> None:
        put_aside = await large.redis.keys("*:aside:*")
        assert [await large.redis.ttl(key) > 0 for key in put_aside] == [True] * len(put_aside) != []
        await large.redis.unlink(*put_aside)
        await commit(*given)

    with monkeypatch.context() as context:
        context.setattr(fence, "commit", too_late)
        with pytest.raises(FencedError):
            await large.apply([flow_run(2, (), "delete")])
    assert await large.raw() == before
    await large.shard.open(log(end=large.offset, partitions=1))
    await large.apply([flow_run(2, (), "delete")])
    assert await large.raw() == {run: record for run, record in before.items() if flow_run_of(record) != OWNER}
    assert await large.is_sound()

"""A flow run with very many task runs moves or goes at once, and holds nobody up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from runtally.core.changes import FLOW_RUN, TASK_RUN, Change
from runtally.store.fence import Batch
from runtally.store.ledger import Mark
from tests.conftest import HUGE, SettingsFactory

from .estate import Estate
from .owners import orphans

MEMBERS = 500_000 if HUGE else 12_000
MOST_S = 1.0
START_US = 1_790_000_000_000_000
OWNER = bytes(15) + b"f"


def task_runs(first: int, last: int) -> list[Change]:
    """Ended runs, ten a second."""
    found = []
    for number in range(first, last):
        at = START_US + number * 100_000
        values = (("COMPLETED", "Completed", at), at, at + 5, 5, "task", ("a",), at, None)
        own_id = number.to_bytes(16, "big")
        found.append(Change("task_run", "upsert", own_id, OWNER, at, TASK_RUN.all_given, values))
    return found


def flow_run(minute: int, tags: tuple[str, ...], action: str = "upsert") -> Change:
    values = [None] * len(FLOW_RUN.fields)
    values[FLOW_RUN.fields.index("tags")] = tags
    given = FLOW_RUN.all_given if action == "upsert" else 0
    return Change("flow_run", action, OWNER, None, START_US + minute * 60_000_000, given, tuple(values))  # type: ignore[arg-type]


class Gaps:
    """The longest time for which Redis answered nobody else, and that the event loop worked without a pause: of this
    thread's own time, since others share the machine."""

    loop_s = redis_s = 0.0


@asynccontextmanager
async def gaps(redis: Redis) -> AsyncIterator[Gaps]:
    found = Gaps()

    async def watch() -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0.005)
            found.loop_s = max(found.loop_s, time.thread_time() - began)

    def ping() -> None:
        from redis import Redis as SyncRedis

        with SyncRedis.from_url(url) as client:
            while not done:
                began = time.monotonic()
                client.ping()
                found.redis_s = max(found.redis_s, time.monotonic() - began)
                time.sleep(0.005)

    done: list[bool] = []
    given = redis.connection_pool.connection_kwargs
    url = f"redis://{given['host']}:{given['port']}"
    watching, pinging = asyncio.create_task(watch()), asyncio.create_task(asyncio.to_thread(ping))
    try:
        yield found
    finally:
        done.append(True)
        watching.cancel()
        await pinging


@pytest.mark.timeout(600)
async def test_a_flow_run_with_very_many_task_runs_moves_and_goes_without_holding_others_up(
    settings: SettingsFactory,
) -> None:
    own = settings(kafka="127.0.0.1:1", worker_cache=16 << 20, partitions=1)
    async with Redis.from_url(own.redis_url, protocol=2) as redis:
        estate = Estate(redis, own, partitions=1)
        await estate.open()
        (shard,) = estate.runs
        offset = 0

        async def apply(changes: list[Change]) -> None:
            nonlocal offset
            after = offset + len(changes)
            await shard.apply(Batch(offset, after, changes, Mark(after - 1, 0, 0), 0))
            offset = after

        await apply([flow_run(0, ("x",))])
        for first in range(0, MEMBERS, 4_000):
            await apply(task_runs(first, min(MEMBERS, first + 4_000)))
        for change in (flow_run(1, ("y",)), flow_run(2, (), "delete")):
            async with gaps(redis) as found:
                began = time.monotonic()
                await apply([change])
                took_s = time.monotonic() - began
            print(
                f"{MEMBERS:,} members, {change.action}: {took_s:.2f} s, gaps {found.loop_s:.3f} {found.redis_s:.3f} s"
            )
            assert max(found.loop_s, found.redis_s) < MOST_S
            if not HUGE:
                assert await estate.cell_differences() == []
            assert await orphans(redis, own.redis_prefix, "0") == []
        assert await redis.keys("*:raw:*") == await redis.keys("*:cells:*") == await redis.keys("*:members:*") == []
        await estate.close()

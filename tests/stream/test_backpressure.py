"""A worker that is far behind, or whose Redis is slow, reads no more than it can hold."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis import Redis

from runtally.embedded.child import Child
from runtally.settings import Settings

from ..conftest import HUGE
from . import truth

EVENTS = 5_000_000 if HUGE else 45_000
PART = 15_000
CACHE = 8 << 20
BUFFERS = 160 << 20
"""What fetches of four partitions take on their way, decoded, however many are waiting in Kafka."""
Start = Callable[..., Child]
Make = Callable[..., Settings]


def memory(worker: Child, name: str) -> int:
    """`VmRSS` or the highest so far, `VmHWM`, in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{worker.pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10


@contextlib.asynccontextmanager
async def pauses(settings: Settings, held_ms: int) -> AsyncIterator[None]:
    """Redis takes writes only a fifth of the time."""

    async def pause() -> None:
        with Redis.from_url(settings.redis_url) as redis:
            while True:
                redis.client_pause(held_ms, all=False)
                await asyncio.sleep(held_ms * 1.25 / 1000)

    task = asyncio.create_task(pause())
    try:
        yield
    finally:
        task.cancel()
        with Redis.from_url(settings.redis_url) as redis:
            redis.client_unpause()


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("held_ms", [0, 400], ids=["far behind", "slow Redis"])
async def test_a_worker_holds_no_more_than_its_cache_and_what_is_on_its_way(
    kafka: str, worker_settings: Make, processes: Start, held_ms: int
) -> None:
    settings = worker_settings(kafka=kafka, worker_cache=CACHE)
    await truth.create_topics(settings)
    events = EVENTS // 3 if held_ms else EVENTS
    idle = processes("worker", settings)
    await truth.until(lambda: truth.health(settings).get("ok") is True)
    before = memory(idle, "VmRSS")
    idle.stop(5)
    for seed in range(events // PART):
        await truth.publish(settings, truth.estate(PART // 3, seed=seed))
    worker = processes("worker", settings)
    async with pauses(settings, held_ms) if held_ms else contextlib.nullcontext():
        await truth.until(lambda: truth.applied(settings) >= events, events / 2_000 + 120)
    grown = memory(worker, "VmHWM") - before
    print(f"{events:,} events behind: {grown >> 20} MiB more than an idle worker's {before >> 20} MiB")
    assert grown < CACHE + BUFFERS

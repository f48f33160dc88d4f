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
from . import backlog, truth

RUNS = 1_667_000 if HUGE else 40_000
RUNS_SLOWLY = 100_000 if HUGE else 20_000
MEMORY = (256 if HUGE else 64) << 20
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
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("held_ms", [0, 400], ids=["far behind", "slow Redis"])
async def test_a_worker_holds_no_more_than_its_memory_however_much_is_waiting(
    kafka: str, worker_settings: Make, processes: Start, held_ms: int
) -> None:
    settings = worker_settings(kafka=kafka, worker_memory=MEMORY)
    await truth.create_topics(settings)
    idle = processes("worker", settings)
    await truth.until(lambda: truth.health(settings).get("ok") is True)
    before = memory(idle, "VmRSS")
    idle.stop(5)
    events = await backlog.publish(settings, RUNS_SLOWLY if held_ms else RUNS)
    worker = processes("worker", settings)
    async with pauses(settings, held_ms) if held_ms else contextlib.nullcontext():
        took_s = await truth.until(lambda: truth.applied(settings) >= events, events / 500 + 120)
    grown = memory(worker, "VmHWM") - before
    print(
        f"{events:,} events behind: {grown >> 20} MiB more than an idle worker's {before >> 20} MiB, of {MEMORY >> 20} "
        f"allowed; {took_s:.0f} s, {events / took_s:,.0f} events/s"
    )
    assert grown < MEMORY
    await truth.until_counted(settings, truth.completed(events // backlog.EVENTS_A_RUN), 120)

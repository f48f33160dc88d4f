"""`python -m tests.soak`: a worker and an API under a steady load, and whether their memory stays flat.

The load begins with a backlog, so that what fills caches has filled them by the half of the time; then come events at a
steady rate, and a dashboard that never rests. Both budgets are small, so that they are reached. Flat means, of the
second half of the time:

- the line through the RSS of the worker, and that of the API, rises by no more than 4 % from its beginning to its end;
- Valkey, whose data grow, takes no more bytes a run at the end than at the beginning, but for 4 %.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

import httpx
import numpy as np
from redis.asyncio import Redis

from .chaos.world import TroubleError, World, until
from .dashboards import Chosen, ranges, sent
from .servers import jars
from .stream import backlog
from .stream.truth import applied

PARTITIONS = 4
BUDGETS = {"RUNTALLY_WORKER_MEMORY": "64MiB", "RUNTALLY_API_CACHE": "32MiB"}
FIRST_RUNS = 60_000
RUNS_A_SECOND = 240
SAMPLE_S = 2.0
RISE = 0.04
_PAUSE_S = 0.1
_CHOSEN = (Chosen(), Chosen(tags=("a",)), Chosen(hide_subflows=True))


@dataclass
class Seen:
    """What was seen at some moments: seconds since the load is steady, and bytes."""

    at_s: list[float] = field(default_factory=list)
    worker: list[int] = field(default_factory=list)
    api: list[int] = field(default_factory=list)
    valkey: list[int] = field(default_factory=list)
    a_run: list[float] = field(default_factory=list)
    runs: int = 0
    answers: int = 0

    def rises(self) -> dict[str, float]:
        """By how much of itself each measure rises along the line through its second half."""
        half = np.array(self.at_s) >= self.at_s[-1] / 2
        at = np.array(self.at_s)[half]
        found = {}
        for name, values in (("worker RSS", self.worker), ("API RSS", self.api), ("Valkey bytes a run", self.a_run)):
            slope, start = np.polyfit(at, np.array(values, float)[half], 1)
            first = start + slope * at[0]
            found[name] = float(slope * (at[-1] - at[0]) / first)
        return found

    def words(self) -> str:
        """The last moment."""
        return (
            f"{self.at_s[-1]:4.0f} s: worker {self.worker[-1] >> 20} MiB, API {self.api[-1] >> 20} MiB, Valkey "
            f"{self.valkey[-1] >> 20} MiB, {self.a_run[-1]:.0f} bytes a run; {self.runs:,} runs, "
            f"{self.answers:,} answers"
        )


async def soak(folder: Path, minutes: float) -> Seen:
    """Run it."""
    os.environ.update(BUDGETS)
    world = World(folder, PARTITIONS, workers=1, forgets=False)
    try:
        await world.start()
        world.aside.stop(0)
        async with (
            backlog.producer(world.settings) as producer,
            Redis.from_url(world.settings.redis_url) as redis,
            httpx.AsyncClient(base_url=world.url, timeout=60) as client,
        ):
            seen = Seen(runs=FIRST_RUNS)
            week_ago = datetime.now(UTC) - timedelta(days=7)
            events = await backlog.send(producer, world.settings, range(FIRST_RUNS), week_ago, 7 * 86_400 / FIRST_RUNS)
            await until(lambda: _has_applied(world, events), 600, "the worker has not applied the first events")
            tasks = [
                asyncio.create_task(each)
                for each in (_produce(world, producer, seen), _ask(client, seen), _watch(world, redis, seen))
            ]
            try:
                done, _ = await asyncio.wait(tasks, timeout=minutes * 60, return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    each.result()
                world_runs = seen.runs * backlog.EVENTS_A_RUN
                tasks[0].cancel()
                await until(lambda: _has_applied(world, world_runs), 120, "the worker did not keep up")
            finally:
                for each in tasks:
                    each.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            return seen
    finally:
        world.stop()


async def _has_applied(world: World, events: int) -> bool:
    return await asyncio.to_thread(applied, world.settings) >= events


async def _produce(world: World, producer: object, seen: Seen) -> None:
    """So many runs in each second, all of them expected in it."""
    due = time.monotonic()
    while True:
        numbers = range(seen.runs, seen.runs + RUNS_A_SECOND)
        begin = datetime.now(UTC) - timedelta(seconds=5)
        await backlog.send(producer, world.settings, numbers, begin, 1 / RUNS_A_SECOND)  # type: ignore[arg-type]
        seen.runs += RUNS_A_SECOND
        due += 1
        await asyncio.sleep(max(0.0, due - time.monotonic()))


async def _ask(client: httpx.AsyncClient, seen: Seen) -> None:
    """What the dashboards ask, of all ranges that they offer, for ever."""
    while True:
        for start_us, end_us in ranges(time.time_ns() // 1000).values():
            for one in chain.from_iterable(sent(start_us, end_us, chosen) for chosen in _CHOSEN):
                answer = await client.post(one.path, json=one.body)
                if answer.status_code != 200:
                    raise TroubleError(f"{one.name}: {answer.status_code} {answer.text}")
                seen.answers += 1
                await asyncio.sleep(_PAUSE_S)


async def _watch(world: World, redis: Redis, seen: Seen) -> None:
    began = said = time.monotonic()
    while True:
        world.check_alive()
        used = (await redis.info("memory"))["used_memory"]
        (worker,) = world.workers
        seen.worker.append(_rss(worker.pid))
        seen.api.append(_rss(world.api.pid))
        seen.valkey.append(used)
        seen.a_run.append(used * backlog.EVENTS_A_RUN / await asyncio.to_thread(applied, world.settings))
        seen.at_s.append(time.monotonic() - began)
        if time.monotonic() > said + 30:
            said = time.monotonic()
            print(seen.words(), flush=True)
        await asyncio.sleep(SAMPLE_S)


def _rss(pid: int) -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10


def main() -> int:
    """Run, report; 0 when all is flat."""
    parser = argparse.ArgumentParser("python -m tests.soak", description="A steady load, and whether memory is flat.")
    parser.add_argument("--minutes", type=float, default=10, help="how long; under some five, caches still fill")
    given = parser.parse_args()
    lack = jars.missing()
    if lack is not None:
        print(f"the soak needs a Kafka from jars: {lack}", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="runtally-soak-"))
    seen = asyncio.run(soak(folder, given.minutes))
    print(seen.words())
    rises = seen.rises()
    for name, rise in rises.items():
        print(f"{name}: {rise:+.1%} in the second half{'' if rise <= RISE else ', which is not flat'}")
    if max(rises.values()) > RISE:
        print(f"logs in {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

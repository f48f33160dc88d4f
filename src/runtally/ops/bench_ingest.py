"""`runtally bench ingest`: how fast one worker takes a full topic in, and what the runs cost in Redis.

The topic is filled first. Measured is from the first movement of a ledger (joining the group is not ingest) to the
moment when all ledgers have reached the log's end. Then the bare loop reads the same topic.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from ..embedded.child import Child
from ..errors import ServerLostError, SystemError_
from ..events.publish import Publisher
from ..settings import Settings
from ..store.keys import CATALOG
from ..store.ledger import positions
from .bench_load import Load
from .bench_servers import Bench, Cost, Say, bench, check_events, cpu_s, need

_DAY_US: Final = 86_400_000_000
_FAMILY_US: Final = 600_000_000
_BATCH_BYTES: Final = 64 << 10
_IN_FLIGHT: Final = 64
_LOOK_S: Final = 0.02
_STALLED_S: Final = 60.0
_BARE_MOST_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Ingest:
    """What was measured. `events` and `runs` are those of the load; rates count what was applied while measured."""

    events: int
    runs: int
    events_per_second: float
    events_per_cpu_second: float
    bare_events_per_second: float
    bare_ratio: float
    redis_bytes_per_run: float
    redis_cpu_us_per_event: float


async def ingest(events: int, kafka: str | None, redis_url: str | None, say: Say) -> Ingest:
    """Fill a topic, let one worker take it in, and read it with the bare loop.

    Raises `ServerLostError` when Kafka goes away and `SystemError_` when the worker ends or stands still.
    """
    check_events(events)
    async with bench(kafka, redis_url, say) as run:
        now_us = time.time_ns() // 1000
        load = Load(events, now_us - _DAY_US - _FAMILY_US, _DAY_US, _FAMILY_US, run.settings.partitions)
        began = time.monotonic()
        ends = await fill(run.settings, load)
        say(f"{events:,} events in Kafka after {time.monotonic() - began:.0f} s")
        return await _measure(run, load, ends, say)


async def fill(settings: Settings, load: Load) -> Mapping[str, int]:
    """Publish a load as fast as it goes, in the order of time within each partition; the end of each shard's log.

    Raises `ServerLostError`.
    """
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka, acks="all", max_batch_size=_BATCH_BYTES, max_request_size=1 << 20
    )
    ends = dict.fromkeys(map(str, range(settings.partitions)), 0)
    waiting: deque[asyncio.Future[Any]] = deque()
    batches = [producer.create_batch() for _ in range(settings.partitions)]

    async def send(partition: int) -> None:
        batch, batches[partition] = batches[partition], producer.create_batch()
        waiting.append(await producer.send_batch(batch, settings.runs_topic, partition=partition))
        while len(waiting) > _IN_FLIGHT:
            await waiting.popleft()

    try:
        async with producer:
            for _, partition, key, value in load:
                if batches[partition].append(timestamp=None, key=key, value=value) is None:
                    await send(partition)
                    batches[partition].append(timestamp=None, key=key, value=value)
                ends[str(partition)] += 1
            for partition, batch in enumerate(batches):
                if batch.record_count():
                    await send(partition)
            await asyncio.gather(*waiting)
    except KafkaError as error:
        raise ServerLostError(f"Kafka at {settings.kafka} did not take the events: {error}") from error
    return ends


async def _measure(run: Bench, load: Load, ends: Mapping[str, int], say: Say) -> Ingest:
    redis_bytes = await run.redis_bytes()
    worker = run.child("worker", "runtally", "worker")
    worker.start()
    try:
        spent, applied, redis_s = await _until_done(run, worker, ends)
    finally:
        worker.stop()
    redis_bytes = await run.redis_bytes() - redis_bytes
    say(f"the worker took {applied:,} events in {spent.wall_s:.1f} s, {spent.cpu_s:.1f} s of CPU")
    bare = await _bare(run, load.events)
    per_cpu_s = applied / spent.cpu_s
    return Ingest(
        events=load.events,
        runs=load.runs,
        events_per_second=round(applied / spent.wall_s),
        events_per_cpu_second=round(per_cpu_s),
        bare_events_per_second=round(load.events / bare.wall_s),
        bare_ratio=round(per_cpu_s * bare.cpu_s / load.events, 3),
        redis_bytes_per_run=round(redis_bytes / load.runs, 1),
        redis_cpu_us_per_event=round(redis_s * 1e6 / applied, 2),
    )


async def _until_done(run: Bench, worker: Child, ends: Mapping[str, int]) -> tuple[Cost, int, float]:
    """What the worker and Redis spent from the first movement on, and how many events were applied meanwhile."""
    first, first_redis_s, before = await _moved(run, worker, 0)
    if before >= sum(ends.values()):
        # So few that the first look saw them all: the time since the start, which includes joining, is all there is.
        raise SystemError_("the worker was done at the first look: measure more events, --events 100000 or more")
    at = before
    while at < sum(ends.values()):
        last, last_redis_s, at = await _moved(run, worker, at)
    return last.since(first), at - before, last_redis_s - first_redis_s


async def _moved(run: Bench, worker: Child, since: int) -> tuple[Cost, float, int]:
    """The costs so far once the ledgers stand beyond `since` in sum, and where they stand."""
    deadline = time.monotonic() + _STALLED_S
    while True:
        found = await positions(run.redis, run.settings)
        at = sum(offset for shard, offset in found.items() if shard != CATALOG)
        if at > since:
            return Cost(time.monotonic(), cpu_s(worker.pid)), await run.redis_cpu_s(), at
        need(worker)
        if time.monotonic() > deadline:
            raise SystemError_(f"the worker has stood still at {since:,} events; {worker.obituary()}")
        await asyncio.sleep(_LOOK_S)


async def _bare(run: Bench, events: int) -> Cost:
    async with Publisher(run.settings) as publisher:
        isolation = "read_committed" if publisher.transactional else "read_uncommitted"
    loop = run.child("bare", "runtally.ops.bench_bare", str(events), isolation)
    loop.start()
    deadline = time.monotonic() + _BARE_MOST_S
    try:
        while loop.alive():
            if time.monotonic() > deadline:
                raise SystemError_(f"the bare loop does not end; {loop.obituary()}")
            await asyncio.sleep(_LOOK_S)
    finally:
        loop.stop(0)
    if loop.returncode:
        raise SystemError_(loop.obituary())
    return Cost(**json.loads(loop.tail(1)))

"""What was published, what Redis counts, and waiting until both agree."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from redis import Redis

from runtally.core.cells import CELL
from runtally.core.groups import FLAG_BITS, States
from runtally.core.levels import LEVELS
from runtally.core.scopes import ALL
from runtally.ops import topics
from runtally.settings import Settings
from runtally.store.keys import Keys, live_key
from runtally.store.ledger import GENERATION, Ledger, decode
from runtally.store.records import decode_states

Event = tuple[bytes, bytes]
"""Key and value."""

_STATES = (("PENDING", "Pending"), ("RUNNING", "Running"), ("COMPLETED", "Completed"))
_FIRST = datetime(2026, 11, 23, 10, tzinfo=UTC)


def text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def estate(runs: int, *, seed: int = 0, padding: int = 0) -> list[Event]:
    """Three states of each of `runs` task runs, twenty runs a flow run, all of them completed in the end."""
    events: list[Event] = []
    for number in range(runs):
        flow_run = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{seed}.{number // 20}"))
        run = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{seed}.run.{number}"))
        expected = _FIRST + timedelta(seconds=number % 7200)
        for step, (kind, name) in enumerate(_STATES):
            moment = expected + timedelta(seconds=step)
            data = {
                "id": run,
                "flow_run_id": flow_run,
                "name": f"task-{number % 7}" + "x" * padding,
                "tags": ["a", "b"],
                "state_type": kind,
                "state_name": name,
                "state_timestamp": text(moment),
                "expected_start_time": text(expected),
                "start_time": text(expected + timedelta(seconds=1)) if step else None,
                "end_time": text(moment) if step == 2 else None,
            }
            event = {"entity": "task_run", "action": "upsert", "occurred": text(moment), "data": data}
            events.append((flow_run.encode(), json.dumps(event).encode()))
    return events


async def publish(
    settings: Settings, events: Iterable[Event], *, timestamp_ms: int | None = None, **options: Any
) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka, **{"acks": "all", "linger_ms": 5, **options})
    await producer.start()
    try:
        waiting = [
            await producer.send(settings.runs_topic, value=value, key=key, timestamp_ms=timestamp_ms)
            for key, value in events
        ]
        await asyncio.gather(*waiting)
    finally:
        await producer.stop()


async def create_topics(settings: Settings, *, timestamps: str = "") -> None:
    await topics.create(settings)
    if timestamps:
        async with _admin(settings) as admin:
            change = {"message.timestamp.type": timestamps, "message.timestamp.after.max.ms": "86400000"}
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, settings.runs_topic, change)])


async def add_partitions(settings: Settings, count: int) -> None:
    async with _admin(settings) as admin:
        await admin.create_partitions({settings.runs_topic: NewPartitions(total_count=count)})


async def cut_log(settings: Settings, partition: int) -> None:
    """Delete every record of a partition of runs, as a retention that is too short would."""
    tp = TopicPartition(settings.runs_topic, partition)
    async with _admin(settings) as admin:
        await admin.delete_records({tp: RecordsToDelete(before_offset=-1)})


async def dead_letters(settings: Settings, count: int) -> list[Any]:
    consumer = AIOKafkaConsumer(
        settings.dead_letters_topic, bootstrap_servers=settings.kafka, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        async with asyncio.timeout(15):
            return [await consumer.getone() for _ in range(count)]
    finally:
        await consumer.stop()


@asynccontextmanager
async def _admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


def generation(redis: Redis, settings: Settings) -> str:
    """The live generation's name."""
    return (redis.hget(live_key(settings.redis_prefix), "generation") or GENERATION.encode()).decode()


def ledger(redis: Redis, settings: Settings, shard: str) -> Ledger | None:
    fields = redis.hgetall(Keys(settings.redis_prefix, generation(redis, settings), shard).ledger)
    return decode([part for pair in fields.items() for part in pair])


def applied(settings: Settings) -> int:
    """Sum of the next offsets of all shards of runs: records passed, whatever they were."""
    with Redis.from_url(settings.redis_url) as redis:
        found = [ledger(redis, settings, str(shard)) for shard in range(settings.partitions)]
    return sum(each.next for each in found if each is not None)


def watermark(settings: Settings) -> int:
    """The newest record timestamp that any shard of runs has applied, µs."""
    with Redis.from_url(settings.redis_url) as redis:
        found = [ledger(redis, settings, str(shard)) for shard in range(settings.partitions)]
    return max(each.watermark for each in found if each is not None)


def counts(settings: Settings) -> Counter[str]:
    """Runs by state name, from the cells. Every level, and the raw records, have to say the same."""
    with Redis.from_url(settings.redis_url) as redis:
        levels = [_level_counts(redis, settings, level) for level in range(len(LEVELS))]
        pattern = f"{settings.redis_prefix}:{{{generation(redis, settings)}.*}}:raw:*"
        raw = sum(redis.hlen(key) for key in redis.scan_iter(pattern, count=10_000))
    assert all(level == levels[0] for level in levels), levels
    assert raw == sum(levels[0].values())
    return levels[0]


def _level_counts(redis: Redis, settings: Settings, level: int) -> Counter[str]:
    found: Counter[str] = Counter()
    for shard in range(settings.partitions):
        keys = Keys(settings.redis_prefix, generation(redis, settings), str(shard))
        names = States(decode_states(redis.lrange(keys.states, 0, -1))).names
        pattern = keys.cells(ALL, level, 0)[:-1] + b"*"
        for key in redis.scan_iter(pattern.replace(b"{", b"\\{").replace(b"}", b"\\}"), count=10_000):
            cells = np.frombuffer(b"".join(redis.hvals(key)), CELL)
            for group, n in zip(cells["group"].tolist(), cells["n"].tolist(), strict=True):
                state = names[group >> FLAG_BITS]
                assert state is not None
                found[state[1]] += n
    return found


async def until(holds: Callable[[], bool], timeout_s: float = 60, what: str = "") -> float:
    """Wait until it holds; the seconds that it took. The time-out is for what never comes: machines may be busy."""
    begin = looked = time.monotonic()
    while not holds():
        now = time.monotonic()
        assert now < begin + timeout_s, f"not within {timeout_s:g} s: {what or holds}"
        # What takes long to look at is looked at half of the time, so that it may come about in the other half.
        await asyncio.sleep(max(0.05, now - looked))
        looked = time.monotonic()
    return time.monotonic() - begin


async def until_counted(settings: Settings, expected: Counter[str], timeout_s: float = 60) -> None:
    """Wait until the counts are these, and see that they stay so."""
    seen: list[Counter[str]] = []

    def agree() -> bool:
        try:
            # All levels are looked at once the one with the fewest keys says that it is time.
            with Redis.from_url(settings.redis_url) as redis:
                seen[:] = [_level_counts(redis, settings, len(LEVELS) - 1)]
            if seen[0] == expected:
                seen[:] = [counts(settings)]
        except (AssertionError, IndexError):  # read in the middle of a commit
            return False
        return seen[0] == expected

    try:
        await until(agree, timeout_s)
    except AssertionError:
        raise AssertionError(f"{seen} instead of {expected}; {applied(settings)} records passed") from None
    await asyncio.sleep(0.3)
    assert counts(settings) == expected, "counted again"


def get(url: str) -> tuple[int, bytes]:
    """Status and body; (0, b"") when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError:
        return 0, b""


def health(settings: Settings) -> dict[str, Any]:
    """The worker's health; empty when it does not answer."""
    body = get(f"http://127.0.0.1:{settings.metrics_port}/health")[1]
    found: dict[str, Any] = json.loads(body) if body else {}
    return found


def states(settings: Settings) -> dict[str, str]:
    """State by shard, as the worker's health tells."""
    return {name: shard["state"] for name, shard in health(settings).get("shards", {}).items()}


def metric(settings: Settings, name: str) -> float:
    """Sum of one metric over its labels."""
    body = get(f"http://127.0.0.1:{settings.metrics_port}/metrics")[1].decode()
    lines = [line for line in body.splitlines() if line.startswith(f"runtally_{name}")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def completed(runs: int) -> Counter[str]:
    return Counter({"Completed": runs})


def halves(events: Sequence[Event]) -> tuple[Sequence[Event], Sequence[Event]]:
    return events[: len(events) // 2], events[len(events) // 2 :]

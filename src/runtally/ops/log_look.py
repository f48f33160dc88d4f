"""The log at a glance, for `runtally doctor`: topics, where they end, and their newest records."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from ..errors import ServerLostError, SystemError_, UserError
from ..events.dead_letter import DeadLetter
from ..events.partition import FORWARDED
from ..events.reader import stop_reading
from ..settings import Settings
from ..store.keys import CATALOG
from ..store.ledger import Ledger, check_log
from ..stream.log import Log
from . import topics
from .topics import Found

NEWEST: Final = 500
"""So many of the newest records of each partition of runs are looked at."""
NEWEST_DEAD: Final = 2000
_QUIET_MS: Final = 400
_PATIENCE_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class LogLook:
    """What was found. `refused`: why a topic must not be used as it is. By shard: `ends` of the log, and `troubles`
    with its ledger. `members` of the group of workers, None where the broker does not tell. Of the newest records of
    runs `sampled` were looked at, `forwarded` of them were sent on by a worker. `newest_ms`: the newest timestamp that
    the broker gave, 0 where producers give it. `dead`: dead letters by reason, of the newest ones."""

    topics: Sequence[Found]
    refused: str
    ends: Mapping[str, int]
    troubles: Mapping[str, str]
    members: int | None
    sampled: int
    forwarded: int
    newest_ms: int
    dead: Mapping[str, int]


async def look(settings: Settings, ledgers: Mapping[str, Ledger | None]) -> LogLook:
    """Look once; makes no topic and joins no group. Raises `ServerLostError` when no broker answers."""
    try:
        found = await topics.inspect(settings, wait_s=0)
    except UserError as error:
        return LogLook((), str(error), {}, {}, None, 0, 0, 0, {})
    counts = {one.name: one.partitions for one in found}
    async with AsyncExitStack() as stack:
        log = Log(settings)
        stack.push_async_callback(log.close)
        places = {str(at): (settings.runs_topic, at) for at in range(counts.get(settings.runs_topic, 0))}
        if settings.catalog_topic in counts:
            places[CATALOG] = (settings.catalog_topic, 0)
        ends, troubles = {}, {}
        for shard, place in places.items():
            log_ends = await log.ends(*place)
            ends[shard] = log_ends.end
            if (ledger := ledgers.get(shard)) is not None:
                try:
                    await check_log(shard, ledger, log_ends)
                except ServerLostError:
                    raise
                except SystemError_ as error:
                    troubles[shard] = str(error)
        runs = [place for place in places.values() if place[0] == settings.runs_topic]
        records = await _newest(settings, runs, NEWEST)
        dead = [(settings.dead_letters_topic, at) for at in range(counts.get(settings.dead_letters_topic, 0))]
        letters = await _newest(settings, dead, NEWEST_DEAD)
    return LogLook(
        found,
        "",
        ends,
        troubles,
        await _members(settings),
        len(records),
        sum(any(name == FORWARDED for name, _ in record.headers) for record in records),
        max((record.timestamp for record in records if record.timestamp_type == 1), default=0),
        Counter(DeadLetter(each.key, each.value, each.headers).reason for each in letters),
    )


async def _members(settings: Settings) -> int | None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await admin.start()
            (answer,) = await admin.describe_consumer_groups([settings.group_id])
    except (KafkaError, OSError, TimeoutError):
        return None
    finally:
        await admin.close()
    ((_, _, _, _, _, members, *_),) = answer.groups
    return len(members)


async def _newest(settings: Settings, places: Sequence[tuple[str, int]], most: int) -> list[Any]:
    """The newest records of some partitions, at most so many of each."""
    if not places:
        return []
    partitions = [TopicPartition(*place) for place in places]
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka, enable_auto_commit=False, fetch_max_wait_ms=100)
    records: list[Any] = []
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await consumer.start()
            consumer.assign(partitions)
            firsts = await consumer.beginning_offsets(partitions)
            ends = await consumer.end_offsets(partitions)
            for place in partitions:
                consumer.seek(place, max(firsts[place], ends[place] - most))
            # Not until the ends: some brokers tell them too low, and the last offsets may be transaction markers.
            while fetched := await consumer.getmany(timeout_ms=_QUIET_MS):
                for some in fetched.values():
                    records += some
                if len(records) >= most * len(partitions):
                    break
    except (KafkaError, OSError, TimeoutError) as error:
        raise ServerLostError(f"Kafka at {settings.kafka} does not show its newest records: {error}") from None
    finally:
        await stop_reading(consumer)
    return records

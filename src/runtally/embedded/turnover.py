"""Bounds the embedded broker's log, which lives in memory and keeps everything.

The broker frees memory only when a topic is deleted. So, when it has grown too large: the worker finishes its batch and
stops, what it had not applied is set aside, the topics are made anew, the shards are told that the log is new, and what
was set aside is published again. Versions make it harmless that something is applied twice. An event that somebody else
publishes in the moment between setting aside and deleting is lost: embedded mode is for trying.
"""

from __future__ import annotations

from typing import Final

import psutil
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from ..errors import SystemError_
from ..events.reader import reader, stop_reading
from ..ops import topics
from ..simulate.play import Message
from ..store.connect import connect
from ..store.ledger import positions
from ..store.repair import accept_new_log
from .stack import Say, Stack

MOST_BYTES: Final = 1_500 << 20
_QUIET_MS: Final = 300
_ATTEMPTS: Final = 10


def is_due(stack: Stack, most_bytes: int = MOST_BYTES) -> bool:
    """Whether the embedded broker has grown over its bound."""
    if stack.broker is None or not stack.broker.alive():
        return False
    return bool(psutil.Process(stack.broker.child.pid).memory_info().rss > most_bytes)


async def turn_over(stack: Stack, say: Say) -> None:
    """Replace the log by a new one that holds only what has not been applied yet."""
    settings = stack.settings
    say("the embedded log has grown large: starting a new one (what has been applied stays)")
    stack.worker.stop()
    redis = await connect(settings)
    try:
        left = await _unapplied(stack, await positions(redis, settings))
        await _renew_topics(stack)
        await accept_new_log(redis, settings)
    finally:
        await redis.aclose()
    if left:
        from ..events.publish import Publisher

        async with Publisher(settings) as publisher:
            await publisher.publish(left)
    stack.worker.start()


async def _renew_topics(stack: Stack) -> None:
    settings = stack.settings
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    await admin.start()
    try:
        for _ in range(_ATTEMPTS):
            # The catalog too: its ledger begins anew with the others.
            await admin.delete_topics([topic.name for topic in topics.wanted(settings)])
            # A producer that asks for a topic in between makes the broker create it, with a count of its own.
            if all(found.created for found in await topics.create(settings)):
                return
    finally:
        await admin.close()
    raise SystemError_("the embedded broker's topics could not be made anew: stop `runtally up` and start it again")


async def _unapplied(stack: Stack, next_offsets: dict[str, int]) -> list[Message]:
    """The records from each shard's position on."""
    settings = stack.settings
    places = {
        TopicPartition(settings.catalog_topic, 0)
        if shard == "c"
        else TopicPartition(settings.runs_topic, int(shard)): at
        for shard, at in next_offsets.items()
    }
    consumer = await reader(settings)
    left: list[Message] = []
    try:
        consumer.assign(list(places))
        for place, offset in places.items():
            consumer.seek(place, offset)
        # Not by end offsets: this broker tells them too low.
        while batches := await consumer.getmany(timeout_ms=_QUIET_MS):
            for place, records in batches.items():
                left.extend((place.topic, record.key or b"", record.value or b"") for record in records)
    finally:
        await stop_reading(consumer)
    return left

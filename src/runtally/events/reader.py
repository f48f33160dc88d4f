"""A consumer without a group, for looking at a log beside the workers: it commits nothing and makes no rebalance."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaConsumer

from ..settings import Settings


async def reader(settings: Settings, **options: Any) -> AIOKafkaConsumer:
    """A started consumer with these further options of aiokafka's. Raises `KafkaError`; nothing is left open then."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka, enable_auto_commit=False, **options)
    try:
        await consumer.start()
    except BaseException:
        await stop_reading(consumer)
        raise
    return consumer


async def stop_reading(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer, also while its broker is away: aiokafka (0.14.0) then cancels its own fetch, waits for that, and
    ends of it, with its connections left open."""
    found: list[BaseException | None] = await asyncio.gather(consumer.stop(), return_exceptions=True)
    (ended,) = found
    if isinstance(ended, asyncio.CancelledError):
        await consumer._client.close()
    elif ended is not None:
        raise ended

"""A consumer without a group, for looking at a log beside the workers: it commits nothing and makes no rebalance."""

from __future__ import annotations

from typing import Any

from aiokafka import AIOKafkaConsumer

from ..settings import Settings


async def reader(settings: Settings, **options: Any) -> AIOKafkaConsumer:
    """A started consumer with these further options of aiokafka's. Raises `KafkaError`; nothing is left open then."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka, enable_auto_commit=False, **options)
    try:
        await consumer.start()
    except BaseException:
        await consumer.stop()
        raise
    return consumer

"""A consumer for looking at a log: started and stopped whatever its broker does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import TopicPartition

from runtally.embedded.broker import Broker
from runtally.events.reader import reader, stop_reading
from runtally.ops import topics
from runtally.settings import Settings


async def test_it_stops_in_peace_while_its_broker_is_away(
    tmp_path: Path, settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    """aiokafka gives up a fetch that waits to try again, and would end of that itself."""
    broker = Broker(tmp_path / "broker.log")
    ours = settings(kafka=broker.start(), redis_url="redis://127.0.0.1:1/0")
    try:
        await topics.create(ours)
        consumer = await reader(ours)
        place = TopicPartition(ours.catalog_topic, 0)
        consumer.assign([place])
        consumer.seek(place, 0)
    finally:
        broker.stop()
    with caplog.at_level(logging.ERROR, "aiokafka"):
        async with asyncio.timeout(30):
            while not any("Failed fetch" in record.getMessage() for record in caplog.records):
                await asyncio.sleep(0.01)
        await stop_reading(consumer)
    assert not consumer._client._conns

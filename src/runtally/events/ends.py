"""Where the log ends: what it would take to be up to date.

It only looks: no group is joined, no record is read, and above all no topic is made, which a broker does for whoever
asks for one by name.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from ..errors import ServerLostError
from ..settings import Settings
from ..store.keys import CATALOG
from .reader import reader, stop_reading

_PATIENCE_S: Final = 5.0
_NEVER_MS: Final = 3_600_000
_LOGGERS: Final = ("aiokafka", "aiokafka.cluster", "aiokafka.conn", "aiokafka.consumer.fetcher")
_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


def _heard(_: logging.LogRecord) -> bool:
    return not _quiet.get()


class Ends:
    """A consumer without a group. What its client logs is not heard: every trouble is raised."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer: AIOKafkaConsumer | None = None
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_heard)

    async def read(self) -> dict[str, int]:
        """The offset after the last event, by the name of the shard (the catalog's is `c`).

        Raises `ServerLostError` when Kafka is away, slow, or has not the topics.
        """
        said = _quiet.set(True)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await self._read()
        except (KafkaError, OSError, TimeoutError) as error:
            await self.close()
            raise ServerLostError(f"Kafka at {self._settings.kafka} does not say where its log ends: {error}") from None
        finally:
            _quiet.reset(said)

    async def close(self) -> None:
        """Disconnect."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await stop_reading(consumer)

    async def _read(self) -> dict[str, int]:
        consumer = await self._started()
        places = {
            TopicPartition(topic, partition): CATALOG if topic == self._settings.catalog_topic else str(partition)
            for topic in (self._settings.catalog_topic, self._settings.runs_topic)
            for partition in consumer.partitions_for_topic(topic) or ()
        }
        if len({place.topic for place in places}) < 2:
            raise KafkaError("the topics do not exist")
        ends = await consumer.end_offsets([*places])
        return {shard: ends[place] for place, shard in places.items()}

    async def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            # A retry would ask for a topic by name when it was deleted. We begin anew instead.
            consumer = await reader(self._settings, isolation_level="read_committed", retry_backoff_ms=_NEVER_MS)
            self._consumer = consumer
            # Without names it is told of all topics.
            await consumer._client.force_metadata_update()
        return self._consumer

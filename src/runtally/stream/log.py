"""Looking at a partition's log beside the consumer group: its ends, and single records."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from ..errors import ServerLostError
from ..events.reader import reader, stop_reading
from ..settings import Settings
from ..store.ledger import LogEnds, Mark

_READ_TIMEOUT_S: Final = 6.0
_READS: Final = 2


def mark_of(record: Any) -> Mark:
    """What the ledger remembers of a record."""
    return Mark(record.offset, record.timestamp, zlib.crc32(record.value or b"", zlib.crc32(record.key or b"")))


class Log:
    """A consumer without a group, for one question at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer: AIOKafkaConsumer | None = None
        self._turn = asyncio.Lock()

    async def partitions(self, topic: str) -> int:
        """The topic's partition count, 0 when it does not exist. Raises `ServerLostError`."""
        async with self._turn:
            try:
                consumer = await self._started()
                known = await consumer._client.fetch_all_metadata()
                return len(known.partitions_for_topic(topic) or ())
            except (KafkaError, OSError) as error:
                raise await self._lost(error) from error

    async def ends(self, topic: str, partition: int) -> LogEnds:
        """First kept offset, end and a way to read one record. Raises `ServerLostError`."""
        count = await self.partitions(topic)
        if not count:
            raise ServerLostError(f"Kafka at {self._settings.kafka} has no topic {topic} now")
        tp = TopicPartition(topic, partition)
        async with self._turn:
            try:
                consumer = await self._started()
                consumer.assign([tp])
                first = (await consumer.beginning_offsets([tp]))[tp]
                end = (await consumer.end_offsets([tp]))[tp]
            except (KafkaError, OSError) as error:
                raise await self._lost(error) from error

        async def read_record(offset: int) -> Mark | None:
            return await self._read(tp, offset)

        return LogEnds(first, end, count, read_record)

    async def first(self, topic: str, partition: int) -> int:
        """Offset of the first kept record. Raises `ServerLostError`."""
        tp = TopicPartition(topic, partition)
        async with self._turn:
            try:
                return int((await (await self._started()).beginning_offsets([tp]))[tp])
            except (KafkaError, OSError) as error:
                raise await self._lost(error) from error

    async def close(self) -> None:
        """Disconnect."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await stop_reading(consumer)

    async def _read(self, tp: TopicPartition, offset: int) -> Mark | None:
        async with self._turn:
            try:
                consumer = await self._started()
                consumer.assign([tp])
                # No record there within the time, though the broker answers before and after: nothing is stored at that
                # offset. End offsets alone can lie.
                for _ in range(_READS):
                    consumer.seek(tp, offset)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_READ_TIMEOUT_S):
                            record = await consumer.getone(tp)
                        return mark_of(record) if record.offset == offset else None
                    async with asyncio.timeout(_READ_TIMEOUT_S):
                        await consumer.end_offsets([tp])
                return None
            except OffsetOutOfRangeError:
                return None
            except (KafkaError, OSError) as error:
                raise await self._lost(error) from error

    async def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            self._consumer = await reader(self._settings, auto_offset_reset="none", fetch_max_wait_ms=100)
        return self._consumer

    async def _lost(self, error: Exception) -> ServerLostError:
        await self.close()
        return ServerLostError(f"Kafka at {self._settings.kafka} is away: {str(error) or 'it does not answer'}")

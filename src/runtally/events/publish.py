"""Publishing events: validated, under the right key, and waited for until the broker has them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Final, NamedTuple, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    UnknownError,
    UnknownTopicOrPartitionError,
)

from ..core.changes import ENTITIES
from ..errors import ServerLostError
from ..settings import Settings
from .contract import bad
from .partition import key_of
from .wire import MAX_EVENT_BYTES, Ignored, parse_any

_IN_FLIGHT: Final = 5_000
_GIVE_UP_MS: Final = 15_000
_SENDER_LOG: Final = "aiokafka.producer.sender"
_ENVELOPE_BYTES: Final = 1024
"""More than the headers of a batch and a record, and a key."""


class Message(NamedTuple):
    """What goes to Kafka: topic, key and value."""

    topic: str
    key: bytes
    value: bytes


def checked(value: bytes, settings: Settings, now_us: int | None = None) -> Message | Ignored:
    """An event in either accepted format with its topic and key; `now_us` stands for the record's timestamp.

    Raises `BadEventError`.
    """
    if len(value) > MAX_EVENT_BYTES - _ENVELOPE_BYTES:
        raise bad("over 1 MiB", f"the event has {len(value)} bytes, and Kafka wraps it into some more")
    latest_us = (time.time_ns() // 1000 if now_us is None else now_us) + settings.max_clock_skew
    change = parse_any(value, latest_us)
    if isinstance(change, Ignored):
        return change
    topic = settings.runs_topic if ENTITIES[change.entity].topic == "runs" else settings.catalog_topic
    return Message(topic, key_of(change), value)


@contextmanager
def _silenced(logger: str) -> Iterator[None]:
    """No words from a logger about what is answered here anyway."""
    log = logging.getLogger(logger)
    before = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = before


class Record(NamedTuple):
    """A record with its headers: dead letters and forwarded events."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int | None = None
    timestamp_ms: int | None = None


class Publisher:
    """A producer with acks=all, idempotent where the broker can: `async with Publisher(settings) as publisher`.

    `transactional`, once entered: the broker knows producer ids, so its log may hold transactions. Raises
    `ServerLostError` when the broker is away.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._spoilt = False
        self._opening = asyncio.Lock()
        self.transactional = False

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._producer is not None:
            await self._producer.stop()

    async def publish(self, messages: Iterable[Message | tuple[str, bytes, bytes]]) -> int:
        """Send all and wait until the broker has every one; how many there were.

        Raises `ServerLostError` when some may not have arrived, `BadEventError` when the broker finds one too large.
        """
        return await self.forward(Record(topic, key, value) for topic, key, value in messages)

    async def forward(self, records: Iterable[Record]) -> int:
        """The same for records as they are, with headers, partition and timestamp."""
        producer = await self._open()
        count = 0
        waiting: list[asyncio.Future[object]] = []
        try:
            for record in records:
                waiting.append(
                    await producer.send(
                        record.topic,
                        value=record.value,
                        key=record.key,
                        partition=record.partition,
                        timestamp_ms=record.timestamp_ms,
                        headers=list(record.headers),
                    )
                )
                count += 1
                if len(waiting) >= _IN_FLIGHT:
                    sent, waiting = waiting, []
                    await self._arrived(sent)
        except KafkaError as error:
            raise self._refused(error) from error
        finally:
            await self._arrived(waiting)
        return count

    async def _arrived(self, sent: list[asyncio.Future[object]]) -> None:
        results = await asyncio.gather(*sent, return_exceptions=True)
        error = next((result for result in results if isinstance(result, BaseException)), None)
        if error is not None:
            # A record that the broker refused leaves a gap in the producer's numbers, after which the broker refuses
            # everything from this producer.
            self._spoilt = True
            raise self._refused(error) from error

    def _refused(self, error: BaseException) -> BaseException:
        if isinstance(error, MessageSizeTooLargeError):
            return bad("over 1 MiB", "Kafka takes no message of this size")
        if not isinstance(error, KafkaError):
            return error
        words = f"Kafka at {self._settings.kafka} did not take an event: {error}"
        if isinstance(error, KafkaTimeoutError | UnknownTopicOrPartitionError):
            words += ". Is the broker up, and do the topics exist (`runtally topics create`)?"
        return ServerLostError(words)

    async def _open(self) -> AIOKafkaProducer:
        async with self._opening:
            if self._spoilt and self._producer is not None:
                spoilt, self._producer = self._producer, None
                await spoilt.stop()
            if self._producer is None:
                self._producer, self._spoilt = await self._started(), False
            return self._producer

    async def _started(self) -> AIOKafkaProducer:
        try:
            try:
                producer = await self._start(idempotent=True)
                self.transactional = True
            except UnknownError:
                # The embedded broker gives this client no producer id. Then a retry may write an event twice, which
                # versions make harmless.
                producer = await self._start(idempotent=False)
        except KafkaError as error:
            raise ServerLostError(f"Kafka at {self._settings.kafka} is away: {error}") from None
        return producer

    async def _start(self, *, idempotent: bool) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.kafka,
            acks="all",
            enable_idempotence=idempotent,
            max_request_size=MAX_EVENT_BYTES + 4096,
            linger_ms=5,
            request_timeout_ms=_GIVE_UP_MS,
        )
        try:
            with _silenced(_SENDER_LOG):
                await producer.start()
        except KafkaError:
            await producer.stop()
            raise
        return producer

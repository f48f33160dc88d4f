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
from ..errors import BadEventError, ServerLostError
from ..settings import Settings
from .contract import bad
from .partition import key_of
from .wire import MAX_EVENT_BYTES, Ignored, parse_any

_IN_FLIGHT: Final = 5_000
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
    headers: Sequence[tuple[str, bytes]]
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
        self.transactional = False

    async def __aenter__(self) -> Self:
        # The embedded broker gives this client no producer id. Then a retry may write an event twice, which
        # versions make harmless.
        for idempotent in (True, False):
            self._producer = self._make(idempotent)
            try:
                with _silenced(_SENDER_LOG):
                    await self._producer.start()
                self.transactional = idempotent
                break
            except KafkaError as error:
                await self._producer.stop()
                if idempotent and isinstance(error, UnknownError):
                    continue
                raise ServerLostError(f"Kafka at {self._settings.kafka} is away: {error}") from None
        return self

    def _make(self, idempotent: bool) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            bootstrap_servers=self._settings.kafka,
            acks="all",
            enable_idempotence=idempotent,
            max_request_size=MAX_EVENT_BYTES + 4096,
            linger_ms=5,
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._producer is not None
        await self._producer.stop()

    async def publish(self, messages: Iterable[Message | tuple[str, bytes, bytes]]) -> int:
        """Send all and wait until the broker has every one; how many there were."""
        count = 0
        waiting: list[asyncio.Future[object]] = []
        try:
            for topic, key, value in messages:
                waiting.append(await self._send(topic, key, value))
                count += 1
                if len(waiting) >= _IN_FLIGHT:
                    sent, waiting = waiting, []
                    await self._wait(sent)
        finally:
            await self._wait(waiting)
        return count

    async def forward(self, records: Iterable[Record]) -> None:
        """Send records as they are, in order, and wait until the broker has every one."""
        assert self._producer is not None
        try:
            waiting = [
                await self._producer.send(
                    record.topic,
                    value=record.value,
                    key=record.key,
                    partition=record.partition,
                    timestamp_ms=record.timestamp_ms,
                    headers=list(record.headers),
                )
                for record in records
            ]
        except KafkaError as error:
            raise self._lost(error) from error
        await self._wait(waiting)

    async def _send(self, topic: str, key: bytes, value: bytes) -> asyncio.Future[object]:
        assert self._producer is not None
        try:
            future: asyncio.Future[object] = await self._producer.send(topic, value=value, key=key)
        except MessageSizeTooLargeError:
            raise BadEventError("over 1 MiB", f"the message has {len(value)} bytes") from None
        except KafkaError as error:
            raise self._lost(error) from error
        return future

    async def _wait(self, waiting: list[asyncio.Future[object]]) -> None:
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            if isinstance(result, MessageSizeTooLargeError):
                raise BadEventError("over 1 MiB", "the broker refuses a message of this size")
            if isinstance(result, KafkaError):
                raise self._lost(result) from result
            if isinstance(result, BaseException):
                raise result

    def _lost(self, error: KafkaError) -> ServerLostError:
        words = f"Kafka at {self._settings.kafka} did not take an event: {error}"
        if isinstance(error, KafkaTimeoutError | UnknownTopicOrPartitionError):
            words += ". Is the broker up, and do the topics exist (`runtally topics create`)?"
        return ServerLostError(words)

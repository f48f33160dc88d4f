"""Publishing events: validated, under the right key, and waited for until the broker has them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, NamedTuple, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, UnknownError

from ..core.changes import ENTITIES
from ..errors import BadEventError, ServerLostError
from ..settings import Settings
from .partition import key_of
from .wire import MAX_EVENT_BYTES, Ignored, parse

_IN_FLIGHT = 5_000
_SENDER_LOG = "aiokafka.producer.sender"


class Message(NamedTuple):
    """What goes to Kafka: topic, key and value."""

    topic: str
    key: bytes
    value: bytes


def checked(value: bytes, settings: Settings, now_us: int | None = None) -> Message | Ignored:
    """An event in either accepted format with its topic and key; `now_us` stands for the record's timestamp.

    Raises `BadEventError`.
    """
    moment = time.time_ns() // 1000 if now_us is None else now_us
    skew = settings.max_clock_skew
    topic: Literal["runs", "catalog"]
    try:
        topic = "runs"
        change = parse(value, topic=topic, record_us=moment, max_clock_skew_us=skew)
    except BadEventError as error:
        if error.reason != "wrong topic":
            raise
        topic = "catalog"
        change = parse(value, topic=topic, record_us=moment, max_clock_skew_us=skew)
    if isinstance(change, Ignored):
        return change
    assert ENTITIES[change.entity].topic == topic
    return Message(settings.runs_topic if topic == "runs" else settings.catalog_topic, key_of(change), value)


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
        for topic, key, value in messages:
            waiting.append(await self._send(topic, key, value))
            count += 1
            if len(waiting) >= _IN_FLIGHT:
                await self._wait(waiting)
                waiting = []
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
            raise ServerLostError(f"Kafka at {self._settings.kafka} is away: {error}") from error
        await self._wait(waiting)

    async def _send(self, topic: str, key: bytes, value: bytes) -> asyncio.Future[object]:
        assert self._producer is not None
        try:
            future: asyncio.Future[object] = await self._producer.send(topic, value=value, key=key)
        except MessageSizeTooLargeError:
            raise BadEventError("over 1 MiB", f"the message has {len(value)} bytes") from None
        except KafkaError as error:
            raise ServerLostError(f"Kafka at {self._settings.kafka} is away: {error}") from error
        return future

    async def _wait(self, waiting: list[asyncio.Future[object]]) -> None:
        try:
            await asyncio.gather(*waiting)
        except KafkaError as error:
            raise ServerLostError(f"Kafka at {self._settings.kafka} did not take the events: {error}") from error

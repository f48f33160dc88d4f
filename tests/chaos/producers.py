"""Producers of three kinds, each sending until the broker has said that it has everything.

`acked` holds every value that was acknowledged: each of them has to be in the log. Where the producers say what time it
is (`time_ms`; None: the broker does) nothing goes through the API, which knows only the real one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import httpx
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from runtally.errors import ServerLostError
from runtally.events.publish import Publisher, Record

from .traffic import Told
from .world import World

_CHUNK = 40
_AGAIN_S = 0.2


class Producers:
    """Those of one world."""

    def __init__(self, world: World, dice: random.Random, time_ms: Callable[[], int | None]) -> None:
        self._world = world
        self._dice = dice
        self._time_ms = time_ms
        self._publisher = Publisher(world.settings)
        self._forgetful: AIOKafkaProducer | None = None
        self.acked: set[tuple[str, bytes]] = set()
        self.again = 0
        """How often something was sent once more because nobody knew whether it had arrived."""

    async def start(self) -> None:
        """Connect."""
        await self._publisher.__aenter__()

    async def stop(self) -> None:
        """Disconnect."""
        await self._forget()
        await self._publisher.__aexit__(None, None, None)

    async def send(self, told: Sequence[Told], seconds: float = 0) -> None:
        """Send all, spread over so many seconds, each chunk by one of the producers; returns when all are there."""
        by_http = [one for one in told if one.partition is None and not one.poison]
        other = [one for one in told if one.partition is not None or one.poison]
        first, second = by_http[::2], by_http[1::2]
        kinds: list[tuple[Callable[[Sequence[Told]], Awaitable[None]], list[Told]]] = [
            (self._steadily, first + other),
            (self._forgetfully if self._world.forgets or self._dice.random() < 0.5 else self._by_http, second),
        ]
        await asyncio.gather(*(self._spread(chunks, send, seconds) for send, chunks in kinds))

    async def _spread(
        self, told: list[Told], send: Callable[[Sequence[Told]], Awaitable[None]], seconds: float
    ) -> None:
        chunks = [told[at : at + _CHUNK] for at in range(0, len(told), _CHUNK)]
        for chunk in chunks:
            await send(chunk)
            self.acked |= {(one.topic, one.value) for one in chunk}
            await asyncio.sleep(seconds / len(chunks))

    async def _steadily(self, chunk: Sequence[Told]) -> None:
        """Idempotent, with acks of all replicas, as runtally's own commands publish."""
        time_ms = self._time_ms()
        records = [Record(one.topic, one.key, one.value, (), one.partition, time_ms) for one in chunk]
        while True:
            try:
                await self._publisher.forward(records)
                return
            except ServerLostError:
                self.again += 1
                await asyncio.sleep(_AGAIN_S)

    async def _forgetfully(self, chunk: Sequence[Told]) -> None:
        """Not idempotent, and in doubt everything is sent again; now and then without any doubt."""
        while True:
            try:
                if self._forgetful is None:
                    self._forgetful = AIOKafkaProducer(
                        bootstrap_servers=self._world.settings.kafka, acks="all", linger_ms=5, request_timeout_ms=3000
                    )
                    await self._forgetful.start()
                for _ in range(self._dice.choice((1, 1, 1, 2))):
                    sent = [
                        await self._forgetful.send(one.topic, one.value, one.key, timestamp_ms=self._time_ms())
                        for one in chunk
                    ]
                    await asyncio.gather(*sent)
                return
            except KafkaError:
                self.again += 1
                await self._forget()
            await asyncio.sleep(_AGAIN_S)

    async def _forget(self) -> None:
        producer, self._forgetful = self._forgetful, None
        if producer is not None:
            with suppress(KafkaError):
                await producer.stop()

    async def _by_http(self, chunk: Sequence[Told]) -> None:
        """Through the API, until it has said 202."""
        lines = b"\n".join(one.value for one in chunk)
        headers = {"content-type": "application/x-ndjson"}
        while True:
            try:
                async with self._world.client(20) as client:
                    answer = await client.post("/runtally/api/events", content=lines, headers=headers)
                if answer.status_code == 202:
                    return
                assert answer.status_code == 503, answer.text
            except httpx.TransportError:
                pass
            self.again += 1
            await asyncio.sleep(_AGAIN_S)

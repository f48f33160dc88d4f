"""Events over HTTP: all of a request are checked, then all are published, or none is.

The answer comes when the broker has them. The producer is made with the first request and kept.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Final

import msgspec

from ..errors import BadEventError, BadRequestError, TooLargeError
from ..events.publish import Message, Publisher, checked
from ..events.wire import Ignored
from ..settings import Settings

MAX_EVENTS: Final = 10_000
MAX_EVENTS_BYTES: Final = 8 << 20
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])


class Intake:
    """Publishes the events of requests; `close()` lets go of the producer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._publisher: Publisher | None = None
        self._lock = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def accept(self, body: bytes) -> tuple[int, int]:
        """Publish a JSON array of events, or NDJSON; how many were published and how many mean nothing to us.

        Raises `BadRequestError` that names the first bad event by its index, `TooLargeError` for too many and
        `ServerLostError` when the broker is away.
        """
        messages = await asyncio.to_thread(_messages, body, self._settings)
        wanted = [message for message in messages if isinstance(message, Message)]
        if wanted:
            publisher = await self._opened()
            await publisher.publish(wanted)
        return len(wanted), len(messages) - len(wanted)

    async def close(self) -> None:
        """Stop the producer, if one was made."""
        await self._stack.aclose()

    async def _opened(self) -> Publisher:
        async with self._lock:
            if self._publisher is None:
                self._publisher = await self._stack.enter_async_context(Publisher(self._settings))
            return self._publisher


def split(body: bytes) -> list[bytes]:
    """The events of a body: the elements of an array, or the lines that are not blank.

    Raises `BadRequestError` for an array that is no JSON, `TooLargeError` for more than MAX_EVENTS.
    """
    if body.lstrip()[:1] == b"[":
        try:
            events = [bytes(event) for event in _LIST.decode(body)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadRequestError(f"The body is no JSON array of events: {error}") from None
    else:
        events = [line for line in body.splitlines() if line.strip()]
    if len(events) > MAX_EVENTS:
        raise TooLargeError(f"{len(events)} events are more than the {MAX_EVENTS} of one request.", status=413)
    return events


def _messages(body: bytes, settings: Settings) -> list[Message | Ignored]:
    messages: list[Message | Ignored] = []
    for index, event in enumerate(split(body)):
        try:
            messages.append(checked(event, settings))
        except BadEventError as error:
            raise BadRequestError(f"Event {index} (counted from 0) is bad, so none was published: {error}") from None
    return messages

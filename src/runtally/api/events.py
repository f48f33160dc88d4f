"""Publishing what arrives over HTTP. The producer is made with the first request and kept."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from ..events.intake import check_all, read_body
from ..events.publish import Publisher
from ..settings import Settings


class Intake:
    """Publishes the events of requests; `close()` lets go of the producer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._publisher: Publisher | None = None
        self._lock = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def accept(self, body: bytes, content_type: str | None) -> tuple[int, int]:
        """Publish all events of a body, or none; how many the broker has, and how many mean nothing to us.

        Raises `BadEventError` with the index of the first bad one, `TooLargeError`, and `ServerLostError` when the
        broker is away.
        """
        # Thousands of events take a tenth of a second, in which others want answers.
        checked = await asyncio.to_thread(lambda: check_all(read_body(body, content_type), self._settings))
        if checked.messages:
            publisher = await self._opened()
            await publisher.publish(checked.messages)
        return len(checked.messages), checked.ignored

    async def close(self) -> None:
        """Stop the producer, if one was made."""
        await self._stack.aclose()

    async def _opened(self) -> Publisher:
        async with self._lock:
            if self._publisher is None:
                self._publisher = await self._stack.enter_async_context(Publisher(self._settings))
            return self._publisher

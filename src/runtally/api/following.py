"""Looking what is new while questions come, beside them: none of them waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final

from ..errors import RuntallyError
from .shards import Shards

_LOOKS: Final = 2
"""So many in the time for which one is good enough."""
_AFTER_S: Final = 0.25
"""So long after a question another one is expected."""
_REST: Final = 4
"""So many times as long as a preparation took there is no other one: questions come first."""


class Following:
    """Keeps what shards are known to be new enough for a question that comes soon after another one: not older than
    `max_staleness_s`, 0 for not at all. What has changed then is prepared, in pieces: the others get their turns."""

    def __init__(self, shards: Shards, prepare: Callable[[], Iterator[None]], max_staleness_s: float) -> None:
        self._shards = shards
        self._prepare = prepare
        self._every_s = max_staleness_s / _LOOKS
        self._asked_s = 0.0
        self._rests_until_s = 0.0
        self._task: asyncio.Task[None] | None = None

    def asked(self) -> None:
        """Note that somebody has asked."""
        self._asked_s = time.monotonic()
        if self._every_s and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        # What goes wrong is said to the next one who asks.
        with contextlib.suppress(RuntallyError):
            next_s = time.monotonic()
            while next_s - self._asked_s < _AFTER_S:
                next_s = max(next_s + self._every_s, time.monotonic())
                await asyncio.sleep(next_s - time.monotonic())
                async with self._shards.turn:
                    if not self._shards.seen_since(next_s - self._every_s) and await self._shards.refresh({}):
                        await self._make_ready()

    async def _make_ready(self) -> None:
        began_s = time.monotonic()
        if began_s < self._rests_until_s:
            return
        for _ in self._prepare():
            await asyncio.sleep(0)
        ended_s = time.monotonic()
        self._rests_until_s = ended_s + _REST * (ended_s - began_s)

"""The demo of `runtally up`: publishes the estate's past, then its present.

The data dir notes how far it has come, so that the next demo fills only the gap.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

from ..simulate import estate
from ..simulate.play import Message, Player
from .datadir import DataDir, Demo
from .stack import Stack

SEED: Final = 7
PAST_US: Final = 86_400_000_000
TICK_S: Final = 0.25
_MOST_A_TICK: Final = 5
_LATE_US: Final = 60_000_000
_OVERLAP_US: Final = 60_000_000
_NOTE_EVERY_US: Final = 5_000_000
_BATCH: Final = 4000

Publish = Callable[[list[Message]], Awaitable[object]]
Progress = Callable[[int, int], None]
"""Told how much is done, and of how much."""


class DemoPlayer:
    """One demo on one stack; `publish` sends messages and returns once the broker has them."""

    def __init__(self, data: DataDir, stack: Stack, publish: Publish) -> None:
        self._data = data
        self._store = stack.store
        self._publish = publish
        self._player = Player(estate.make(SEED), stack.settings.runs_topic, stack.settings.catalog_topic)
        self._noted = 0
        now = _now()
        self._since = max(now - PAST_US, self._known_until() - _OVERLAP_US)

    @property
    def gap_us(self) -> int:
        """How much of the past is missing."""
        return _now() - self._since

    async def publish_past(self, progress: Progress = lambda _done, _all: None) -> int:
        """Publish what is missing, one snapshot a run; returns how many there were."""
        await self._publish(self._player.catalog())
        count = await self._catch_up(self._since, _now(), progress)
        self._note()
        return count

    async def tick(self) -> None:
        """Publish what is due, to be called every `TICK_S`; at most twenty events a second."""
        now = _now()
        if now - self._player.until > _LATE_US:
            # The machine slept, or the rate was too low for long: one snapshot a run instead of every step.
            await self._catch_up(self._player.until, now)
        messages = self._player.due(now, _MOST_A_TICK)
        if messages:
            await self._publish(messages)
        if self._player.until - self._noted > _NOTE_EVERY_US:
            self._note()

    def stop(self) -> None:
        """Note how far the demo has come."""
        if self._player.until:
            self._note()

    async def _catch_up(self, since: int, now: int, progress: Progress = lambda _done, _all: None) -> int:
        count, batch = 0, list[Message]()
        slots = self._player.slots(since, now)
        for number, messages in enumerate(self._player.catch_up(since, now), 1):
            batch += messages
            if len(batch) >= _BATCH or number == slots:
                await self._publish(batch)
                count, batch = count + len(batch), []
                progress(number, slots)
        return count

    def _known_until(self) -> int:
        known = self._data.demo()
        return known.until if known and (known.seed, known.store) == (SEED, self._store) else 0

    def _note(self) -> None:
        self._noted = self._player.until
        self._data.note_demo(Demo(SEED, self._noted, self._store))


def _now() -> int:
    return time.time_ns() // 1000

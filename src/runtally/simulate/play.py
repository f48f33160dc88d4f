"""Plays the estate: the past as one snapshot a run, then the present step by step.

Invariant: whatever the runs did up to `until` has been handed out. A player can therefore stop at any time and another
one go on from there; handing out a step twice does no harm.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

import msgspec

from .estate import Estate
from .runs import LEAD_US, LIFE_US, SLOT_US, Run, Step, runs

Message = tuple[str, bytes, bytes]
"""Topic, key and value, ready to be published."""

_SLOTS_BEFORE: Final = LIFE_US // SLOT_US + 1
_SLOTS_AHEAD: Final = LEAD_US // SLOT_US + 1


class Player:
    """Hands out the messages of one estate, in two topics."""

    def __init__(self, estate: Estate, runs_topic: str, catalog_topic: str) -> None:
        self.until = 0
        self._estate = estate
        self._runs_topic = runs_topic
        self._catalog_topic = catalog_topic
        self._coming: list[tuple[int, int, int, Run]] = []
        self._pushed = 0
        self._next_slot = 0

    def catalog(self) -> list[Message]:
        """The flows and deployments."""
        return [
            (self._catalog_topic, str(event["data"]["id"]).encode(), msgspec.json.encode(event))
            for event in self._estate.catalog()
        ]

    def slots(self, since: int, now: int) -> int:
        """How many lists `catch_up` gives."""
        return _slot(now) + _SLOTS_AHEAD - _slot(since) + _SLOTS_BEFORE

    def catch_up(self, since: int, now: int) -> Iterator[list[Message]]:
        """What happened after `since` up to `now` (µs), slot by slot: of every run that took a step in that time the
        snapshot at `now`. What comes later is kept for `due`."""
        self._coming.clear()
        first = _slot(since) - _SLOTS_BEFORE
        for slot in range(first, first + self.slots(since, now)):
            messages = []
            for run in runs(self._estate, slot):
                taken = bisect_right(run.steps, now, key=_at)
                if taken and run.steps[taken - 1].at > since:
                    messages.append(self._message(run, taken - 1))
                self._push(run, taken)
            yield messages
        self._next_slot = first + self.slots(since, now)
        self.until = now

    def due(self, now: int, most: int) -> list[Message]:
        """The next steps up to `now`, at most so many."""
        while self._next_slot < _slot(now) + _SLOTS_AHEAD:
            for run in runs(self._estate, self._next_slot):
                self._push(run, 0)
            self._next_slot += 1
        messages: list[Message] = []
        while self._coming and self._coming[0][0] <= now:
            if len(messages) == most:
                return messages
            at, _, index, run = heapq.heappop(self._coming)
            messages.append(self._message(run, index))
            self._push(run, index + 1)
            self.until = max(self.until, at)
        self.until = now
        return messages

    def _push(self, run: Run, index: int) -> None:
        if index < len(run.steps):
            self._pushed += 1
            heapq.heappush(self._coming, (run.steps[index].at, self._pushed, index, run))

    def _message(self, run: Run, index: int) -> Message:
        return self._runs_topic, run.key.encode(), run.event(index)


def _at(step: Step) -> int:
    return step.at


def _slot(at: int) -> int:
    return at // SLOT_US

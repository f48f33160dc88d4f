"""What a worker has on its way from Kafka to Redis: fetched, waiting for its turn, or being applied; never more than
its share of the memory, however far behind it is and however slow Redis is.

Half of it is for records as they were fetched. Each partition may have an even part of that, so one that stands still
holds nobody else up, and no lane needs a limit of its own: what has no room stays in Kafka. The other half is for what
becomes of them while they are parsed and applied: much more, but only of batches that have their turn.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import aiokafka
from faust.types import TP

Record: TypeAlias = "aiokafka.ConsumerRecord[bytes | None, bytes | None]"
"""Or what aiokafka decodes, which has key, value, headers, offset and timestamp too; see `fetches`."""

_RECORD: Final = 400
"""Bytes that a record takes besides its text."""
_EVENT: Final = 2_500
_TEXT: Final = 4
"""Bytes that an event takes on top of that while it is parsed and applied, and so many times its text. Seen: 2,500 to
3,500 bytes at 735 of text, 8,000 of runs that share neither flow run nor hour; at 5,800 of text 10,000 for a long name,
and 27,000 to 32,000 for hundreds of tags, or a letter that makes Python take four bytes for each. Not all that have
their turn are at their peak at once."""
_FIRST_TEXT: Final = 2_000
"""Of an event, until some have been seen."""
_AT_ONCE: Final = 4
"""So many batches have room at least, so that one that takes long does not hold all others up."""


def _waiting_bytes(count: int, text: int) -> int:
    return _RECORD * count + text


def _working_bytes(count: int, text: int) -> int:
    return _EVENT * count + _TEXT * text


class Load:
    """The weight of what is on its way, by partition. For any thread: fetched in one, applied in another."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes // 2
        self.turns = Turns(limit_bytes - self._limit)
        # One thread may come twice: what nobody holds any more is put down wherever Python happens to find that out.
        self._lock = threading.RLock()
        self._by_partition: defaultdict[TP, int] = defaultdict(int)
        self._text = _FIRST_TEXT

    @property
    def weight(self) -> int:
        """Bytes that all of it takes at most."""
        with self._lock:
            return sum(self._by_partition.values()) + self.turns.weight

    def room(self, assigned: Collection[TP]) -> tuple[set[TP], int]:
        """Which partitions may fetch, and how many events each. So many of each always fit: half of its even part, so
        that while a half is applied the other one comes; and they are one batch."""
        half = self._limit // (2 * max(1, len(assigned)))
        with self._lock:
            open_ = {tp for tp in assigned if self._by_partition[tp] <= half}
            waiting, working = _waiting_bytes(1, self._text), _working_bytes(1, self._text)
            return open_, max(1, min(half // waiting, self.turns.batch // working))

    def take(self, tp: TP, count: int, text: int) -> int:
        """Note so many records of so many bytes of text that were fetched; their weight, which is to be put down
        once."""
        weight = _waiting_bytes(count, text)
        with self._lock:
            self._by_partition[tp] += weight
            self._text = text // count
        return weight

    def put_down(self, tp: TP, weight: int) -> None:
        """Note that something is not on its way any more."""
        with self._lock:
            self._by_partition[tp] -= weight


class Turns:
    """Batches have their turn in the order in which they ask, as many at once as there is room for. `batch`: the weight
    that one should have at most; a heavier one has its turn too, alone if need be."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self.batch = limit_bytes // _AT_ONCE
        self.weight = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def turn(self, weight: int) -> AsyncIterator[None]:
        """Wait for room, and hold it."""
        mine = asyncio.get_running_loop().create_future()
        self._waiting.append((weight, mine))
        self._admit()
        try:
            await mine
            yield
        finally:
            if mine.done() and not mine.cancelled():
                self.weight -= weight
            self._admit()

    def _admit(self) -> None:
        waiting = self._waiting
        while waiting and (waiting[0][1].done() or not self.weight or self.weight + waiting[0][0] <= self._limit):
            weight, mine = waiting.popleft()
            if not mine.done():
                self.weight += weight
                mine.set_result(None)


class Carried(list[Any]):
    """Records of one partition and fetch, which count until they are put down, or nobody holds them any more: a
    rebalance may leave them anywhere between Kafka and the lane.

    `run`, `begin` and `work`: see `consumer.Fetched`.
    """

    run: int
    begin: int

    def __init__(self, records: Collection[Record], load: Load, tp: TP) -> None:
        super().__init__(records)
        text = sum(len(record.value or b"") + len(record.key or b"") for record in records)
        self.work = _working_bytes(len(records), text)
        self._load = load
        self._tp = tp
        self._weight = load.take(tp, len(records), text)

    def put_down(self) -> None:
        """Let the records go: whatever else still names this fetch does not keep them."""
        weight, self._weight = self._weight, 0
        if weight:
            self._load.put_down(self._tp, weight)
            self.clear()

    def __del__(self) -> None:
        self.put_down()

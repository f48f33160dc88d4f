"""What a worker has on its way from Kafka to Redis: fetched, waiting for its turn, or being applied; never more than
its share of the memory, however far behind it is and however slow Redis is.

Each partition may have an even part of it. So one that stands still holds nobody else up, and no lane needs a limit of
its own: what has no room stays in Kafka. An event weighs what it takes where it takes most, when its batch is parsed.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection
from typing import Any, Final, TypeAlias

import aiokafka
from faust.types import TP

Record: TypeAlias = "aiokafka.ConsumerRecord[bytes | None, bytes | None]"

_EVENT: Final = 2_400
"""Bytes that an event takes besides its text: as a record, and while it is parsed and applied."""
_TEXT: Final = 3
"""So many times its text is in memory."""
_FIRST_WEIGHT: Final = 8_000
"""Of an event, until some have been seen."""


class Load:
    """The weight of what is on its way, by partition. For any thread: fetched in one, applied in another."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        # One thread may come twice: what nobody holds any more is put down wherever Python happens to find that out.
        self._lock = threading.RLock()
        self._by_partition: defaultdict[TP, int] = defaultdict(int)
        self._event = _FIRST_WEIGHT

    @property
    def weight(self) -> int:
        """Bytes that all of it takes at most."""
        with self._lock:
            return sum(self._by_partition.values())

    def room(self, assigned: Collection[TP]) -> tuple[set[TP], int]:
        """Which partitions may fetch, and how many events in all at once. So many of each always fit: half of its even
        part, so that while a half is applied the other one comes."""
        half = self._limit // (2 * max(1, len(assigned)))
        with self._lock:
            open_ = {tp for tp in assigned if self._by_partition[tp] <= half}
            return open_, max(1, half // self._event)

    def take(self, tp: TP, records: Collection[Record]) -> int:
        """Note what was fetched; its weight, which is to be put down once."""
        text = sum(len(record.value or b"") + len(record.key or b"") for record in records)
        weight = _EVENT * len(records) + _TEXT * text
        with self._lock:
            self._by_partition[tp] += weight
            self._event = weight // len(records)
        return weight

    def put_down(self, tp: TP, weight: int) -> None:
        """Note that something is not on its way any more."""
        with self._lock:
            self._by_partition[tp] -= weight


class Carried(list[Any]):
    """Records of one partition and fetch, which count until they are put down, or nobody holds them any more: a
    rebalance may leave them anywhere between Kafka and the lane.

    `run` and `begin`: see `consumer.Fetched`.
    """

    run: int
    begin: int

    def __init__(self, records: Collection[Record], load: Load, tp: TP) -> None:
        super().__init__(records)
        self._load = load
        self._tp = tp
        self._weight = load.take(tp, records)

    def put_down(self) -> None:
        """Let the records go: whatever else still names this fetch does not keep them."""
        weight, self._weight = self._weight, 0
        if weight:
            self._load.put_down(self._tp, weight)
            self.clear()

    def __del__(self) -> None:
        self.put_down()

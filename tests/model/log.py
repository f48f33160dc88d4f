"""The log of the model: a list of records for each shard, and what is true of each of its prefixes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

from runtally.core.changes import Change
from runtally.events.partition import Partitioner
from runtally.store.fence import Batch
from runtally.store.keys import CATALOG
from runtally.store.ledger import LogEnds, Mark
from runtally.stream.log import mark_of

from ..reference import Reference
from ..store.estate import changes_of
from ..strategies.pools import BASE_US

Event = dict[str, Any]

PARTITIONS: Final = 2
RUNS_SHARDS: Final = [*map(str, range(PARTITIONS))]
SHARDS: Final = [*RUNS_SHARDS, CATALOG]
DAY_US: Final = 86_400_000_000
_LOG_APPEND_TIME: Final = 1


class Entry(NamedTuple):
    """A record of the log. Without an event: one that is bad, which moves no watermark."""

    event: Event | None
    change: Change | None
    record_us: int
    value: bytes = b"{"


class PlayedLog:
    """What producers have told, at a time of its own."""

    def __init__(self) -> None:
        self.entries: dict[str, list[Entry]] = {name: [] for name in SHARDS}
        self.now_us = BASE_US
        self.told: list[Event] = []
        self.away = False
        self._partition_of = Partitioner(PARTITIONS)

    def append(self, events: Sequence[Event]) -> None:
        """Events arrive."""
        for event in events:
            for topic in ("runs", "catalog"):
                for change in changes_of([event], topic):
                    name = CATALOG if topic == "catalog" else str(self._partition_of(change))
                    self.entries[name].append(Entry(event, change, self.now_us, json.dumps(event).encode()))
                    self.told.append(event)

    def append_nothing(self, name: str) -> None:
        """A record that says nothing to us."""
        self.entries[name].append(Entry(None, None, self.now_us))

    def end(self, name: str) -> int:
        """The offset after the last record."""
        return len(self.entries[name])

    def ends(self, name: str) -> LogEnds:
        """As a worker finds the partition."""

        async def mark(offset: int) -> Mark:
            return mark_of(self.record(name, offset))

        return LogEnds(0, self.end(name), 1 if name == CATALOG else PARTITIONS, mark)

    def record(self, name: str, offset: int) -> Any:
        """As a consumer gets it."""
        entry = self.entries[name][offset]
        return SimpleNamespace(
            offset=offset,
            timestamp=entry.record_us // 1000,
            timestamp_type=_LOG_APPEND_TIME,
            key=b"",
            value=entry.value,
            headers=(),
        )

    def batch(self, name: str, begin: int, size: int) -> Batch | None:
        """The next records of one day, as a lane cuts them."""
        waiting = self.entries[name][begin : begin + size]
        if not waiting:
            return None
        today = waiting[0].record_us // DAY_US
        entries = [entry for entry in waiting if entry.record_us // DAY_US == today]
        changes = [entry.change for entry in entries if entry.change is not None]
        last = begin + len(entries) - 1
        mark = mark_of(self.record(name, last))
        watermark_us = max((entry.record_us for entry in entries if entry.change is not None), default=0)
        return Batch(begin, last + 1, changes, mark, watermark_us)

    def reference(self, ledger: Mapping[str, int]) -> Reference:
        """What is true where the shards' next offsets are these."""
        reference = Reference()
        for name, after in ledger.items():
            for entry in self.entries[name][:after]:
                if entry.event is not None:
                    reference.apply(entry.event)
        return reference

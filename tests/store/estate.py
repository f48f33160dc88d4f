"""An estate in a real Redis, put there by the real shards, without Kafka: events in batches as a log gives them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from redis.asyncio import Redis

from runtally.api.answer import attempt
from runtally.core.bins import Bins
from runtally.core.cells import CELL, Sums, merged, unpack
from runtally.core.changes import Change
from runtally.core.compare import differences
from runtally.core.fold import fold
from runtally.core.levels import LEVELS, NONE
from runtally.core.rows import NULL, concat
from runtally.errors import BadEventError
from runtally.events.partition import Partitioner
from runtally.events.wire import Ignored, parse
from runtally.settings import Settings
from runtally.store.catalog import CatalogShard
from runtally.store.fence import Batch
from runtally.store.keys import CATALOG, SCOPE_ALL, Keys
from runtally.store.ledger import GENERATION, LogEnds, Mark
from runtally.store.link import Link
from runtally.store.records import DEAD, decode_entity, rows_of
from runtally.store.runs import RunsShard
from runtally.store.view import Place, View

FAR = 1 << 61
"""A record timestamp that makes no clock wrong."""


async def same_record(offset: int) -> Mark | None:
    """The log that the estate's batches come from, wherever one looks."""
    return Mark(offset, 0, 0)


def log(first: int = 0, end: int = 0, partitions: int = 2) -> LogEnds:
    return LogEnds(first, end, partitions, same_record)


def changes_of(events: Iterable[dict[str, Any]], topic: str) -> list[Change]:
    """The good events of one topic."""
    found = []
    for event in events:
        try:
            change = parse(json.dumps(event).encode(), topic=topic, record_us=FAR, max_clock_skew_us=0)  # type: ignore[arg-type]
        except BadEventError:
            continue
        if not isinstance(change, Ignored):
            found.append(change)
    return found


class Estate:
    """All shards of a small cluster, their worker side and a reader's views of them."""

    def __init__(self, redis: Redis, settings: Settings, partitions: int = 2) -> None:
        self.settings = settings
        self.redis = redis
        self.partitions = partitions
        self.runs = [RunsShard(redis, settings, partition) for partition in range(partitions)]
        self.catalog = CatalogShard(redis, settings)
        self._link = Link(redis)
        self._partition_of = Partitioner(partitions)
        self._offsets = dict.fromkeys([*map(str, range(partitions)), CATALOG], 0)
        self.views = [View(settings.redis_prefix, GENERATION, str(p), 1 << 26) for p in range(partitions)]

    async def open(self) -> None:
        for shard in [*self.runs, self.catalog]:
            await shard.open(log(partitions=self.partitions))

    async def close(self) -> None:
        for shard in [*self.runs, self.catalog]:
            await shard.close()
        await self._link.close()

    async def apply(self, events: Sequence[dict[str, Any]], batch_size: int = 7) -> None:
        """Apply events in their order, a few at a time."""
        for begin in range(0, len(events), batch_size):
            part = events[begin : begin + batch_size]
            changes = changes_of(part, "runs")
            for partition, shard in enumerate(self.runs):
                await self._apply(shard, [c for c in changes if self._partition_of(c) == partition])
            await self._apply(self.catalog, changes_of(part, "catalog"))

    async def _apply(self, shard: RunsShard | CatalogShard, changes: list[Change]) -> None:
        if changes:
            await shard.apply(self.batch(shard.name, changes))

    def batch(self, name: str, changes: list[Change]) -> Batch:
        first = self._offsets[name]
        after = self._offsets[name] = first + len(changes)
        return Batch(first, after, changes, Mark(after - 1, 0, 0), 0)

    async def refresh(self, wanted: dict[int, list[Place]] | None = None) -> None:
        wanted = wanted or {}
        while True:
            for position, view in enumerate(self.views):
                places = wanted.get(position, [])
                replies = await self._link.transaction(view.reads(places))
                assert replies is not None
                view.take(places, replies)
            if all(view.fresh for view in self.views):
                return
            wanted = {}

    async def history(self, bins: Bins, now: int) -> list[dict[tuple[str, str], tuple[int, int, int]]]:
        """The answer: per bin, (count, run time, lateness) in µs by state."""
        missing: dict[int, list[Place]] = {}
        while True:
            await self.refresh(missing)
            found = attempt(self.views, bins, now)
            if found.entries is not None:
                return [
                    {e.state: (e.count, e.run_time_us, e.lateness_us) for e in entries} for entries in found.entries
                ]
            missing = found.missing

    async def cell_differences(self) -> list[Any]:
        """Every stored cell held against one made anew from the raw runs; empty when all is well."""
        await self.refresh()
        found: list[Any] = []
        for view in self.views:
            found += await self._shard_differences(view)
        return found

    async def _shard_differences(self, view: View) -> list[Any]:
        keys = Keys(self.settings.redis_prefix, GENERATION, view.shard)
        children = await self._children(keys)
        records: list[bytes] = []
        async for key in self.redis.scan_iter(match=keys.raw(0)[:-1] + b"*", count=1000):
            records += (await self.redis.hgetall(key)).values()
        child = np.array([record[43:59] in children for record in records], np.bool_)
        rows = rows_of(records, child)
        names = view._states
        anew = fold(rows, concat([]), names.type_codes)
        found: list[Any] = []
        for level in LEVELS:
            stored = await self._stored(keys, level.number)
            recomputed = merged(_nothing(level.number), anew[level.number])
            found += differences(stored, recomputed, names)
        assert not (rows.expected == NULL).any() or (await self._stored(keys, 0)).bucket.min() == NONE
        return found

    async def _children(self, keys: Keys) -> set[bytes]:
        """Flow runs that are subflow runs."""
        found = set()
        async for key in self.redis.scan_iter(match=keys.flow_runs(bytes(16))[:-1] + b"*", count=1000):
            for run, record in (await self.redis.hgetall(key)).items():
                if record != DEAD and decode_entity(record, 3).values[13] is not None:
                    found.add(run)
        return found

    async def _stored(self, keys: Keys, level: int) -> Sums:
        start = keys.cells(level, 0)[:-1]
        packed, buckets = [], []
        async for key in self.redis.scan_iter(match=start + b"*", count=1000):
            value = await self.redis.hget(key, SCOPE_ALL)
            if value:
                cells = np.frombuffer(value, CELL)
                bucket = NONE if key.endswith(b":none") else int(key.removeprefix(start))
                packed.append(cells)
                buckets.append(np.full(len(cells), bucket))
        if not packed:
            return _nothing(level)
        return unpack(np.concatenate(packed), np.concatenate(buckets), level)


def _nothing(level: int) -> Sums:
    return unpack(np.zeros(0, CELL), np.zeros(0, np.int64), level)

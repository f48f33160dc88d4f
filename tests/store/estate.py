"""An estate in a real Redis, put there by the real shards, without Kafka: events in batches as a log gives them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from redis.asyncio import Redis

from runtally.api.answer import Question
from runtally.api.cells import Cells
from runtally.api.joined import Joined
from runtally.core.bins import Bins
from runtally.core.cells import CELL, Sums, merged, of_level, summed, unpack
from runtally.core.changes import Change
from runtally.core.cohorts import NO_FLOW_RUN, Cohort, cohort_of
from runtally.core.compare import differences
from runtally.core.fold import fold
from runtally.core.groups import States
from runtally.core.levels import LEVELS, NONE, PAGE
from runtally.core.predicate import TRUE
from runtally.core.rows import NULL
from runtally.core.scopes import SCOPES
from runtally.core.selection import selection_of
from runtally.errors import BadEventError
from runtally.events.partition import Partitioner
from runtally.events.wire import Ignored, parse
from runtally.settings import Settings
from runtally.store.catalog import CatalogShard
from runtally.store.catalog_copy import CatalogCopy
from runtally.store.cohort_book import CohortBook
from runtally.store.fence import Batch
from runtally.store.keys import CATALOG, Keys
from runtally.store.ledger import GENERATION, LogEnds, Mark
from runtally.store.link import Link
from runtally.store.places import Place
from runtally.store.records import DEAD, decode_cohorts, decode_entity, decode_states, flow_run_of, rows_of
from runtally.store.runs import RunsShard
from runtally.store.view import View
from tests.reference.history import Reference

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

    def __init__(
        self, redis: Redis, settings: Settings, partitions: int = 2, generation: str = GENERATION, beside: bool = False
    ) -> None:
        self.settings = settings
        self.redis = redis
        self.partitions = partitions
        self.generation = generation
        self.runs = [RunsShard(redis, settings, number, generation, beside) for number in range(partitions)]
        self.catalog = CatalogShard(redis, settings, generation, beside)
        self._link = Link(redis)
        self._partition_of = Partitioner(partitions)
        self._offsets = dict.fromkeys([*map(str, range(partitions)), CATALOG], 0)
        self.told: dict[str, list[dict[str, Any]]] = {name: [] for name in self._offsets}
        self.watermark_us = 0
        self._cells = Cells(1 << 24)
        self.views = [View(settings.redis_prefix, generation, str(p), 1 << 26) for p in range(partitions)]

    async def open(self) -> None:
        for shard in [*self.runs, self.catalog]:
            await shard.open(log(partitions=self.partitions))

    async def reopen(self) -> None:
        """Take over all shards again, as after a doubt: each goes on where its ledger says."""
        for shard in [*self.runs, self.catalog]:
            after = self._offsets[shard.name] = await shard.open(log(partitions=self.partitions))
            del self.told[shard.name][after:]

    def reference_at(self, ledger: Mapping[str, int]) -> Reference:
        """What is true where the shards' next offsets are these. `told` holds each shard's events by offset."""
        reference = Reference()
        for name, after in ledger.items():
            for event in self.told[name][:after]:
                reference.apply(event)
        return reference

    async def close(self) -> None:
        for shard in [*self.runs, self.catalog]:
            await shard.close()
        await self._link.close()

    async def apply(self, events: Sequence[dict[str, Any]], batch_size: int = 7) -> None:
        """Apply events in their order, a few at a time."""
        for begin in range(0, len(events), batch_size):
            part = events[begin : begin + batch_size]
            told = [(event, change) for event in part for change in changes_of([event], "runs")]
            for partition, shard in enumerate(self.runs):
                await self._apply(shard, [one for one in told if self._partition_of(one[1]) == partition])
            await self._apply(self.catalog, [(event, c) for event in part for c in changes_of([event], "catalog")])

    async def _apply(self, shard: RunsShard | CatalogShard, told: list[tuple[dict[str, Any], Change]]) -> None:
        if told:
            self.told[shard.name] += [event for event, _ in told]
            await shard.apply(self.batch(shard.name, [change for _, change in told]))

    def batch(self, name: str, changes: list[Change]) -> Batch:
        first = self._offsets[name]
        after = self._offsets[name] = first + len(changes)
        return Batch(first, after, changes, Mark(after - 1, 0, 0), self.watermark_us)

    async def refresh(self, wanted: dict[int, list[Place]] | None = None) -> None:
        wanted = wanted or {}
        while True:
            for position, view in enumerate(self.views):
                places = wanted.get(position, [])
                replies = await self._link.transaction(view.reads(places))
                assert replies is not None
                view.take(replies)
            if all(view.fresh for view in self.views):
                return
            wanted = {}

    async def history(self, bins: Bins, now: int) -> list[dict[tuple[str, str], tuple[int, int, int]]]:
        """The answer: per bin, (count, run time, lateness) in µs by state."""
        question = Question(selection_of(TRUE), bins, now)
        nothing = Joined(CatalogCopy(self.settings.redis_prefix, self.generation))
        missing: dict[int, list[Place]] = {}
        while True:
            await self.refresh(missing)
            found = self._cells.answer(question, self.views, nothing)
            if not found.missing:
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
        keys = Keys(self.settings.redis_prefix, self.generation, view.shard)
        names = States(decode_states(await self.redis.lrange(keys.states, 0, -1)))
        book = CohortBook(self.settings.max_cohorts, decode_cohorts(await self.redis.lrange(keys.cohorts, 0, -1)))
        flow_runs = await self._flow_runs(keys)
        records: list[bytes] = []
        async for key in self.redis.scan_iter(match=keys.raw(0)[:-1] + b"*", count=1000):
            records += (await self.redis.hgetall(key)).values()
        cohorts = np.array([book.number(_cohort(record, flow_runs)) for record in records], np.int64)
        assert not book.fresh
        rows = rows_of(records, book.child()[cohorts] if len(book) else np.zeros(0, np.bool_))
        anew = summed(fold(rows, len(rows), cohorts, book.scopes(), names.type_codes))
        found: list[Any] = []
        stored = {level.number: await self._stored(keys, level.number, book) for level in LEVELS}
        for level in LEVELS:
            recomputed = merged(_nothing(level.number), of_level(anew, level.number))
            found += differences(stored[level.number], recomputed, names)
        assert not (rows.expected == NULL).any() or stored[0].bucket.min() == NONE
        return found

    async def _flow_runs(self, keys: Keys) -> dict[bytes, Any]:
        """The values of all flow runs that are not deleted."""
        found = {}
        async for key in self.redis.scan_iter(match=keys.flow_runs(bytes(16))[:-1] + b"*", count=1000):
            for run, record in (await self.redis.hgetall(key)).items():
                if record != DEAD:
                    found[run] = decode_entity(record, 3).values
        return found

    async def _stored(self, keys: Keys, level: int, book: CohortBook) -> Sums:
        packed, buckets, scopes = [], [], []
        for kind in SCOPES:
            start = keys.cells(kind, level, 0)[:-1]
            async for key in self.redis.scan_iter(match=start + b"*", count=1000):
                page = NONE if key.endswith(b":none") else int(key.removeprefix(start))
                for field, value in (await self.redis.hgetall(key)).items():
                    cells = np.frombuffer(value, CELL)
                    packed.append(cells)
                    buckets.append(np.full(len(cells), page * PAGE[level] + int(field[-1:])))
                    scopes.append(np.full(len(cells), book.names.index((kind, field[:-1]))))
        if not packed:
            return _nothing(level)
        return unpack(np.concatenate(packed), np.concatenate(buckets), np.concatenate(scopes), level)


def _cohort(record: bytes, flow_runs: dict[bytes, Any]) -> Cohort:
    flow_run = flow_run_of(record)
    return NO_FLOW_RUN if flow_run is None else cohort_of(flow_runs.get(flow_run))


def _nothing(level: int) -> Sums:
    nothing = np.zeros(0, np.int64)
    return unpack(np.zeros(0, CELL), nothing, nothing, level)

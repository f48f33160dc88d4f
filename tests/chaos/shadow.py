"""A clean rebuild: the same log applied by the same code, where nothing ever happens; and what two stores differ in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import httpx
import numpy as np
from redis.asyncio import Redis

from runtally.core.cells import CELL
from runtally.core.groups import FLAG_BITS, States
from runtally.core.scopes import COHORT
from runtally.errors import BadEventError
from runtally.events.partition import Partitioner
from runtally.events.snapshots import parse_all
from runtally.events.wire import Ignored
from runtally.settings import Settings
from runtally.store.fence import Batch
from runtally.store.index import gone
from runtally.store.keys import CATALOG, Keys
from runtally.store.ledger import GENERATION, LogEnds, Mark
from runtally.store.records import (
    decode_cohorts,
    decode_entity,
    decode_states,
    decode_task_run,
)
from runtally.store.shard import Shard, shard
from runtally.stream.intake import by_day
from runtally.stream.log import mark_of

from ..asking import Asking, asking
from .log import Log

_BATCH: Final = 3000
_MOST_SHOWN: Final = 20
_READY_WITHIN_S: Final = 60
_NOT_COMPARED: Final = (b"ledger", b"states", b"cohorts", b"days", b"touched", b"touched_ids", b"rebuild", b"leaving")
_STATE_FIELDS: Final = {b"flow_runs": 3, b"flows": 0, b"deployments": 0}

Contents = dict[tuple[Any, ...], Any]
"""What a shard holds, without the numbers that each writer gives by itself: (key, field …) → value."""


class Shadow:
    """All shards of a log in a Redis of their own."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self.settings = settings
        self._redis = Redis.from_url(settings.redis_url, protocol=2)
        self._log = log
        self._partition_of = Partitioner(settings.partitions)
        self._shards: dict[str, Shard] = {}
        self._stack = AsyncExitStack()
        self._api: Asking | None = None
        self._applied = dict.fromkeys(log.records, 0)

    async def start(self) -> None:
        """Begin with nothing."""
        for name in self._log.records:
            self._shards[name] = shard(self._redis, self.settings, name, GENERATION)
            count = 1 if name == CATALOG else self.settings.partitions
            await self._shards[name].open(LogEnds(0, 0, count, _no_record))

    async def stop(self) -> None:
        """Disconnect."""
        for one in self._shards.values():
            await one.close()
        await self._stack.aclose()
        await self._redis.aclose()

    async def follow(self, batch: int = _BATCH) -> None:
        """Apply what has been read of the log since, so many records at once."""
        for name, records in self._log.records.items():
            for at in range(self._applied[name], len(records), batch):
                here = self._shards[name]
                for part in by_day(records[at : at + batch], here.watermark_us, time.time_ns() // 1000):
                    await self._apply(here, part)
            self._applied[name] = len(records)

    async def differences(self, settings: Settings, generation: str = GENERATION) -> list[str]:
        """How another store of the same log differs, in words."""
        found: list[str] = []
        async with Redis.from_url(settings.redis_url, protocol=2) as other:
            for name in self._shards:
                have = await contents(other, settings, name, generation)
                want = await contents(self._redis, self.settings, name)
                found += [f"shard {name}: {one}" for one in differences(have, want)[:_MOST_SHOWN]]
        return found

    async def asked(self, path: str, body: dict[str, Any], now_us: int) -> httpx.Response:
        """What an API of its own says at a moment."""
        if self._api is None:
            self._api = await self._stack.enter_async_context(asking(self.settings))
        self._api.now_us = now_us
        deadline = time.monotonic() + _READY_WITHIN_S
        while (answer := await self._api.client.post(path, json=body)).status_code == 503:
            assert time.monotonic() < deadline, answer.text
            await asyncio.sleep(0.05)
        return answer

    async def _apply(self, here: Shard, records: Sequence[Any]) -> None:
        name = here.name
        found = parse_all(
            [record.value for record in records],
            topic="catalog" if name == CATALOG else "runs",
            records_us=[record.timestamp * 1000 for record in records],
            max_clock_skew_us=self.settings.max_clock_skew,
        )
        changes = [
            one
            for one in found
            if not isinstance(one, BadEventError | Ignored)
            and (name == CATALOG or str(self._partition_of(one)) == name)
        ]
        watermark_us = max(record.timestamp for record in records) * 1000
        await here.apply(Batch(here.next_offset, records[-1].offset + 1, changes, mark_of(records[-1]), watermark_us))


async def _no_record(offset: int) -> Mark | None:
    raise AssertionError(offset)


async def contents(redis: Redis, settings: Settings, name: str, generation: str = GENERATION) -> Contents:
    """What a shard holds."""
    keys = Keys(settings.redis_prefix, generation, name)
    states = States(decode_states(await redis.lrange(keys.states, 0, -1)))
    cohorts = decode_cohorts(await redis.lrange(keys.cohorts, 0, -1))
    found: Contents = {}
    async for key in redis.scan_iter(match=keys.root + b"*", count=5000):
        kind, _, rest = key.removeprefix(keys.root).partition(b":")
        if kind == b"raw":
            for run, record in (await redis.hgetall(key)).items():
                found[kind, rest, run] = decode_task_run(record, states.names)
        elif kind in (b"members", b"single"):
            found |= {(kind, rest, run): _entry(int(at)) for run, at in (await redis.hgetall(key)).items()}
        elif kind in _STATE_FIELDS:
            for own_id, record in (await redis.hgetall(key)).items():
                found[kind, own_id] = decode_entity(record, _STATE_FIELDS[kind]) if record else None
        elif kind == b"cells":
            for field, packed in (await redis.hgetall(key)).items():
                scope, child = field[:-1], field[-1:]
                named = cohorts[int(scope)] if rest.startswith(COHORT.letter.encode()) else scope
                found |= {(kind, rest, child, named, group): sums for group, sums in _cells(packed, states)}
        else:
            assert kind in _NOT_COMPARED, key
    return found


def _entry(at: int) -> Any:
    """An entry of the index; the day of a deleted one is that of the batch in which it was deleted."""
    found = gone(at)
    return at if found is None else "deleted" if found.deleted else found


def _cells(packed: bytes, states: States) -> Iterator[tuple[Any, Any]]:
    cells = np.frombuffer(packed, CELL)
    columns = [cells[name].tolist() for name in ("group", "wide", "n", "a", "b")]
    for group, wide, n, a, b in zip(*columns, strict=True):
        state = states.names[group >> FLAG_BITS]
        yield (state, group & ((1 << FLAG_BITS) - 1)), (n, None, None) if wide else (n, a, b)


def differences(have: Mapping[Any, Any], want: Mapping[Any, Any]) -> list[str]:
    """What is not as it should be, in words."""
    return [
        f"{place}: {have.get(place, 'nothing')} instead of {want.get(place, 'nothing')}"
        for place in [*dict.fromkeys([*want, *have])]
        if have.get(place, _NOTHING) != want.get(place, _NOTHING)
    ]


_NOTHING: Final = object()

"""`runtally rebuild --from-log`: a fresh generation of the data, filled from the log's beginning beside the live one.

Workers and API go on with the live generation meanwhile. The new one follows up to where that is and never further:
what a worker does with a record besides counting it (dead letters, forwarding) is done exactly by those that it passes.
When both are at the same offsets the new one becomes live, and the old one is removed.

What was filled stays when the command is interrupted; the next one goes on with it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from ..errors import FencedError, LedgerTroubleError, ServerLostError, SystemError_, UserError
from ..events.partition import Partitioner
from ..events.publish import Publisher
from ..events.reader import reader, stop_reading
from ..settings import Settings
from ..store import generations
from ..store.connect import connect
from ..store.keys import CATALOG, FORMAT
from ..store.ledger import Live, check_format
from ..store.link import Link
from ..store.shard import Shard, shard
from ..stream.intake import by_day
from ..stream.log import Log
from ..stream.replay import Replay
from .live import live_data

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger(__name__)

_FETCH_BYTES: Final = 3 << 20
_RECORDS: Final = 20_000
_POLL_MS: Final = 200
_SILENT_S: Final = 5.0
"""After so long without a record Kafka is asked whether it is there."""
_STUCK_S: Final = 30.0
_EXACT_S: Final = 10.0
"""For so long both generations are waited for to be at the same offsets. On a busy log that may never be; then the new
one is a moment behind when it becomes live."""

Progress = Callable[[str, int, int | None], None]
"""Called with what is done: a shard's name or `old keys`, how much of it, and how much there is, None if not known."""


@dataclass(frozen=True, slots=True)
class Filled:
    """What was done: the generation that is live now and the one before, the records that were read, how many of the
    runs that were counted before are not any more, and how many records the new generation was behind when it became
    live."""

    generation: str
    before: str
    records: int
    lost: int
    behind: int
    seconds: float

    def as_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self))


async def rebuild_from_log(settings: Settings, lose_events: bool, progress: Progress) -> Filled:
    """Fill the next generation, make it live, remove the one before.

    Raises `UserError` when there are no data, or when the log does not make all runs that are counted now (unless
    `lose_events`), `UnfitServerError` for data of a newer format, `SystemError_` for what else is in the way. What was
    filled is gone on with when it is asked for again.
    """
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        redis = await connect(settings, any_format=True)
        link, live = await live_data(stack, redis, settings)
        if live.format > FORMAT:
            check_format(live.format, settings.redis_prefix)
        try:
            live = await _remove(link, settings, live, progress)
            live = await generations.begin(link, settings, live)
            filling = await stack.enter_async_context(_Filling(redis, link, settings, live, progress))
            await filling.fill()
            lost = await filling.lost()
            if lost and not lose_events:
                raise UserError(
                    f"the log makes {lost:,} fewer runs than are counted now: it does not go back to their events any "
                    "more. Nothing has changed. With --yes-lose-events the new data become live without them"
                )
            live, behind = await filling.switch()
            log.info("generation %s is live", live.generation)
            before = live.fading[-1]
            await _remove(link, settings, live, progress)
        except FencedError as error:
            raise SystemError_(f"{error}. Is another `runtally rebuild --from-log` running?") from None
        except ServerLostError as error:
            raise ServerLostError(f"{error}. What was filled stays: ask once more when it is back") from None
    return Filled(live.generation, before, filling.records, lost, behind, round(time.monotonic() - began, 3))


async def _remove(link: Link, settings: Settings, live: Live, progress: Progress) -> Live:
    return await generations.remove(link, settings, live, lambda gone: progress("old keys", gone, None))


class _Filling:
    """The shards of the new generation, and a consumer of all partitions that belongs to no group."""

    def __init__(self, redis: Redis, link: Link, settings: Settings, live: Live, progress: Progress) -> None:
        self._redis = redis
        self._link = link
        self._settings = settings
        self._live = live
        self._progress = progress
        self._stack = AsyncExitStack()
        self._partition_of = Partitioner(live.partitions)
        self._shards: dict[TopicPartition, Shard] = {}
        self._intakes: dict[TopicPartition, Replay] = {}
        self._ends: dict[str, int] = {}
        self._log = Log(settings)
        self._away = False
        self.records = 0

    async def __aenter__(self) -> _Filling:
        try:
            await self._begin()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def fill(self) -> None:
        """Until each shard is where its live one is."""
        moved = time.monotonic()
        while True:
            targets = await self._targets()
            if all(shard.next_offset >= targets[shard.name] for shard in self._shards.values()):
                return
            records = await self._step(targets)
            silent_s = time.monotonic() - moved
            if records or (silent_s > _SILENT_S and await self._is_away()):
                moved = time.monotonic()
            elif silent_s > _STUCK_S:
                late = {s.name: s.next_offset for s in self._shards.values() if s.next_offset < targets[s.name]}
                raise SystemError_(
                    f"Kafka gives nothing after the offsets {late} of these shards, but the live data go up to "
                    f"{ {name: targets[name] for name in late} }: they are of another log"
                )

    async def lost(self) -> int:
        """How many runs fewer there are than in the live generation, but for those whose events are behind. Of a live
        generation of another format nothing is known."""
        if self._live.format != FORMAT:
            return 0
        lost = 0
        for one in self._shards.values():
            if one.name != CATALOG:
                before, at = await generations.runs_in(self._link, self._settings, self._live.generation, one.name)
                now, reached = await generations.runs_in(self._link, self._settings, self._live.filling, one.name)
                # Where the live shard has lost its ledger it is the one that is behind.
                lost += max(0, before - now - max(0, at - reached))
        return lost

    async def switch(self) -> tuple[Live, int]:
        """Make the generation live where it is exactly where the live one is, or nearly so after a while; how many
        records it was behind then."""
        deadline = time.monotonic() + _EXACT_S
        while True:
            await self.fill()
            targets = await self._targets()
            behind = sum(max(0, targets[one.name] - one.next_offset) for one in self._shards.values())
            if not behind or time.monotonic() > deadline:
                return await generations.switch(self._link, self._settings, self._live), behind

    async def _begin(self) -> None:
        settings = self._settings
        self._stack.push_async_callback(self._log.close)
        count = await self._log.partitions(settings.runs_topic)
        if count != self._live.partitions:
            raise UserError(
                f"the topic {settings.runs_topic} has {count} partitions, the data were made from "
                f"{self._live.partitions}: start workers with another RUNTALLY_REDIS_PREFIX to build everything anew"
            )
        places = [TopicPartition(settings.runs_topic, number) for number in range(count)]
        for place in [*places, TopicPartition(settings.catalog_topic, 0)]:
            await self._open(place)
        async with Publisher(settings) as publisher:
            isolation = "read_committed" if publisher.transactional else "read_uncommitted"
        try:
            self._consumer = await reader(
                settings,
                auto_offset_reset="none",
                isolation_level=isolation,
                max_partition_fetch_bytes=_FETCH_BYTES,
            )
        except KafkaError as error:
            raise ServerLostError(f"Kafka at {settings.kafka} is away: {error}") from error
        self._stack.push_async_callback(stop_reading, self._consumer)
        self._consumer.assign([*self._shards])
        for place, one in self._shards.items():
            self._consumer.seek(place, one.next_offset)

    async def _open(self, place: TopicPartition) -> None:
        settings = self._settings
        catalog = place.topic == settings.catalog_topic
        name = CATALOG if catalog else str(place.partition)
        one = shard(self._redis, settings, name, self._live.filling, beside=True)
        self._stack.push_async_callback(one.close)
        ends = await self._log.ends(place.topic, place.partition)
        try:
            await one.open(ends)
        except LedgerTroubleError:
            trouble = "the log is another one than that it was begun from"
        else:
            trouble = "it was begun by a version with other cells" if one.outdated else ""
        if trouble:
            await generations.give_up(self._link, settings, self._live)
            raise SystemError_(f"what an earlier rebuild filled is given up, because {trouble}. Ask once more")
        self._shards[place] = one
        self._ends[name] = ends.end
        topic: Literal["runs", "catalog"] = "catalog" if catalog else "runs"
        partition_of = Partitioner(1) if catalog else self._partition_of
        self._intakes[place] = Replay(settings, topic, place.partition, partition_of)

    async def _targets(self) -> Mapping[str, int]:
        """Where the live generation is; the log's end where it has no ledger."""
        found = await generations.next_offsets(self._link, self._settings, self._live, self._live.generation)
        return {name: self._ends[name] if offset is None else offset for name, offset in found.items()}

    async def _is_away(self) -> bool:
        """Whether Kafka is away, logged once: the consumer would say nothing, and goes on by itself when it is back."""
        away = False
        try:
            await self._log.partitions(self._settings.runs_topic)
        except ServerLostError as error:
            away = True
            if not self._away:
                log.warning("%s; waiting for it", error)
        self._away = away
        return away

    async def _step(self, targets: Mapping[str, int]) -> int:
        """Apply what comes next of the log, up to the targets; how many records that were."""
        count = 0
        try:
            fetched: Mapping[TopicPartition, list[Any]] = await self._consumer.getmany(
                timeout_ms=_POLL_MS, max_records=_RECORDS
            )
        except KafkaError as error:
            raise ServerLostError(f"Kafka at {self._settings.kafka} is away: {error}") from error
        for place, records in fetched.items():
            one = self._shards[place]
            target = targets[one.name]
            wanted = [record for record in records if record.offset < target]
            if len(wanted) < len(records):
                self._consumer.seek(place, wanted[-1].offset + 1 if wanted else records[0].offset)
            if wanted:
                now_us = time.time_ns() // 1000
                for part in by_day(wanted, one.watermark_us, now_us):
                    await one.apply(await self._intakes[place].batch(one.next_offset, part, now_us))
                count += len(wanted)
                self._progress(f"shard {one.name}", one.next_offset, target)
        self.records += count
        if not count:
            await asyncio.sleep(_POLL_MS / 1000)
        return count

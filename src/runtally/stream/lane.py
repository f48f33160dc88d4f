"""One partition's way from Kafka to Redis: opened at the ledger, applied batch by batch, pulsed once a second."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

from faust.types import TP

from ..errors import FencedError, LedgerTroubleError, ServerLostError, TooManyBadError
from ..metrics import Metrics
from ..store.shard import Batch, Shard
from .consumer import BatchConsumer, Fetched
from .intake import Intake, by_day
from .load import Turns
from .log import Log

log = logging.getLogger(__name__)

_ENOUGH: Final = 4000
"""Records of a batch, from which on no more are joined to it."""
_FIRST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 2.0

LaneState = Literal["waiting", "live", "stopped"]


class Lane:
    """A shard and the partition it follows.

    Batches are applied in their order, one at a time; whatever does not begin where the ledger ends leads to
    opening the shard anew and seeking. `trouble` says why a lane is not live, "" when it is.
    """

    def __init__(
        self, consumer: BatchConsumer, log_: Log, shard: Shard, intake: Intake, metrics: Metrics, turns: Turns, tp: TP
    ) -> None:
        self._consumer = consumer
        self._log = log_
        self._shard = shard
        self._intake = intake
        self._metrics = metrics
        self._say = logging.LoggerAdapter(log, {"shard": shard.name})
        self._count = metrics.of_shard(shard.name)
        self._turns = turns
        self._tp = tp
        # What may be in it is the load's to say.
        self._queue: asyncio.Queue[Fetched] = asyncio.Queue()
        self._turn = asyncio.Lock()
        self._run = -1
        self._settled: tuple[int, int] | None = None
        self._leaving = False
        self._reason = "assigned"
        self._outdated = False
        self.state: LaneState = "waiting"
        self.trouble = "not opened yet"

    @property
    def name(self) -> str:
        """The shard's name."""
        return self._shard.name

    @property
    def next_offset(self) -> int | None:
        """Where the partition goes on, None before the ledger has been read."""
        return self._shard.next_offset if self.state == "live" else None

    @property
    def numbered(self) -> Mapping[str, int]:
        """See `Shard.numbered`."""
        return self._shard.numbered

    def put(self, fetched: Fetched) -> None:
        """Take a fetched batch; it is applied after earlier ones."""
        if self.state == "stopped":
            fetched.put_down()
        else:
            self._queue.put_nowait(fetched)

    async def run(self) -> None:
        """Apply batches until cancelled; a batch in hand is finished first."""
        held: Fetched | None = None
        while True:
            parts, held = self._with_following(held or await self._queue.get())
            await asyncio.shield(asyncio.ensure_future(self._work_off(parts)))

    async def idle(self) -> None:
        """Return when no batch is in hand, and take up no other: before the partition is given up."""
        self._leaving = True
        async with self._turn:
            return

    async def pulse(self) -> None:
        """Open the shard if it is not, also one that stopped, once somebody has repaired it; else see whether the
        ledger is still as this worker left it."""
        if self._turn.locked():
            return
        async with self._turn:
            try:
                if self.state == "stopped":
                    # Cells of another version are rebuilt by `rebuild`, which says so.
                    if not self._outdated and await self._shard.repaired():
                        self._reason = "repaired"
                        await self._open()
                elif self.state == "waiting" or self._run != self._consumer.run_of(self._tp):
                    await self._open()
                elif not await self._shard.pulse(await self._position()):
                    self._say.warning("shard %s: the ledger is not as this worker left it; reading it again", self.name)
                    self._reason = "moved"
                    await self._open()
            except FencedError as error:
                self._wait_for(error, "fenced")
            except ServerLostError as error:
                self._wait_for(error, "lost")

    async def rebuild(self) -> None:
        """Do what is asked for of a rebuild, a day at a time; batches are applied between them."""
        more = True
        while more and not self._leaving:
            async with self._turn:
                if self.state != "live" and not self._outdated:
                    return
                try:
                    more = await self._shard.step()
                    if self._outdated and not self._shard.outdated:
                        self._say.info("shard %s: its cells are rebuilt", self.name)
                        self._outdated, self._reason, self.state = False, "rebuilt", "waiting"
                except FencedError as error:
                    self._wait_for(error, "fenced")
                except ServerLostError as error:
                    self._wait_for(error, "lost")

    async def close(self) -> None:
        """Give the shard up."""
        self.state, self.trouble, self._outdated = "waiting", "revoked", False
        self._empty_queue()
        await self._shard.close()

    def _with_following(self, first: Fetched) -> tuple[list[Fetched], Fetched | None]:
        """A batch and what is waiting behind it and goes on without a gap: a commit costs as much as some thousand
        events. Besides, what was taken from the queue and is not to be of it."""
        parts, count, work, last = [first], len(first.records), first.work, first.records[-1].offset
        while count < _ENOUGH and not self._queue.empty():
            following = self._queue.get_nowait()
            count, work = count + len(following.records), work + following.work
            goes_on = following.run == first.run and last + 1 == following.begin == following.records[0].offset
            if not goes_on or work > self._turns.batch:
                return parts, following
            parts.append(following)
            last = following.records[-1].offset
        return parts, None

    async def _work_off(self, parts: Sequence[Fetched]) -> None:
        """Apply fetches as one batch, or drop them, and put them down."""
        first = parts[0]
        records = first.records if len(parts) == 1 else [record for part in parts for record in part.records]
        try:
            await self._patiently(replace(first, records=records, work=sum(part.work for part in parts)))
        finally:
            for part in parts:
                part.put_down()

    async def _patiently(self, fetched: Fetched) -> None:
        """Apply a batch, waiting for servers that are away as long as it takes."""
        wait = _FIRST_WAIT_S
        async with self._turn:
            while self._is_wanted(fetched):
                try:
                    async with self._turns.turn(fetched.work):
                        if self._is_wanted(fetched):
                            await self._apply_or_stop(fetched)
                    return
                except FencedError as error:
                    self._wait_for(error, "fenced")
                except ServerLostError as error:
                    self._wait_for(error, "lost")
                await asyncio.sleep(wait)
                wait = min(wait * 2, _LONGEST_WAIT_S)

    def _is_wanted(self, fetched: Fetched) -> bool:
        return not self._leaving and self.state != "stopped" and fetched.run == self._consumer.run_of(self._tp)

    async def _apply_or_stop(self, fetched: Fetched) -> None:
        try:
            await self._apply(fetched)
        except (LedgerTroubleError, TooManyBadError) as error:
            # The shard has no ledger from here on, so nobody may ask it for one.
            self.state = "waiting"
            await self._shard.stop(error.detail)
            await self._stop(error.detail)

    async def _apply(self, fetched: Fetched) -> None:
        if self.state != "live" or self._run != fetched.run or self._shard.next_offset != fetched.begin:
            await self._open()
            return
        if await self._hole(fetched):
            await self._open()
            return
        now_us = time.time_ns() // 1000
        begin = fetched.begin
        for records in by_day(fetched.records, self._shard.watermark_us, now_us):
            batch = await self._apply_records(begin, records, now_us)
            if batch is None:
                return
            begin = batch.next_offset

    async def _apply_records(self, begin: int, records: Sequence[Any], now_us: int) -> Batch | None:
        """Apply records of one day; None when the lane is left before that."""
        started = time.monotonic()
        try:
            batch = await self._intake.batch(begin, records, now_us)
        except TooManyBadError as error:
            good = [record for record in records if record.offset < error.offset]
            if good:
                await self._apply_records(begin, good, now_us)
            raise
        parse_s = time.monotonic() - started
        while await self._shard.expire(batch.watermark_us):
            if self._leaving:
                return None
        started = time.monotonic()
        applied = await self._shard.apply(batch)
        commit_s = time.monotonic() - started
        count = self._count
        count["batch_events"].observe(len(records))
        count["batch_seconds"].observe(parse_s + commit_s)
        count["commit_seconds"].observe(commit_s)
        count["events_applied_total"].inc(applied.changed)
        count["events_stale_total"].inc(applied.stale)
        count["events_duplicate_total"].inc(applied.duplicate)
        count["events_frozen_total"].inc(applied.frozen)
        self._metrics["delay_seconds"].labels(self.name).set(time.time() - records[-1].timestamp / 1000)
        return batch

    async def _open(self) -> None:
        """Read the ledger, drop the caches, seek; the batches on their way belong to an earlier run then."""
        # The shard has no ledger meanwhile, so nobody may ask it for one.
        self.state, self._outdated = "waiting", False
        ends = await self._log.ends(self._tp.topic, self._tp.partition)
        try:
            offset = await self._shard.open(ends)
        except LedgerTroubleError as error:
            await self._stop(error.detail)
            return
        if self._shard.outdated:
            self._outdated = True
            await self._stop(self._shard.outdated)
            return
        if not await self._consumer.restart_at(self._tp, offset):
            raise FencedError(self.name, "its partition was given to another worker in this moment")
        self._run = self._consumer.run_of(self._tp)
        self._metrics["seeks_total"].labels(self.name, self._reason).inc()
        self._reason = "assigned"
        if self.trouble and self.trouble not in ("not opened yet", "revoked"):
            self._say.info("shard %s goes on at offset %d", self.name, offset)
        self.state, self.trouble = "live", ""

    async def _stop(self, trouble: str) -> None:
        """Until somebody decides; the ledger tells the trouble too."""
        self.state, self.trouble = "stopped", trouble
        self._say.error("shard %s: %s. This shard stops, the others go on", self.name, trouble)
        self._empty_queue()
        # A log that nobody applies would be read to its end.
        await self._consumer.hold(self._tp)

    def _empty_queue(self) -> None:
        while not self._queue.empty():
            self._queue.get_nowait().put_down()

    async def _hole(self, fetched: Fetched) -> bool:
        """Whether records are gone between where the fetch was due and where it began. Control records leave such gaps
        too; but when the log itself begins later than that, aiokafka has gone there by itself."""
        began = fetched.records[0].offset
        if began <= fetched.begin:
            return bool(began < fetched.begin)
        return await self._log.first(self._tp.topic, self._tp.partition) > fetched.begin

    async def _position(self) -> int | None:
        """The consumer's position, if nothing that it has passed can still be on its way to us."""
        now = (self._shard.next_offset, await self._consumer.position(self._tp) or 0)
        settled = now == self._settled and self._consumer.due(self._tp) == now[0]
        self._settled = now
        return now[1] if settled else None

    def _wait_for(self, error: FencedError | ServerLostError, reason: str) -> None:
        if self.state == "stopped" and not self._outdated:
            return
        if self.trouble != str(error):
            self._say.warning("shard %s: %s; waiting", self.name, error)
        if reason == "fenced":
            self._count["fenced_total"].inc()
        self._reason = reason
        self._outdated = False
        self.state, self.trouble = "waiting", str(error)

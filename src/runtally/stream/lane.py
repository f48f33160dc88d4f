"""One partition's way from Kafka to Redis: opened at the ledger, applied batch by batch, pulsed once a second."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import Final, Literal

from faust.types import TP

from ..errors import FencedError, LedgerTroubleError, ServerLostError, TooManyBadError
from ..metrics import Metrics
from ..store.shard import Shard
from .consumer import BatchConsumer, Fetched
from .intake import Intake
from .log import Log

log = logging.getLogger(__name__)

_QUEUE: Final = 4
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
        self, consumer: BatchConsumer, log_: Log, shard: Shard, intake: Intake, metrics: Metrics, tp: TP
    ) -> None:
        self._consumer = consumer
        self._log = log_
        self._shard = shard
        self._intake = intake
        self._metrics = metrics
        self._tp = tp
        self._queue: asyncio.Queue[Fetched] = asyncio.Queue(_QUEUE)
        self._turn = asyncio.Lock()
        self._run = -1
        self._settled: tuple[int, int] | None = None
        self._leaving = False
        self._reason = "assigned"
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

    async def put(self, fetched: Fetched) -> None:
        """Take a fetched batch; waits while earlier ones are being applied."""
        if self.state != "stopped":
            await self._queue.put(fetched)

    async def run(self) -> None:
        """Apply batches until cancelled; a batch in hand is finished first."""
        held: Fetched | None = None
        while True:
            fetched, held = self._with_following(held or await self._queue.get())
            await asyncio.shield(asyncio.ensure_future(self._patiently(fetched)))

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
                    if await self._shard.repaired():
                        self._reason = "repaired"
                        await self._open()
                elif self.state == "waiting" or self._run != self._consumer.run_of(self._tp):
                    await self._open()
                elif not await self._shard.pulse(await self._position()):
                    log.warning("shard %s: the ledger is not as this worker left it; reading it again", self.name)
                    self._reason = "moved"
                    await self._open()
            except FencedError as error:
                self._wait_for(error, "fenced")
            except ServerLostError as error:
                self._wait_for(error, "lost")

    async def close(self) -> None:
        """Give the shard up."""
        self.state, self.trouble = "waiting", "revoked"
        await self._shard.close()

    def _with_following(self, first: Fetched) -> tuple[Fetched, Fetched | None]:
        """What is waiting behind a batch and goes on without a gap, joined to it: a commit costs as much as some
        thousand events. Besides, what was taken from the queue and does not go on so."""
        records = list(first.records)
        while len(records) < _ENOUGH and not self._queue.empty():
            following = self._queue.get_nowait()
            if (
                following.run != first.run
                or not records[-1].offset + 1 == following.begin == following.records[0].offset
            ):
                return replace(first, records=records), following
            records += following.records
        return replace(first, records=records), None

    async def _patiently(self, fetched: Fetched) -> None:
        """Apply a batch, waiting for servers that are away as long as it takes."""
        wait = _FIRST_WAIT_S
        async with self._turn:
            while not self._leaving and self.state != "stopped" and fetched.run == self._consumer.run_of(self._tp):
                try:
                    await self._apply_or_stop(fetched)
                    return
                except FencedError as error:
                    self._wait_for(error, "fenced")
                except ServerLostError as error:
                    self._wait_for(error, "lost")
                await asyncio.sleep(wait)
                wait = min(wait * 2, _LONGEST_WAIT_S)

    async def _apply_or_stop(self, fetched: Fetched) -> None:
        try:
            await self._apply(fetched)
        except TooManyBadError as error:
            good = [record for record in fetched.records if record.offset < error.offset]
            if good:
                await self._apply(replace(fetched, records=good))
            await self._shard.stop(error.detail)
            self._stop(error)
        except LedgerTroubleError as error:
            await self._shard.stop(error.detail)
            self._stop(error)

    async def _apply(self, fetched: Fetched) -> None:
        if self.state != "live" or self._run != fetched.run or self._shard.next_offset != fetched.begin:
            await self._open()
            return
        if await self._hole(fetched):
            await self._open()
            return
        started = time.monotonic()
        batch = await self._intake.batch(fetched.begin, fetched.records, time.time_ns() // 1000)
        applied = await self._shard.apply(batch)
        count = self._metrics
        count["batches_total"].labels(self.name).inc()
        count["batch_seconds"].labels(self.name).observe(time.monotonic() - started)
        count["events_applied_total"].labels(self.name).inc(applied.changed)
        count["events_stale_total"].labels(self.name).inc(applied.stale)
        count["delay_seconds"].labels(self.name).set(time.time() - fetched.records[-1].timestamp / 1000)

    async def _open(self) -> None:
        """Read the ledger, drop the caches, seek; the batches on their way belong to an earlier run then."""
        # The shard has no ledger meanwhile, so nobody may ask it for one.
        self.state = "waiting"
        ends = await self._log.ends(self._tp.topic, self._tp.partition)
        try:
            offset = await self._shard.open(ends)
        except LedgerTroubleError as error:
            self._stop(error)
            return
        await self._consumer.restart_at(self._tp, offset)
        self._run = self._consumer.run_of(self._tp)
        self._metrics["reopened_total"].labels(self.name, self._reason).inc()
        self._reason = "assigned"
        if self.trouble and self.trouble not in ("not opened yet", "revoked"):
            log.info("shard %s goes on at offset %d", self.name, offset)
        self.state, self.trouble = "live", ""

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

    def _stop(self, error: LedgerTroubleError | TooManyBadError) -> None:
        """Until somebody decides, which the ledger shows."""
        self.state, self.trouble = "stopped", error.detail
        log.error("%s. This shard stops, the others go on", error)
        while not self._queue.empty():
            self._queue.get_nowait()

    def _wait_for(self, error: FencedError | ServerLostError, reason: str) -> None:
        if self.state == "stopped":
            return
        if self.trouble != str(error):
            log.warning("shard %s: %s; waiting", self.name, error)
        self._reason = reason
        self.state, self.trouble = "waiting", str(error)

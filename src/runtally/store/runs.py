"""A shard of runs: task runs, flow runs, their index and their cells, changed one batch at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from redis.asyncio import Redis

from ..core.cells import Sums, joined, summed
from ..core.fold import fold
from ..core.groups import FIRST_STATE, States
from ..core.levels import DAY_US, NONE
from ..core.retention import day_of, horizons
from ..settings import Settings
from .cohort_book import CohortBook
from .edit import Edit, Side, Work
from .expiry import Expiry
from .families import Families
from .fence import Applied, Batch, Fence
from .ledger import GENERATION, LogEnds, needs_log, outdated
from .rebuild import Rebuild, read_request, refusal, requested
from .records import decode_cohorts, decode_states, rows_of
from .rollups import Rollups

_FOLDS: Final = 20
"""So many folds of members of a large family are added up, so that they stay small."""


class RunsShard:
    """One partition of the runs topic, as this worker holds it. See `fence` for who may write."""

    def __init__(
        self, redis: Redis, settings: Settings, partition: int, generation: str = GENERATION, beside: bool = False
    ) -> None:
        self.name = str(partition)
        self._fence = Fence(redis, settings, self.name, generation, beside)
        self._turn = asyncio.Lock()
        self._families = Families(self._fence, settings.worker_cache // 2 // settings.partitions)
        self._rollups = Rollups(self._fence, settings.worker_cache // 2 // settings.partitions)
        self._max_states = settings.max_states
        self._max_cohorts = settings.max_cohorts
        self._cohorts = CohortBook(self._max_cohorts)
        self._states = States()
        self._days: set[int] = set()
        self._retention = settings.raw_retention, settings.rollup_retention
        self._expiry: Expiry | None = None
        self._rebuild: Rebuild | None = None

    @property
    def next_offset(self) -> int:
        """Where the next batch has to begin."""
        return self._fence.ledger.next

    @property
    def watermark_us(self) -> int:
        """The newest record timestamp applied."""
        return self._fence.ledger.watermark

    @property
    def outdated(self) -> str:
        """See `ledger.outdated`."""
        return outdated(self._fence.ledger)

    @property
    def numbered(self) -> Mapping[str, int]:
        """See `Shard.numbered`."""
        return {"states": len(self._states) - FIRST_STATE, "cohorts": len(self._cohorts)}

    async def open(self, log: LogEnds) -> int:
        """Read or create the ledger, drop every cache; the offset to seek to. Errors: see `Fence.open`."""
        async with self._turn:
            self.forget()
            opened = await self._fence.open(log)
            keys = self._fence.keys
            states, cohorts, days = await self._fence.read(
                [("LRANGE", keys.states, 0, -1), ("LRANGE", keys.cohorts, 0, -1), ("SMEMBERS", keys.days)]
            )
            self._states = States(decode_states(states))
            self._cohorts = CohortBook(self._max_cohorts, decode_cohorts(cohorts))
            self._days = {int(day) for day in days}
            return opened.next

    async def pulse(self, position: int | None) -> bool:
        """See `Fence.pulse`."""
        async with self._turn:
            return await self._fence.pulse(position)

    async def stop(self, trouble: str) -> None:
        """See `Fence.stop`."""
        async with self._turn:
            self.forget()
            await self._fence.stop(trouble)

    async def repaired(self) -> bool:
        """See `Fence.repaired`."""
        async with self._turn:
            return await self._fence.repaired()

    def forget(self) -> None:
        """Drop every cache: after a revocation, a seek, or any doubt."""
        self._families.clear()
        self._rollups.clear()
        self._states = States()
        self._cohorts = CohortBook(self._max_cohorts)
        self._days = set()
        self._expiry = None
        self._rebuild = None

    async def close(self) -> None:
        """Forget everything and give the connection back."""
        self.forget()
        await self._fence.close()

    async def apply(self, batch: Batch) -> Applied:
        """Fold one batch into the shard, in one fenced commit.

        Raises `FencedError` when somebody else wrote, `ServerLostError` when Redis went away (the outcome is
        unknown). After either, `open` before the next batch: the caches may be ahead of Redis.
        """
        async with self._turn, self._fence.guarded():
            return await self._apply(batch)

    async def expire(self, watermark_us: int) -> bool:
        """Do one step of what a watermark leaves behind the horizons; False when nothing is left to do. A batch with
        that watermark does the rest. Errors: as `apply`."""
        async with self._turn, self._fence.guarded():
            return await self._expire(watermark_us)

    async def _expire(self, watermark_us: int) -> bool:
        if self._expiry is None:
            known = self._fence.ledger
            due = horizons(max(known.watermark, watermark_us), *self._retention).later(known.horizons)
            if known.expired_to.reached(due):
                return False
            # Which days a rebuild may touch depends on the horizon; it begins anew.
            self._rebuild = None
            self._expiry = Expiry(
                due, self._fence, self._families, self._rollups, self._cohorts, self._states, self._days
            )
        more = await self._expiry.step()
        if not more:
            self._expiry = None
        return more

    async def step(self) -> bool:
        """Do the next day of a rebuild that is asked for; False when there is none. Errors: as `apply`."""
        async with self._turn, self._fence.guarded():
            if self._rebuild is None:
                (request,) = await self._fence.read([read_request(self._fence.keys)])
                token = requested(request)
                if token is None:
                    return False
                known = self._fence.ledger
                if needs_log(known):
                    await self._fence.read(refusal(self._fence.keys, token, self.outdated))
                    return False
                # Before the horizon cells hold runs that have no records; what is expired holds none but those that do.
                carried = {day for day in self._days if known.cells_expired <= day * DAY_US < known.horizon}
                self._rebuild = Rebuild(token, [NONE, *sorted(self._days - carried)], sorted(carried))
            if await self._rebuild.step(self._fence, self._cohorts, self._states, self._rollups):
                self._rollups.clear()
            if self._rebuild.over:
                self._rebuild = None
            return True

    async def _apply(self, batch: Batch) -> Applied:
        assert not self.outdated, self.outdated
        self._fence.check_start(batch)
        while await self._expire(batch.watermark_us):
            pass
        work = Work(batch.changes)
        replies = await self._fence.resume(self._families.first_reads(work.wanted))
        await self._families.load(work.wanted, replies)
        today = day_of(max(self._fence.ledger.watermark, batch.watermark_us))
        edit = Edit(self._fence, self._states, self._max_states, self._cohorts, today)
        moved = {
            flow_run: edit.merge_flow_run(self._families[flow_run], flow_run, changes)
            for flow_run, changes in work.flow_runs.items()
        }
        for flow_run, changes in work.task_runs.items():
            edit.merge_task_runs(self._families[flow_run], flow_run, changes)
        others: list[Sums] = []
        for flow_run in [flow_run for flow_run, all_rows in moved.items() if all_rows]:
            family = self._families[flow_run]
            async for some in self._families.others(flow_run):
                others.append(summed(self._fold(*edit.move_others(family, flow_run, some))))
                if len(others) == _FOLDS:
                    others = [await asyncio.to_thread(_added, others)]
            edit.move_rows(family, flow_run)
        commands = await edit.gone.commands(self._fence)
        commands += edit.commands(self._fence.ledger.seq + 1, self._days)
        if edit.new.records or edit.old.records:
            others.append(self._fold(edit.new, edit.old))
        if others:
            change = others[0] if len(others) == 1 else await asyncio.to_thread(_added, others)
            commands += await self._rollups.apply(change, self._cohorts.names)
        await self._fence.commit(batch, commands, edit.floor)
        self._cohorts.committed()
        self._families.settle(work.wanted)
        self._rollups.trim(self._cohorts.weight)
        return Applied(
            len(batch.changes) - edit.stale - edit.duplicate - edit.frozen, edit.stale, edit.duplicate, edit.frozen
        )

    def _fold(self, new: Side, old: Side) -> Sums:
        """What rows after and before change in the cells."""
        book = self._cohorts
        cohorts = np.array(new.cohorts + old.cohorts, np.int64)
        rows = rows_of(new.records + old.records, book.child()[cohorts])
        return fold(rows, len(new.records), cohorts, book.scopes(), self._states.type_codes)


def _added(changes: Sequence[Sums]) -> Sums:
    """Several changes as one."""
    return summed(joined(changes))

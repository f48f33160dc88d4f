"""A shard of runs: task runs, flow runs, their index and their cells, changed one batch at a time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from redis.asyncio import Redis

from ..core.changes import FLOW_RUN, TASK_RUN, Change
from ..core.cohorts import NO_FLOW_RUN, cohort_of
from ..core.fold import fold
from ..core.groups import FIRST_STATE, NO_STATE, OTHER, State, States
from ..core.levels import COARSEST, MINUTE_US, NONE
from ..core.rows import Ints
from ..core.versions import Stored, merge
from ..settings import Settings
from .cohort_book import CohortBook
from .families import Families, Family, Wanted
from .fence import Applied, Batch, Fence
from .ledger import LogEnds
from .link import Command
from .records import (
    DEAD,
    TOMBSTONE,
    decode_cohorts,
    decode_entity,
    decode_states,
    decode_task_run,
    encode_cohort,
    encode_entity,
    encode_state,
    encode_task_run,
    minute_of,
    rows_of,
)
from .rollups import Rollups

_FLOW_RUN_STATES = len(FLOW_RUN.state_fields)


class RunsShard:
    """One partition of the runs topic, as this worker holds it. See `fence` for who may write."""

    def __init__(self, redis: Redis, settings: Settings, partition: int) -> None:
        self.name = str(partition)
        self._fence = Fence(redis, settings, self.name)
        self._turn = asyncio.Lock()
        self._families = Families(self._fence, settings.worker_cache // 2 // settings.partitions)
        self._rollups = Rollups(self._fence, settings.worker_cache // 2 // settings.partitions)
        self._max_states = settings.max_states
        self._max_cohorts = settings.max_cohorts
        self._cohorts = CohortBook(self._max_cohorts)
        self._states = States()
        self._days: set[int] = set()

    @property
    def next_offset(self) -> int:
        """Where the next batch has to begin."""
        return self._fence.ledger.next

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

    async def close(self) -> None:
        """Forget everything and give the connection back."""
        self.forget()
        await self._fence.close()

    async def apply(self, batch: Batch) -> Applied:
        """Fold one batch into the shard, in one fenced commit.

        Raises `FencedError` when somebody else wrote, `ServerLostError` when Redis went away (the outcome is
        unknown). After either, `open` before the next batch: the caches may be ahead of Redis.
        """
        async with self._turn:
            return await self._apply(batch)

    async def _apply(self, batch: Batch) -> Applied:
        self._fence.check_start(batch)
        work = _Work(batch.changes)
        replies = await self._fence.begin(self._families.first_reads(work.wanted))
        await self._families.load(work.wanted, replies)
        edit = _Edit(self._fence, self._states, self._max_states, self._cohorts)
        moved = {
            flow_run: edit.merge_flow_run(self._families[flow_run], flow_run, changes)
            for flow_run, changes in work.flow_runs.items()
        }
        await self._families.load_whole(flow_run for flow_run, all_rows in moved.items() if all_rows)
        for flow_run, changes in work.task_runs.items():
            edit.merge_task_runs(self._families[flow_run], flow_run, changes)
        for flow_run, all_rows in moved.items():
            if all_rows:
                edit.move_rows(self._families[flow_run], flow_run)
        commands = edit.commands(self._fence.ledger.seq + 1, self._days)
        commands += await self._cell_commands(edit)
        await self._fence.commit(batch, commands)
        self._cohorts.committed()
        self._families.settle(work.wanted)
        self._rollups.trim()
        return Applied(len(batch.changes) - edit.stale, edit.stale)

    async def _cell_commands(self, edit: _Edit) -> list[Command]:
        """The new cells of everything that the rows' changes touch."""
        if not edit.new.records and not edit.old.records:
            return []
        book = self._cohorts
        child = book.child()
        new, old = edit.new.cohorts(), edit.old.cohorts()
        levels = fold(
            rows_of(edit.new.records, child[new]),
            rows_of(edit.old.records, child[old]),
            np.concatenate([new, old]),
            book.scopes(),
            self._states.type_codes,
        )
        return await self._rollups.apply(levels, book.fields)


class _Work:
    """A batch's changes by family: what has to be known, and what to apply, in the order of arrival."""

    def __init__(self, changes: Sequence[Change]) -> None:
        self.wanted: Wanted = {}
        self.flow_runs: dict[bytes, list[Change]] = {}
        self.task_runs: dict[bytes | None, dict[bytes, list[Change]]] = {}
        for change in changes:
            if change.entity == "task_run":
                flow_run = change.flow_run_id
                runs = self.task_runs.get(flow_run)
                if runs is None:
                    runs = self.task_runs[flow_run] = {}
                same = runs.get(change.id)
                if same is None:
                    runs[change.id] = [change]
                else:
                    same.append(change)
            else:
                self.flow_runs.setdefault(change.id, []).append(change)
        for flow_run, runs in self.task_runs.items():
            self.wanted[flow_run] = set(runs)
        for flow_run in self.flow_runs:
            self.wanted.setdefault(flow_run, set())


class _Side:
    """Records on one side of a change, and the number of each one's cohort."""

    __slots__ = ("_cohorts", "records")

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self._cohorts: list[int] = []

    def add(self, record: bytes, cohort: int) -> None:
        self.records.append(record)
        self._cohorts.append(cohort)

    def cohorts(self) -> Ints:
        return np.array(self._cohorts, np.int64)


class _Edit:
    """What one batch changes: records and index entries to write, rows before and after."""

    def __init__(self, fence: Fence, states: States, max_states: int, cohorts: CohortBook) -> None:
        self.new = _Side()
        self.old = _Side()
        self.stale = 0
        self._shard_keys = fence.keys
        self._floor = fence.ledger.floor
        self._states = states
        self._max_states = max_states
        self._fresh_states: list[State] = []
        self._cohorts = cohorts
        self._raw: defaultdict[int, list[bytes]] = defaultdict(list)
        self._raw_gone: defaultdict[int, list[bytes]] = defaultdict(list)
        self._index: defaultdict[bytes, list[bytes | int]] = defaultdict(list)
        self._index_gone: list[bytes] = []
        self._flow_runs: dict[bytes, bytes] = {}
        self._cohort_before: dict[bytes | None, int] = {}
        self._moved: set[bytes] = set()

    def merge_flow_run(self, family: Family, flow_run: bytes, changes: list[Change]) -> bool:
        """Apply a flow run's events; whether that changes the rows of all its task runs."""
        before = family.flow_run
        if before == DEAD:
            self.stale += len(changes)
            return False
        self._cohort_before[flow_run] = cohort_before = self._cohort(family, flow_run)
        if any(change.action == "delete" for change in changes):
            family.flow_run = self._flow_runs[flow_run] = DEAD
            return True
        old = decode_entity(before, _FLOW_RUN_STATES) if before else None
        stored = old
        for change in changes:
            after = merge(FLOW_RUN, stored, change)
            self.stale += after is stored
            stored = after
        if stored is None or stored is old:
            return False
        family.flow_run = self._flow_runs[flow_run] = encode_entity(stored)
        family.cohort = self._cohorts.number(cohort_of(stored.values))
        return family.cohort != cohort_before

    def merge_task_runs(self, family: Family, flow_run: bytes | None, runs: dict[bytes, list[Change]]) -> None:
        """Apply the events of one family's task runs."""
        if family.flow_run == DEAD:
            self.stale += sum(map(len, runs.values()))
            return
        members = family.members
        cohort = self._cohort(family, flow_run)
        cohort_before = self._cohort_before.get(flow_run, cohort)
        index = None if flow_run is None else self._index[self._shard_keys.members(flow_run)]
        names = self._states.names
        for run, changes in runs.items():
            record = members.get(run)
            if record == DEAD:
                self.stale += len(changes)
                continue
            old = None if record is None else decode_task_run(record, names)
            stored = old
            for change in changes:
                if change.action == "delete":
                    stored = None
                    break
                after = merge(TASK_RUN, stored, change)
                self.stale += after is stored
                stored = after
            if stored is old and stored is not None:
                continue
            entries = index if index is not None else self._index[self._shard_keys.single(run)]
            if record is not None:
                self.old.add(record, cohort_before)
                self._moved.add(run)
            if stored is None:
                members[run] = DEAD
                entries += (run, TOMBSTONE)
                if record is not None:
                    self._raw_gone[minute_of(record)].append(run)
                continue
            written = encode_task_run(stored, self._state_number(stored), flow_run)
            members[run] = written
            self.new.add(written, cohort)
            self._moved.add(run)
            minute = minute_of(written)
            self._raw[minute] += (run, written)
            was = None if record is None else minute_of(record)
            if was != minute:
                entries += (run, minute)
                if was is not None:
                    self._raw_gone[was].append(run)

    def move_rows(self, family: Family, flow_run: bytes) -> None:
        """Attribute all of a family's rows anew, or take them away with their flow run."""
        cohort_before = self._cohort_before[flow_run]
        dead = family.flow_run == DEAD
        cohort = self._cohort(family, flow_run)
        for run, record in family.members.items():
            if record == DEAD or run in self._moved:
                continue
            self.old.add(record, cohort_before)
            if dead:
                self._raw_gone[minute_of(record)].append(run)
            else:
                self.new.add(record, cohort)
        if dead:
            family.members.clear()
            self._index_gone.append(self._shard_keys.members(flow_run))

    def commands(self, seq: int, days: set[int]) -> list[Command]:
        """Everything but the cells, as commands; adds the new rows' days to `days`."""
        keys = self._shard_keys
        minutes = {*self._raw, *self._raw_gone, *map(minute_of, self.new.records)}
        commands: list[Command] = [
            *[("HDEL", keys.raw(minute), *runs) for minute, runs in self._raw_gone.items()],
            *[("HSET", keys.raw(minute), *pairs) for minute, pairs in self._raw.items()],
            *[("HSET", key, *pairs) for key, pairs in self._index.items() if pairs],
            *[("DEL", key) for key in self._index_gone],
            *[("HSET", keys.flow_runs(run), run, record) for run, record in self._flow_runs.items()],
        ]
        if self._cohorts.fresh:
            commands.append(("RPUSH", keys.cohorts, *map(encode_cohort, self._cohorts.fresh)))
        if self._fresh_states:
            commands.append(("RPUSH", keys.states, *map(encode_state, self._fresh_states)))
        fresh_days = {minute * MINUTE_US // COARSEST.width_us for minute in minutes if minute != NONE} - days
        if fresh_days:
            days |= fresh_days
            commands.append(("SADD", keys.days, *fresh_days))
        if minutes:
            commands.append(("ZADD", keys.touched, *[part for minute in minutes for part in (seq, minute)]))
        if self._flow_runs:
            commands.append(("ZADD", keys.touched_ids, *[part for run in self._flow_runs for part in (seq, run)]))
        commands += [("ZREMRANGEBYSCORE", key, "-inf", self._floor) for key in (keys.touched, keys.touched_ids)]
        return commands

    def _state_number(self, stored: Stored) -> int:
        state = stored.values[0]
        if state is None:
            return NO_STATE
        pair = (state[0], state[1])
        number = self._states.number(pair)
        if number is None:
            if len(self._states) - FIRST_STATE >= self._max_states:
                return OTHER
            number = len(self._states)
            self._states.extend([pair])
            self._fresh_states.append(pair)
        return number

    def _cohort(self, family: Family, flow_run: bytes | None) -> int:
        """The number of a family's cohort, as its flow run is now; not for a deleted one that was read."""
        if family.cohort is None:
            if flow_run is None:
                cohort = NO_FLOW_RUN
            elif family.flow_run is None:
                cohort = cohort_of(None)
            else:
                cohort = cohort_of(decode_entity(family.flow_run, _FLOW_RUN_STATES).values)
            family.cohort = self._cohorts.number(cohort)
        return family.cohort

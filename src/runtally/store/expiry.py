"""Putting away what a shard's horizons leave behind: by the worker that owns it, before it goes on in the log.

A new day of the watermark moves the horizons. That is committed first, so that readers leave alone what is about to
go; then come steps, each a fenced commit of bounded size, and no batch in between. So which events find their run
frozen is a matter of the log alone, and a replay drops the same ones.

1. Raw runs: the records of runs that are over are taken away and their index entries say *frozen*. Where not even cells
   are kept (behind the cells' horizon, or without expected time and ended before it) they leave the cells too.
2. Flow runs that are over and have no task run with a record.
3. Cells behind their horizon: a day's cells become those of its raw runs, open ones, or vanish.
4. Index entries and tombstones, as `leaving` lists them.

Interrupted, all of it is done again, which changes nothing that was done.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import chain, compress
from typing import Any, Final

import numpy as np

from ..core.changes import FLOW_RUN, TERMINAL_STATE_TYPES
from ..core.cohorts import NO_FLOW_RUN, cohort_of
from ..core.fold import fold
from ..core.groups import OTHER, States
from ..core.levels import DAY_US, MINUTE_US, NONE
from ..core.retention import Horizons, day_of, ended, is_ended, last_instant, last_instants
from . import index
from .cohort_book import CohortBook
from .families import Families
from .fence import Fence
from .keys import FLOW_RUN_BUCKETS, RAW_MINUTES, raw_bucket
from .link import Command
from .records import (
    DEAD,
    decode_entity,
    decode_flow_runs,
    encode_cohort,
    fixed_columns,
    flow_run_of,
    minute_of,
    rows_of,
    state_in_tail,
)
from .recount import pieces_of, recount
from .rollups import Rollups

_RUNS_A_STEP: Final = 2_000
_FLOW_RUNS_A_STEP: Final = 128
"""Hashes of flow runs read at once."""
_LEAVING_A_STEP: Final = 1_000
_KEYS_A_LOOK: Final = 5_000
_BUCKETS_A_DAY: Final = DAY_US // MINUTE_US // RAW_MINUTES
_STATES: Final = len(FLOW_RUN.state_fields)
_STATE, _START, _END, _EXPECTED = map(FLOW_RUN.fields.index, ("state", "start_time", "end_time", "expected_start_time"))

_EXISTING: Final = """
local found = {}
for span = 1, #ARGV, 2 do
  for number = tonumber(ARGV[span]), tonumber(ARGV[span + 1]) do
    if redis.call('EXISTS', KEYS[1] .. number) == 1 then found[#found + 1] = number end
  end
end
return found
"""
"""Of the keys that begin with KEYS[1] and end with a number of spans (first, last, first, last …), those that exist."""

Run = tuple[bytes, bytes]
"""Id and record."""


class Expiry:
    """One shard's way to its new horizons. What it is given is the worker's own, and stays what Redis holds."""

    def __init__(
        self,
        due: Horizons,
        fence: Fence,
        families: Families,
        rollups: Rollups,
        cohorts: CohortBook,
        states: States,
        days: set[int],
    ) -> None:
        self._due = due
        self._fence = fence
        self._families = families
        self._rollups = rollups
        self._cohorts = cohorts
        self._states = states
        self._days = days
        self._steps = self._all()

    async def step(self) -> bool:
        """Do the next step; False when all are done. Errors: as `RunsShard.apply`."""
        # Before anything is read: what another worker has written since is not to be understood.
        await self._fence.begin()
        return await anext(self._steps, None) is not None

    async def _all(self) -> AsyncIterator[bool]:
        due = self._due
        await self._commit([], horizon=due.raw, cells_horizon=due.cells)
        yield True
        for part in (self._runs(), self._flow_runs(), self._cells(), self._leaving()):
            async for commands in part:
                await self._commit(commands)
                yield True
        await self._commit([], expired=due.raw, cells_expired=due.cells)

    async def _commit(self, commands: Sequence[Command], **moved: int) -> None:
        fresh = self._cohorts.fresh
        named: list[Command] = [("RPUSH", self._fence.keys.cohorts, *map(encode_cohort, fresh))] if fresh else []
        await self._fence.step([*commands, *named], **moved)
        self._cohorts.committed()

    # -- task runs

    async def _runs(self) -> AsyncIterator[list[Command]]:
        buckets = await self._raw_buckets(day for day in self._days if day * DAY_US < self._due.raw)
        pending: list[Run] = []
        for bucket in [*buckets, *([NONE] if self._due.cells else [])]:
            (flat,) = await self._fence.read([("HGETALL", self._fence.keys.raw(bucket))])
            pending += self._over(flat[::2], flat[1::2])
            while len(pending) >= _RUNS_A_STEP:
                yield await self._without(pending[:_RUNS_A_STEP])
                del pending[:_RUNS_A_STEP]
        if pending:
            yield await self._without(pending)

    def _over(self, ids: list[bytes], records: list[bytes]) -> Iterator[Run]:
        """The runs of a bucket that are over and behind the horizon."""
        if not ids:
            return iter(())
        columns = fixed_columns(records)
        over = ended(self._states.type_codes[columns["state"]])
        for at in np.flatnonzero(columns["state"] == OTHER).tolist():
            over[at] = state_in_tail(records[at])[0] in TERMINAL_STATE_TYPES
        last = last_instants(*(columns[name].astype(np.int64) for name in ("expected", "start", "state_time")))
        horizon = self._due.cells if minute_of(records[0]) == NONE else self._due.raw
        return compress(zip(ids, records, strict=True), (over & (last < horizon)).tolist())

    async def _without(self, runs: Sequence[Run]) -> list[Command]:
        """What takes the records of runs away."""
        keys = self._fence.keys
        raw: defaultdict[bytes, list[bytes]] = defaultdict(list)
        frozen: defaultdict[bytes, list[bytes | int]] = defaultdict(list)
        forgotten: defaultdict[bytes, list[bytes]] = defaultdict(list)
        leaving: defaultdict[int, dict[bytes, None]] = defaultdict(dict)
        uncounted: list[bytes] = []
        for run, record in runs:
            minute, flow_run = minute_of(record), flow_run_of(record)
            raw[keys.raw(raw_bucket(minute))].append(run)
            entries = keys.single(run) if flow_run is None else keys.members(flow_run)
            if minute * MINUTE_US < self._due.cells:
                uncounted.append(record)
                forgotten[entries].append(run)
            else:
                day = day_of(minute * MINUTE_US)
                frozen[entries] += (run, index.frozen(day))
                leaving[day][index.packed(b"s", run) if flow_run is None else index.packed(b"m", flow_run)] = None
            self._families.discard(flow_run)
        return [
            *[("HDEL", key, *ids) for key, ids in raw.items()],
            *[("HSET", key, *pairs) for key, pairs in frozen.items()],
            *[("HDEL", key, *ids) for key, ids in forgotten.items()],
            *_appended(keys.leaving, leaving),
            *await self._uncounted(uncounted),
        ]

    async def _uncounted(self, records: Sequence[bytes]) -> list[Command]:
        """What takes runs out of the cells."""
        if not records:
            return []
        keys = self._fence.keys
        flow_runs = list({flow_run for record in records if (flow_run := flow_run_of(record)) is not None})
        found = await self._fence.read([("HGET", keys.flow_runs(flow_run), flow_run) for flow_run in flow_runs])
        numbers: dict[bytes | None, int] = {None: self._cohorts.number(NO_FLOW_RUN)}
        for flow_run, stored in zip(flow_runs, found, strict=True):
            values = decode_entity(stored, _STATES).values if stored else None
            numbers[flow_run] = self._cohorts.number(cohort_of(values))
        cohorts = np.array([numbers[flow_run_of(record)] for record in records], np.int64)
        old = rows_of(records, self._cohorts.child()[cohorts])
        change = fold(old, 0, cohorts, self._cohorts.scopes(), self._states.type_codes)
        return [
            *await self._rollups.apply(change, self._cohorts.names),
            *self._touched(map(minute_of, records)),
        ]

    # -- flow runs

    async def _flow_runs(self) -> AsyncIterator[list[Command]]:
        keys = self._fence.keys
        for first in range(0, FLOW_RUN_BUCKETS, _FLOW_RUNS_A_STEP):
            numbers = range(first, min(FLOW_RUN_BUCKETS, first + _FLOW_RUNS_A_STEP))
            found = await self._fence.read([("HGETALL", keys.flow_runs_at(number)) for number in numbers])
            flat = list(chain.from_iterable(found))
            over = dict(self._over_since(flat[::2], flat[1::2]))
            members = await self._fence.read([("HVALS", keys.members(flow_run)) for flow_run in over])
            gone = [
                flow_run
                for flow_run, entries in zip(over, members, strict=True)
                if all(index.gone(int(entry)) for entry in entries)
            ]
            if gone:
                yield self._without_flow_runs({flow_run: over[flow_run] for flow_run in gone})

    def _over_since(self, ids: list[bytes], records: list[bytes]) -> Iterator[tuple[bytes, int]]:
        """The flow runs that are over and behind the horizon, each with its last day."""
        alive = [(identity, record) for identity, record in zip(ids, records, strict=True) if record != DEAD]
        for (identity, _), values in zip(alive, decode_flow_runs([record for _, record in alive]), strict=True):
            state = values[_STATE]
            if is_ended(state):
                last = last_instant(state[2], values[_START], values[_END], values[_EXPECTED])
                if last < self._due.raw:
                    yield identity, day_of(last)

    def _without_flow_runs(self, over: dict[bytes, int]) -> list[Command]:
        keys, seq = self._fence.keys, self._fence.ledger.seq + 1
        commands: list[Command] = []
        leaving: defaultdict[int, dict[bytes, None]] = defaultdict(dict)
        for flow_run, day in over.items():
            commands.append(("HDEL", keys.flow_runs(flow_run), flow_run))
            if day * DAY_US >= self._due.cells:
                commands.append(("HSET", keys.members(flow_run), index.FLOW_RUN, index.frozen(day)))
                leaving[day][index.packed(b"m", flow_run)] = None
            self._families.discard(flow_run)
        touched = [part for flow_run in over for part in (seq, flow_run)]
        return [*commands, *_appended(keys.leaving, leaving), ("ZADD", keys.touched_ids, *touched)]

    # -- cells

    async def _cells(self) -> AsyncIterator[list[Command]]:
        done = self._fence.ledger.cells_expired
        for day in sorted(day for day in self._days if done <= day * DAY_US < self._due.cells):
            pieces = pieces_of(day)
            replies = [(await self._fence.read([piece.command(self._fence.keys)]))[0] for piece in pieces]
            counted = await asyncio.to_thread(recount, pieces, replies, self._cohorts, self._states)
            keys = self._fence.keys
            gone = {keys.cells(part.kind, part.level, page) for part in counted.stored for page in part.pages}
            pairs: defaultdict[bytes, list[bytes]] = defaultdict(list)
            for entry in counted.wanted(self._cohorts):
                pairs[keys.cells(entry.kind, entry.level, entry.page)] += (entry.field, entry.cells)
            commands: list[Command] = [("UNLINK", *gone)] if gone else []
            commands += [("HSET", key, *found) for key, found in pairs.items()]
            commands += self._touched(range(day * DAY_US // MINUTE_US, (day + 1) * DAY_US // MINUTE_US))
            yield commands
            self._rollups.clear()
        behind = [day for day in self._days if day * DAY_US < self._due.cells]
        kept = {bucket // _BUCKETS_A_DAY for bucket in await self._raw_buckets(behind)}
        if empty := [day for day in behind if day not in kept]:
            yield [("SREM", self._fence.keys.days, *empty)]
            self._days.difference_update(empty)

    # -- the index

    async def _leaving(self) -> AsyncIterator[list[Command]]:
        keys = self._fence.keys
        span = (day_of(self._fence.ledger.cells_expired), day_of(self._due.cells) - 1)
        for day in await self._existing(keys.leaving(0)[:-1], [span]):
            (listed,) = await self._fence.read([("GET", keys.leaving(day))])
            entries = list(index.unpacked(listed))
            for at in range(0, len(entries), _LEAVING_A_STEP):
                yield await self._forgotten(entries[at : at + _LEAVING_A_STEP])
            yield [("UNLINK", keys.leaving(day))]

    async def _forgotten(self, entries: Sequence[tuple[bytes, bytes]]) -> list[Command]:
        """What takes index entries of days without cells away."""
        places = [(kind, identity, _place(self._fence, kind, identity)) for kind, identity in entries]
        reads: list[Command] = [
            ("HGETALL", key) if kind == b"m" else ("HGET", key, identity) for kind, identity, key in places
        ]
        commands: list[Command] = []
        for (kind, identity, key), found in zip(places, await self._fence.read(reads), strict=True):
            known = zip(found[::2], found[1::2], strict=True) if kind == b"m" else [(identity, found)]
            if kind == b"d":
                old = [field for field, record in known if record == DEAD]
            else:
                old = [field for field, entry in known if entry is not None and self._is_forgotten(int(entry))]
            if old:
                commands.append(("HDEL", key, *old))
            self._families.discard(None if kind == b"s" else identity)
        return commands

    def _is_forgotten(self, entry: int) -> bool:
        without = index.gone(entry)
        return without is not None and without.day * DAY_US < self._due.cells

    # -- all

    async def _raw_buckets(self, days: Iterable[int]) -> list[int]:
        """The buckets of some days that hold raw runs."""
        spans = [(day * _BUCKETS_A_DAY, (day + 1) * _BUCKETS_A_DAY - 1) for day in sorted(days)]
        return await self._existing(self._fence.keys.raw(0)[:-1], spans)

    async def _existing(self, beginning: bytes, spans: Iterable[tuple[int, int]]) -> list[int]:
        """The numbers in spans for which there is a key."""
        found: list[int] = []
        for look in _looks(spans):
            found += (await self._fence.read([("EVAL", _EXISTING, 1, beginning, *chain.from_iterable(look))]))[0]
        return found

    def _touched(self, minutes: Iterable[int]) -> list[Command]:
        seq = self._fence.ledger.seq + 1
        return [("ZADD", self._fence.keys.touched, *[part for minute in set(minutes) for part in (seq, minute)])]


def _looks(spans: Iterable[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Spans, cut and put together so that each look is at a bounded number of keys."""
    look: list[tuple[int, int]] = []
    size = 0
    for first, last in spans:
        for begin in range(first, last + 1, _KEYS_A_LOOK):
            end = min(last, begin + _KEYS_A_LOOK - 1)
            look.append((begin, end))
            size += end - begin + 1
            if size >= _KEYS_A_LOOK:
                yield look
                look, size = [], 0
    if look:
        yield look


def _appended(key: Any, leaving: dict[int, dict[bytes, None]]) -> list[Command]:
    return [("APPEND", key(day), b"".join(entries)) for day, entries in leaving.items()]


def _place(fence: Fence, kind: bytes, identity: bytes) -> bytes:
    keys = fence.keys
    if kind == b"m":
        return keys.members(identity)
    return keys.single(identity) if kind == b"s" else keys.flow_runs(identity)

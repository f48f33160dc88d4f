"""Whether everything that a shard holds belongs to something, and would go with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from redis.asyncio import Redis

from runtally.core.levels import DAY_US, LEVELS, MINUTE_US, PAGE
from runtally.store import index
from runtally.store.keys import Keys, raw_bucket
from runtally.store.ledger import GENERATION, decode
from runtally.store.records import DEAD, flow_run_of, minute_of

Owner = bytes | None


@dataclass
class Held:
    """A shard's keys, taken apart. Index entries by task run: the flow run that lists it, and the entry."""

    cells_day: int
    records: dict[bytes, bytes] = field(default_factory=dict)
    entries: dict[bytes, tuple[Owner, int]] = field(default_factory=dict)
    frozen_flow_runs: dict[bytes, int] = field(default_factory=dict)
    flow_runs: dict[bytes, bytes] = field(default_factory=dict)
    leaving: defaultdict[int, set[tuple[bytes, bytes]]] = field(default_factory=lambda: defaultdict(set))
    days: set[int] = field(default_factory=set)
    cell_days: dict[str, int] = field(default_factory=dict)


async def orphans(redis: Redis, prefix: str, shard: str) -> list[str]:
    """What has no owner, in words."""
    held = await _read(redis, Keys(prefix, GENERATION, shard))
    return [*_of_runs(held), *_of_index(held), *_of_flow_runs(held), *_of_cells(held)]


def _of_runs(held: Held) -> Iterator[str]:
    for run, record in held.records.items():
        if held.entries.get(run) != (flow_run_of(record), raw_bucket(minute_of(record))):
            yield f"the record of {run.hex()} is not where the index has it: {held.entries.get(run)}"


def _of_index(held: Held) -> Iterator[str]:
    for run, (owner, entry) in held.entries.items():
        without = index.gone(entry)
        if without is None and run not in held.records:
            yield f"the index entry of {run.hex()} has no record"
        if without is not None:
            yield from _leaves(held, run, (b"s", run) if owner is None else (b"m", owner), without.day)
        if held.flow_runs.get(owner or b"") == DEAD:
            yield f"the index entry of {run.hex()} is one of a deleted flow run"
    yield from (f"what leaves on day {day} should have left" for day in held.leaving if day < held.cells_day)


def _leaves(held: Held, own_id: bytes, listed: tuple[bytes, bytes], day: int) -> Iterator[str]:
    if day < held.cells_day:
        yield f"the index entry of {own_id.hex()} should have left"
    if listed not in held.leaving[day]:
        yield f"the index entry of {own_id.hex()} would never leave"


def _of_flow_runs(held: Held) -> Iterator[str]:
    leaving = set().union(*held.leaving.values())
    for flow_run, entry in held.frozen_flow_runs.items():
        without = index.gone(entry)
        assert without is not None
        yield from _leaves(held, flow_run, (b"m", flow_run), without.day)
        if flow_run in held.flow_runs:
            yield f"flow run {flow_run.hex()} is frozen and there"
    for flow_run, record in held.flow_runs.items():
        if record == DEAD and (b"d", flow_run) not in leaving:
            yield f"the tombstone of flow run {flow_run.hex()} would never leave"


def _of_cells(held: Held) -> Iterator[str]:
    raw_days = {minute_of(record) * MINUTE_US // DAY_US for record in held.records.values()}
    for name, day in held.cell_days.items():
        if day not in held.days:
            yield f"{name} is of no day"
        if day < held.cells_day and day not in raw_days:
            yield f"{name} should have left"


async def _read(redis: Redis, keys: Keys) -> Held:
    ledger = decode([part for pair in (await redis.hgetall(keys.ledger)).items() for part in pair])
    assert ledger is not None
    held = Held(ledger.cells_expired // DAY_US)
    held.days = {int(day) for day in await redis.smembers(keys.days)}
    async for key in redis.scan_iter(match=keys.root.replace(b"{", b"\\{") + b"*", count=1000):
        kind, _, rest = key.removeprefix(keys.root).partition(b":")
        match kind:
            case b"raw":
                held.records |= await redis.hgetall(key)
            case b"members" | b"single":
                owner = rest if kind == b"members" else None
                found = {run: int(entry) for run, entry in (await redis.hgetall(key)).items()}
                if owner is not None and index.FLOW_RUN in found:
                    held.frozen_flow_runs[owner] = found.pop(index.FLOW_RUN)
                held.entries |= {run: (owner, entry) for run, entry in found.items()}
            case b"flow_runs":
                held.flow_runs |= await redis.hgetall(key)
            case b"leaving":
                held.leaving[int(rest)] = {*index.unpacked(await redis.get(key))}
            case b"cells":
                scope, page = rest.decode().split(":")
                level = int(scope[1:])
                if page != "none":
                    held.cell_days[key.decode()] = int(page) * PAGE[level] * LEVELS[level].width_us // DAY_US
    return held

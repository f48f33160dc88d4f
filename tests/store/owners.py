"""Whether everything that a shard holds belongs to something, and would go with it."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from redis.asyncio import Redis

from runtally.core.changes import TERMINAL_STATE_TYPES
from runtally.core.levels import DAY_US, LEVELS, NONE
from runtally.core.retention import last_instants
from runtally.store import index
from runtally.store.keys import Keys, raw_bucket
from runtally.store.ledger import GENERATION, decode
from runtally.store.records import DEAD, decode_flow_runs, decode_states, fixed_columns, flow_run_of, minute_of
from tests.conftest import strange_keys

MINUTE_US = LEVELS[0].width_us


async def orphans(redis: Redis, prefix: str, shard: str) -> list[str]:
    """What has no owner, in words."""
    keys = Keys(prefix, GENERATION, shard)
    ledger = decode([part for pair in (await redis.hgetall(keys.ledger)).items() for part in pair])
    assert ledger is not None
    raw_day, cells_day = ledger.expired // DAY_US, ledger.cells_expired // DAY_US
    found: list[str] = []
    hashes = {key.removeprefix(keys.root): await redis.hgetall(key) for key in await _hashes(redis, keys.root)}
    states = [("", ""), ("", ""), *decode_states(await redis.lrange(keys.states, 0, -1))]
    entries: dict[bytes, tuple[bytes | None, int]] = {}
    flow_run_days: dict[bytes, int] = {}
    for name, pairs in hashes.items():
        if name.startswith((b"members:", b"single:")):
            owner = name.removeprefix(b"members:") if name.startswith(b"members:") else None
            for field, entry in pairs.items():
                if field == index.FLOW_RUN:
                    assert owner is not None
                    flow_run_days[owner] = int(entry)
                else:
                    entries[field] = (owner, int(entry))
    records = {
        run: (name, record) for name, pairs in hashes.items() if name.startswith(b"raw:") for run, record in pairs.items()
    }
    for run, (owner, entry) in entries.items():
        if index.gone(entry) is None and run not in records:
            found.append(f"the index entry of {run.hex()} has no record")
        if run in records and (flow_run_of(records[run][1]), entry) != (owner, raw_bucket(minute_of(records[run][1]))):
            found.append(f"the index has {run.hex()} somewhere else")
    if records:
        columns = fixed_columns([record for _, record in records.values()])
        last = last_instants(*(columns[part].astype(np.int64) for part in ("expected", "start", "state_time")))
        for run, (name, record), state, instant in zip(
            records, records.values(), columns["state"].tolist(), last.tolist(), strict=True
        ):
            if run not in entries:
                found.append(f"the record of {run.hex()} has no index entry")
            horizon = cells_day if name == b"raw:none" else raw_day
            if states[state][0] in TERMINAL_STATE_TYPES and instant < horizon * DAY_US and ledger.next == 0:
                found.append(f"the record of {run.hex()} is too old")
            del record
    leaving: defaultdict[int, set[tuple[bytes, bytes]]] = defaultdict(set)
    async for key in redis.scan_iter(match=_escaped(keys.root) + b"leaving:*", count=1000):
        day = int(key.rpartition(b":")[2])
        if day < cells_day:
            found.append(f"what leaves on day {day} should have left")
        leaving[day] = {*index.unpacked(await redis.get(key))}
    gone = [(run, owner, without) for run, (owner, entry) in entries.items() if (without := index.gone(entry))]
    gone += [(run, run, without) for run, entry in flow_run_days.items() if (without := index.gone(entry))]
    for run, owner, without in gone:
        if without.day < cells_day:
            found.append(f"the index entry of {run.hex()} should have left")
        if ((b"s", run) if owner is None else (b"m", owner)) not in leaving[without.day]:
            found.append(f"the index entry of {run.hex()} would never leave")
    flow_runs = {
        run: record
        for name, pairs in hashes.items()
        if name.startswith(b"flow_runs:")
        for run, record in pairs.items()
    }
    dead = {run for run, record in flow_runs.items() if record == DEAD}
    found += [
        f"the tombstone of {run.hex()} would never leave"
        for run in dead
        if not any((b"d", run) in listed for listed in leaving.values())
    ]
    found += [f"{run.hex()} has index entries and is dead" for run, (owner, _) in entries.items() if owner in dead]
    found += [f"{run.hex()} is both frozen and there" for run in flow_run_days if run in flow_runs]
    decode_flow_runs([record for record in flow_runs.values() if record != DEAD])
    days = {int(day) for day in await redis.smembers(keys.days)}
    raw_days = {minute_of(record) * MINUTE_US // DAY_US for _, record in records.values() if minute_of(record) != NONE}
    for name in hashes:
        if name.startswith(b"cells:") and not name.endswith(b":none"):
            kind, bucket = name.split(b":")[1:]
            day = int(bucket) * LEVELS[int(kind[1:])].width_us // DAY_US
            if day not in days:
                found.append(f"{name!r} is of no day")
            if day < cells_day and day not in raw_days:
                found.append(f"{name!r} should have left")
    return found


async def strangers(url: str) -> list[tuple[bytes, str]]:
    """Keys that the table does not name."""
    from redis import Redis as SyncRedis

    with SyncRedis.from_url(url) as redis:
        return strange_keys(redis)


async def _hashes(redis: Redis, root: bytes) -> list[bytes]:
    return [key async for key in redis.scan_iter(match=_escaped(root) + b"*", count=1000, _type="hash")]


def _escaped(root: bytes) -> bytes:
    return root.replace(b"{", b"\\{").replace(b"}", b"\\}")

"""An estate with retentions, told day by day, and the reference beside it."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from redis.asyncio import Redis

from runtally.core.bins import Bins
from runtally.core.time import text_of
from runtally.settings import Settings
from runtally.store.audit import Audit

from .estate import Estate
from .keeping import DAY_US, Keeping
from .owners import orphans

START_DAY = 20_000
RAW_DAYS, ROLLUP_DAYS = 10, 40
FAR_DAYS = 1_000


@dataclass(frozen=True)
class Told:
    """An event of the log, and its record's timestamp."""

    event: dict[str, Any]
    record_us: int


def at(day: float) -> int:
    return int((START_DAY + day) * DAY_US)


def task_run(
    day: float,
    number: int,
    state: str = "COMPLETED",
    *,
    expected: float | None = 0,
    since: float = 0,
    flow_run: str | None = None,
    action: str = "upsert",
) -> Told:
    """Told on a day, expected on another; `since` when it is in its state. Days are counted from START_DAY."""
    data: dict[str, Any] = {"id": f"run-{number}", "flow_run_id": flow_run}
    if action != "delete":
        data |= {"name": "task", "state_type": state, "state_name": state.title()}
        data |= {"state_timestamp": text_of(at(since)), "total_run_time": 1.5}
        data |= {} if expected is None else {"expected_start_time": text_of(at(expected))}
    event = {"entity": "task_run", "action": action, "occurred": text_of(at(since)), "data": data}
    return Told(event, at(day))


def flow_run(
    day: float, own_id: str, state: str | None, *, since: float = 0, tags: Any = (), action: Any = "upsert"
) -> Told:
    data: dict[str, Any] = {"id": own_id}
    if action != "delete":
        data |= {"flow_id": "flow", "tags": list(tags)}
        if state is not None:
            data |= {"state_type": state, "state_name": state.title(), "state_timestamp": text_of(at(since))}
    event = {"entity": "flow_run", "action": action, "occurred": text_of(at(since)), "data": data}
    return Told(event, at(day))


def drawn(dice: Random) -> list[Told]:
    """A log over some weeks, with all that can be late, open or gone."""
    told: list[Told] = []
    day = 0.0
    for _ in range(dice.randrange(5, 60)):
        if dice.random() < 0.3:
            day += dice.choice([0.3, 1, 3, 9, 15, 45])
        if told and dice.random() < 0.1:
            told.append(Told(dice.choice(told).event, at(day)))
            continue
        back = day - dice.choice([0, 0, 0.2, 1, 9.5, 12, 30, 39.9, 45])
        state = dice.choice(["SCHEDULED", "RUNNING", "COMPLETED", "COMPLETED", "FAILED"])
        owner = dice.choice(["a", "b"])
        action = "delete" if dice.random() < 0.05 else "upsert"
        if dice.random() < 0.25:
            told.append(flow_run(day, owner, state, since=back, tags=dice.choices("xy", k=1), action=action))
        else:
            number = dice.randrange(9)
            owned = {0: None, 1: "a", 2: "b"}[number % 3]
            expected = None if dice.random() < 0.05 else back - dice.choice([0, 0.1, 3])
            since = max(back, expected or back)
            told.append(task_run(day, number, state, expected=expected, since=since, flow_run=owned, action=action))
    return told


class Kept:
    """An estate of one shard with retentions, and the reference beside it."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self.redis = redis
        self.settings = settings
        self.reference = Keeping(RAW_DAYS, ROLLUP_DAYS)
        self.estate = Estate(redis, settings, partitions=1)
        self.shard = self.estate.runs[0]

    async def tell(self, *told: Told, most: int = 1) -> None:
        """Apply events, at most so many of one day at once, as a lane does."""
        rest = list(told)
        while rest:
            day = max(self.estate.watermark_us, rest[0].record_us) // DAY_US
            size = 1
            while size < min(most, len(rest)) and rest[size].record_us // DAY_US <= day:
                size += 1
            part, rest = rest[:size], rest[size:]
            self.estate.watermark_us = max(self.estate.watermark_us, *(one.record_us for one in part))
            for one in part:
                self.reference.tell(one.event, one.record_us)
            await self.estate.apply([one.event for one in part], most)

    async def check(self) -> None:
        """Answers are the reference's, cells of complete days are right, everything has an owner."""
        now = at(FAR_DAYS)
        begin, width = at(-FAR_DAYS), 5 * DAY_US
        body = {"history_start": text_of(begin), "history_end": text_of(now), "history_interval_seconds": width / 1e6}
        expected = [sums for _, _, sums in self.reference.history_us(body, now)]
        assert await self.estate.history(Bins(begin, width, len(expected)), now) == expected
        audit = Audit(self.redis, self.settings, "0")
        try:
            for day in await audit.days():
                assert (await audit.check(day)).wrong == []
        finally:
            await audit.close()
        lost = await orphans(self.redis, self.settings.redis_prefix, "0")
        assert not lost, lost

    async def everything(self) -> dict[bytes, Any]:
        """All keys but those that count writes."""
        found: dict[bytes, Any] = {}
        for key in sorted(await self.redis.keys(f"{self.settings.redis_prefix}:*")):
            name = key.rpartition(b"}:")[2]
            if name in (b"ledger", b"touched", b"touched_ids") or b"live" in name:
                continue
            match await self.redis.type(key):
                case b"hash":
                    found[name] = await self.redis.hgetall(key)
                case b"set":
                    found[name] = await self.redis.smembers(key)
                case b"list":
                    found[name] = await self.redis.lrange(key, 0, -1)
                case b"string":
                    value = await self.redis.get(key)
                    found[name] = {value[place : place + 17] for place in range(0, len(value), 17)}
        return found


def with_retentions(settings: Settings, prefix: str) -> Settings:
    days = {"raw_retention": RAW_DAYS * DAY_US, "rollup_retention": ROLLUP_DAYS * DAY_US}
    return settings.model_copy(update={"redis_prefix": prefix, **days})


async def raw_runs(kept: Kept) -> int:
    return sum([await kept.redis.hlen(key) for key in await kept.redis.keys("*:raw:*")])

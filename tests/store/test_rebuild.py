"""A rebuild makes cells what the raw runs say, between batches, and lets a version with other attributes go on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from runtally.api.history import History
from runtally.core import cohorts
from runtally.core.bins import Bins
from runtally.core.levels import DAY_US
from runtally.errors import FencedError
from runtally.settings import Settings
from runtally.store import ledger, records
from runtally.store.audit import Audit
from runtally.store.keys import Keys
from runtally.store.link import Link
from runtally.store.rebuild import Request
from runtally.store.runs import RunsShard
from tests.api.living import asked, check_history, living
from tests.asking import asking
from tests.reference.history import Reference

from .estate import Estate, log
from .older import without

TIMES = [f"2026-11-{22 + number % 3}T{number % 24:02}:{number % 60:02}:07Z" for number in range(60)]
BINS = Bins(1_795_219_200_000_000, DAY_US // 4, 16)
NOW = 1_795_600_000_000_000
BODY = {
    "history_start": "2026-11-22T00:10:00Z",
    "history_end": "2026-11-25T00:00:00Z",
    "history_interval_seconds": 4000,
}
ASKED: list[dict[str, Any]] = [
    {},
    {"flow_runs": {"work_queue_name": {"any_": ["queue-1", "queue-2"]}}},
    {"flow_runs": {"tags": {"all_": ["a"]}, "work_queue_name": {"any_": ["other"]}}},
    {"flow_runs": {"deployment_id": {"is_null_": True}}},
]


def flow_run(number: int, queue: str | None = None, tags: tuple[str, ...] = ("a",)) -> dict[str, Any]:
    data = {
        "id": f"flow-run-{number}",
        "flow_id": f"flow-{number % 3}",
        "deployment_id": f"deployment-{number % 2}",
        "tags": list(tags),
        "work_queue_name": queue or f"queue-{number % 4}",
        "parent_task_run_id": "parent" if number % 5 == 0 else None,
    }
    return {"entity": "flow_run", "action": "upsert", "occurred": TIMES[number], "data": data}


def task_run(number: int, in_flow: bool = True) -> dict[str, Any]:
    time = TIMES[number]
    data = {
        "id": f"{'run' if in_flow else 'single'}-{number}",
        "flow_run_id": f"flow-run-{number % 20}" if in_flow else None,
        "name": "task",
        "state_type": "COMPLETED" if number % 3 else "RUNNING",
        "state_name": "Completed" if number % 3 else "Running",
        "state_timestamp": time,
        "start_time": time,
        "expected_start_time": None if number % 7 == 0 else time,
    }
    return {"entity": "task_run", "action": "upsert", "occurred": time, "data": data}


FIRST = [*map(flow_run, range(15)), *map(task_run, range(40)), task_run(41, False), task_run(42, False)]
THEN = [*(flow_run(number, "other", ("b", "c")) for number in range(16, 20)), *map(task_run, range(30, 60))]
MOVED = [{**flow_run(number, "moved"), "occurred": "2026-11-24T23:59:59Z"} for number in range(6)]


@pytest.fixture
async def request_of_shard(redis: Redis, own: Settings) -> AsyncIterator[Request]:
    link = Link(redis)
    yield Request(link, own, "0")
    await link.close()


def keys_of(own: Settings) -> Keys:
    return Keys(own.redis_prefix, ledger.GENERATION, "0")


async def wrong(redis: Redis, own: Settings) -> list[Any]:
    audit = Audit(redis, own, "0")
    try:
        return [one for day in await audit.days() for one in (await audit.check(day)).wrong]
    finally:
        await audit.close()


async def spoil(redis: Redis, own: Settings) -> None:
    """Break cells in every way: lost, changed, cut, of a scope that does not exist, and a whole hash."""
    found = sorted(await redis.keys(f"{own.redis_prefix}:*:cells:*"))
    by_kind = {
        kind: [key for key in found if f":cells:{kind}".encode() in key] for kind in ("a0", "a4", "c1", "f2", "d3")
    }
    await redis.delete(by_kind["a0"][0])
    field, cells = next(iter((await redis.hgetall(by_kind["a4"][0])).items()))
    await redis.hset(by_kind["a4"][0], field, bytes([cells[0], cells[1], cells[2], cells[3], cells[4] + 1]) + cells[5:])
    field, cells = next(iter((await redis.hgetall(by_kind["c1"][0])).items()))
    await redis.hset(by_kind["c1"][0], field, cells[:-1])
    await redis.hset(by_kind["f2"][0], bytes(16), cells)
    await redis.hdel(by_kind["d3"][0], *(await redis.hkeys(by_kind["d3"][0])))


async def answers(estate: Estate) -> list[Any]:
    return await estate.history(BINS, NOW)


async def test_a_rebuild_that_is_asked_for_repairs_every_cell_and_readers_notice(
    estate: Estate, redis: Redis, own: Settings, request_of_shard: Request
) -> None:
    await estate.apply(FIRST)
    right = await answers(estate)
    before = {key: await redis.dump(key) for key in await redis.keys("*")}
    assert await wrong(redis, own) == []
    await spoil(redis, own)
    kinds = {one.kind.name for one in await wrong(redis, own)}
    assert kinds == {"all", "cohort", "flow", "deployment"}
    await request_of_shard.ask()
    steps = 0
    while await estate.runs[0].step():
        steps += 1
    standing = await request_of_shard.standing()
    assert (standing.done, standing.total, standing.finished) == (steps, steps, True)
    assert standing.written >= 5
    await request_of_shard.withdraw()
    assert await wrong(redis, own) == []
    assert await answers(estate) == right
    assert {*await redis.keys("*")} == {*before}
    assert not await estate.runs[0].step()


async def test_nothing_is_written_over_cells_that_are_right(
    estate: Estate, redis: Redis, own: Settings, request_of_shard: Request
) -> None:
    await estate.apply(FIRST, 1000)
    cells = {key: await redis.dump(key) for key in await redis.keys("*:cells:*")}
    touched = await redis.zrange(keys_of(own).touched, 0, -1, withscores=True)
    await request_of_shard.ask()
    while await estate.runs[0].step():
        pass
    assert {key: await redis.dump(key) for key in await redis.keys("*:cells:*")} == cells
    assert await redis.zrange(keys_of(own).touched, 0, -1, withscores=True) == touched


async def test_batches_between_the_days_of_a_rebuild_are_counted_once(
    estate: Estate, redis: Redis, own: Settings, request_of_shard: Request
) -> None:
    await estate.apply(FIRST)
    await spoil(redis, own)
    await request_of_shard.ask()
    for begin in range(0, len(THEN) + len(MOVED), 5):
        await estate.runs[0].step()
        await estate.apply([*THEN, *MOVED][begin : begin + 5])
    while await estate.runs[0].step():
        pass
    assert await wrong(redis, own) == []
    assert await estate.cell_differences() == []


async def test_a_rebuild_by_a_worker_that_lost_its_shard_writes_nothing(
    estate: Estate, redis: Redis, own: Settings, request_of_shard: Request
) -> None:
    await estate.apply(FIRST)
    zombie = estate.runs[0]
    await request_of_shard.ask()
    await zombie.step()
    successor = RunsShard(redis, own, 0)
    await successor.open(log(partitions=1))
    before = {key: await redis.dump(key) for key in await redis.keys("*")}
    with pytest.raises(FencedError):
        await zombie.step()
    assert {key: await redis.dump(key) for key in await redis.keys("*")} == before
    while await successor.step():
        pass
    assert (await request_of_shard.standing()).finished
    await successor.close()


@pytest.mark.parametrize("name", ["work_queue_name", "flow_name"])
@pytest.mark.parametrize("most", [20_000, 3])
async def test_cells_of_fewer_attributes_take_no_batch_and_answer_exactly_until_they_are_rebuilt(
    redis: Redis, own: Settings, request_of_shard: Request, name: str, most: int
) -> None:
    few = own.model_copy(update={"max_cohorts": most})
    with pytest.MonkeyPatch.context() as monkeypatch:
        without(name, monkeypatch)
        older = Estate(redis, few, partitions=1)
        await older.open()
        await older.apply(FIRST)
        assert not older.runs[0].outdated
        await older.close()
    newer = Estate(redis, few, partitions=1)
    newer._offsets, newer.told = older._offsets, older.told
    await newer.open()
    shard = newer.runs[0]
    assert "`runtally rebuild` makes them anew" in shard.outdated
    with pytest.raises(AssertionError):
        await newer.apply(THEN)
    newer._offsets["0"] = shard.next_offset
    del newer.told["0"][shard.next_offset :]
    assert not await shard.step()
    async with living(few) as service:
        reference = newer.reference_at(newer._offsets)
        await check_answers(service, reference)
        await request_of_shard.ask()
        await shard.step()
        await check_answers(service, reference)
        # Another one goes on where this one stopped, and is told that it has to.
        await shard.open(log(partitions=1))
        assert "only partly" in shard.outdated
        steps = 0
        while shard.outdated:
            assert await shard.step()
            await check_answers(service, reference)
            steps += 1
        assert steps > 1
        assert await wrong(redis, few) == []
        await newer.apply([*THEN, *MOVED])
        await check_answers(service, newer.reference_at(newer._offsets))
    assert await wrong(redis, few) == []
    assert await newer.cell_differences() == []
    await shard.open(log(partitions=1))
    assert not shard.outdated
    await newer.close()


async def check_answers(service: History, reference: Reference) -> None:
    for filters in ASKED:
        body = {**BODY, **filters}
        check_history(await asked(service, body, NOW), reference, body, NOW)


async def test_cells_of_other_scopes_are_not_read(redis: Redis, own: Settings, request_of_shard: Request) -> None:
    estate = Estate(redis, own, partitions=1)
    await estate.open()
    await estate.apply(FIRST)
    cells = ledger.current_cells().replace("f234", "f34")
    await redis.hset(keys_of(own).ledger, "cells", cells)
    await estate.reopen()
    async with asking(own, NOW) as api:
        answer = await api.history(BODY)
        while "not connected" in answer.text or "waiting" in answer.text:
            answer = await api.history(BODY)
        assert answer.status_code == 503
        assert "`runtally rebuild`" in answer.text
        await request_of_shard.ask()
        while estate.runs[0].outdated:
            await estate.runs[0].step()
        assert (await api.history(BODY)).json() == estate.reference_at(estate._offsets).history(BODY, NOW)
    await estate.close()


async def test_old_cohorts_leave_room_for_new_ones_after_a_rebuild(
    redis: Redis, own: Settings, request_of_shard: Request
) -> None:
    few = own.model_copy(update={"max_cohorts": 12})
    with pytest.MonkeyPatch.context() as monkeypatch:
        without("work_queue_name", monkeypatch)
        older = Estate(redis, few, partitions=1)
        await older.open()
        await older.apply([*map(flow_run, range(2)), *map(task_run, range(2))])
        await older.close()
    newer = Estate(redis, few, partitions=1)
    await newer.open()
    shard = newer.runs[0]
    await request_of_shard.ask()
    while shard.outdated:
        await shard.step()
    newer._offsets["0"] = shard.next_offset
    await newer.apply([*map(flow_run, range(2, 6)), *map(task_run, range(2, 6))])
    stored = records.decode_cohorts(await redis.lrange(keys_of(own).cohorts, 0, -1))
    # Six flow runs, and what they are before their events have come.
    assert sum(map(cohorts.is_current, stored)) == 7
    assert all(cohorts.attribute(cohort, "tags") is not cohorts.UNKNOWN for cohort in stored)
    await newer.close()

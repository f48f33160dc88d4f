"""Nobody writes to a shard but the one who knows its ledger, and no log is followed but the one it was made from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from runtally.errors import FencedError, LedgerTroubleError, ServerLostError, SettingError, UnfitServerError
from runtally.settings import Settings
from runtally.store.connect import check, connect
from runtally.store.fence import Batch
from runtally.store.keys import live_key
from runtally.store.ledger import Mark, read_ledgers
from runtally.store.repair import accept_new_log, go_on_at
from runtally.store.runs import RunsShard

from .estate import Estate, changes_of, log


def run(number: int) -> dict:
    time = f"2026-11-24T10:{number % 60:02}:00Z"
    data = {
        "id": f"run-{number}",
        "flow_run_id": None,
        "name": "task",
        "state_type": "COMPLETED",
        "state_name": "Completed",
        "state_timestamp": time,
        "expected_start_time": time,
    }
    return {"entity": "task_run", "action": "upsert", "occurred": time, "data": data}


def batch_of(offset: int, event: dict) -> Batch:
    return Batch(offset, offset + 1, changes_of([event], "runs"), Mark(offset, 0, 0), 0)


async def everything(redis: Redis) -> dict[bytes, bytes]:
    return {key: await redis.dump(key) for key in await redis.keys("*")}


async def test_the_second_of_two_writers_is_refused_and_changes_nothing(
    estate: Estate, redis: Redis, own: Settings
) -> None:
    zombie = estate.runs[0]
    await zombie.apply(estate.batch("0", changes_of([run(1)], "runs")))
    successor = RunsShard(redis, own, 0)
    await successor.open(log(partitions=1))
    batch = estate.batch("0", changes_of([run(2)], "runs"))
    await successor.apply(batch)
    before = await everything(redis)
    with pytest.raises(FencedError):
        await zombie.apply(batch)
    with pytest.raises(FencedError):
        await zombie.apply(replace(batch, first_offset=2, next_offset=3))
    assert await everything(redis) == before
    await successor.close()


async def test_a_writer_overtaken_between_its_reads_and_its_commit_writes_nothing(
    estate: Estate, redis: Redis, own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = estate.runs[0]
    quick = RunsShard(redis, own, 0)
    batch = estate.batch("0", changes_of([run(1)], "runs"))
    commit = slow._fence.commit

    async def overtaken(*arguments: object) -> None:
        await quick.open(log(partitions=1))
        await quick.apply(batch)
        await commit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(slow._fence, "commit", overtaken)
    with pytest.raises(FencedError):
        await slow.apply(batch)
    monkeypatch.undo()
    assert await estate.cell_differences() == []
    assert await slow.open(log(partitions=1)) == batch.next_offset
    await quick.close()


async def test_a_writer_overtaken_right_after_its_commit_writes_nothing_more(
    estate: Estate, redis: Redis, own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, quick = estate.runs[0], RunsShard(redis, own, 0)
    link = slow._fence._link
    commit = link.commit

    async def overtaken(commands: list[Any], then: list[Any]) -> Any:
        await commit(commands, [])
        await quick.open(log(end=1, partitions=1))
        await quick.apply(batch_of(1, run(2)))
        return await link.call(then)

    monkeypatch.setattr(link, "commit", overtaken)
    await slow.apply(batch_of(0, run(1)))
    monkeypatch.undo()
    before = await everything(redis)
    with pytest.raises(FencedError):
        await slow.apply(batch_of(1, run(2)))
    assert await everything(redis) == before
    await quick.close()


async def test_a_writer_whose_connection_was_lost_can_still_be_overtaken(
    estate: Estate, redis: Redis, own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, quick = estate.runs[0], RunsShard(redis, own, 0)
    connection = slow._fence._link._connection
    assert connection is not None
    await connection.disconnect()
    with pytest.raises(ServerLostError):
        await slow.apply(batch_of(0, run(1)))
    commit = slow._fence.commit

    async def overtaken(*arguments: object) -> None:
        await quick.open(log(partitions=1))
        await quick.apply(batch_of(0, run(1)))
        await commit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(slow._fence, "commit", overtaken)
    with pytest.raises(FencedError):
        await slow.apply(batch_of(0, run(1)))
    monkeypatch.undo()
    assert await estate.cell_differences() == []
    await quick.close()


async def test_a_ledger_that_was_put_back_as_it_was_is_gone_on_with_after_a_look(estate: Estate, redis: Redis) -> None:
    worker = estate.runs[0]
    await worker.apply(estate.batch("0", changes_of([run(1)], "runs")))
    (ledger,) = await redis.keys("*.0}:ledger")
    await redis.restore(ledger, 0, await redis.dump(ledger), replace=True)
    assert await worker.pulse(None)
    await worker.apply(estate.batch("0", changes_of([run(2)], "runs")))


async def test_a_batch_of_runs_that_are_remembered_costs_one_round_trip(
    estate: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = estate.runs[0]
    await shard.apply(batch_of(0, run(1)))
    call, calls = shard._fence._link.call, []

    async def counted(commands: list[Any]) -> Any:
        calls.append(commands)
        return await call(commands)

    monkeypatch.setattr(shard._fence._link, "call", counted)
    again = run(1)
    again["occurred"] = again["data"]["state_timestamp"] = "2026-11-24T10:02:00Z"
    assert (await shard.apply(batch_of(1, again))).changed == 1
    assert [bool(commands) for commands in calls].count(True) == 1


async def test_a_worker_that_finds_a_run_moved_by_its_successor_is_refused_and_sees_no_trouble(
    redis: Redis, own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, slow, quick = (RunsShard(redis, own, 0) for _ in range(3))
    await first.open(log(partitions=1))
    await first.apply(batch_of(0, run(1)))
    await slow.open(log(end=1, partitions=1))
    records = slow._families._records
    moved = run(1)
    moved["occurred"] = moved["data"]["expected_start_time"] = "2026-11-24T15:00:00Z"

    async def overtaken(found: Any) -> Any:
        await quick.open(log(end=1, partitions=1))
        await quick.apply(batch_of(1, moved))
        return await records(found)

    monkeypatch.setattr(slow._families, "_records", overtaken)
    with pytest.raises(FencedError):
        await slow.apply(batch_of(1, run(1)))
    ledger = await redis.hgetall(slow._fence.keys.ledger)
    assert (ledger[b"trouble"], ledger[b"next"]) == (b"", b"2")
    for shard in (first, slow, quick):
        await shard.close()


async def test_a_batch_that_does_not_begin_where_the_ledger_ends_is_refused(estate: Estate) -> None:
    batch = estate.batch("0", changes_of([run(1)], "runs"))
    await estate.runs[0].apply(batch)
    with pytest.raises(FencedError):
        await estate.runs[0].apply(batch)


async def test_a_replayed_batch_changes_no_answer(estate: Estate, redis: Redis, own: Settings) -> None:
    await estate.apply([run(1), run(2)])
    cells = {key: await redis.dump(key) for key in await redis.keys("*cells*")}
    await accept_new_log(redis, own)
    estate._offsets["0"] = 0
    assert await estate.runs[0].open(log(partitions=1)) == 0
    await estate.apply([run(2), run(1), run(1)])
    assert {key: await redis.dump(key) for key in await redis.keys("*cells*")} == cells


async def test_a_flushed_redis_is_noticed_and_begins_at_the_logs_first_record(estate: Estate, redis: Redis) -> None:
    shard = estate.runs[0]
    await estate.apply([run(1)])
    assert await shard.pulse(None)
    await redis.flushall()
    assert not await shard.pulse(None)
    assert await shard.open(log(first=0, end=1, partitions=1)) == 0


async def test_a_log_that_begins_after_the_next_offset_stops_the_shard(estate: Estate) -> None:
    await estate.apply([run(1)])
    with pytest.raises(LedgerTroubleError, match="log begins at offset 5"):
        await estate.runs[0].open(log(first=5, end=9, partitions=1))


async def test_a_trimmed_log_that_begins_at_the_next_offset_goes_on(estate: Estate) -> None:
    await estate.apply([run(1)])
    assert await estate.runs[0].open(log(first=1, end=1, partitions=1)) == 1


async def test_another_record_at_the_mark_stops_the_shard(estate: Estate) -> None:
    await estate.apply([run(1)])

    async def another(offset: int) -> Mark | None:
        return Mark(offset, 5, 7)

    with pytest.raises(LedgerTroubleError, match="recreated or truncated"):
        await estate.runs[0].open(replace(log(end=9, partitions=1), read_record=another))


async def test_another_partition_count_is_refused(estate: Estate) -> None:
    with pytest.raises(LedgerTroubleError, match="has 3 partitions, the data in Redis was made from 1"):
        await estate.runs[0].open(log(partitions=3))


async def test_a_partition_that_was_added_gets_no_shard(estate: Estate, redis: Redis, own: Settings) -> None:
    added = RunsShard(redis, own, 1)
    with pytest.raises(LedgerTroubleError, match="has 2 partitions, the data in Redis was made from 1"):
        await added.open(log(partitions=2))
    assert not await redis.exists(added._fence.keys.ledger)
    assert not await added.repaired()
    await added.close()


async def test_a_stopped_shard_tells_why_until_it_is_repaired(estate: Estate, redis: Redis, own: Settings) -> None:
    await estate.apply([run(1)])
    shard = estate.runs[0]
    with pytest.raises(LedgerTroubleError, match="log begins at offset 5"):
        await shard.open(log(first=5, end=9, partitions=1))
    ledger = (await read_ledgers(redis, own))["0"]
    assert ledger is not None
    assert "runtally ledger skip 0 --to 5" in ledger.trouble
    assert not await shard.repaired()
    with pytest.raises(LedgerTroubleError):
        await RunsShard(redis, own, 0).open(log(first=5, end=9, partitions=1))
    assert (await read_ledgers(redis, own))["0"] == ledger, "the same trouble is not written again"
    await go_on_at(redis, own, "0", ledger, 5, 9)
    assert await shard.repaired()
    assert await shard.open(log(first=5, end=9, partitions=1)) == 5
    moved = (await read_ledgers(redis, own))["0"]
    assert moved is not None
    assert (moved.trouble, moved.caught_up_at) == ("", 9)


async def test_a_repair_takes_hold_while_a_worker_writes_and_the_worker_notices(
    estate: Estate, redis: Redis, own: Settings
) -> None:
    shard = estate.runs[0]
    await estate.apply([run(1)])
    ledger = (await read_ledgers(redis, own))["0"]
    assert ledger is not None
    await estate.apply([run(2)])
    await go_on_at(redis, own, "0", ledger, 0, 2)
    with pytest.raises(FencedError):
        await shard.apply(estate.batch("0", changes_of([run(3)], "runs")))
    assert await shard.open(log(end=3, partitions=1)) == 0
    with pytest.raises(FencedError, match="moved in this moment"):
        await go_on_at(redis, own, "0", ledger, 2, 2)


async def test_a_full_redis_is_waited_for_and_loses_nothing(estate: Estate, redis: Redis) -> None:
    batch = estate.batch("0", changes_of([run(number) for number in range(500)], "runs"))
    await redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(ServerLostError, match="Redis is full"):
            await estate.runs[0].apply(batch)
    finally:
        await redis.config_set("maxmemory", 0)
    assert await estate.runs[0].open(log(partitions=1)) == 0
    await estate.runs[0].apply(batch)
    assert await estate.cell_differences() == []


async def test_an_evicting_redis_is_refused_by_the_settings_name(redis: Redis, own: Settings) -> None:
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(UnfitServerError, match="maxmemory-policy allkeys-lru"):
            await connect(own)
    finally:
        await redis.config_set("maxmemory-policy", "noeviction")


async def test_missing_persistence_and_small_listpacks_are_warned_about(
    redis: Redis, own: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    before = await redis.config_get("hash-max-listpack-value", "appendonly", "save")
    await redis.config_set("hash-max-listpack-value", 64)
    await redis.config_set("appendonly", "no")
    await redis.config_set("save", "")
    try:
        await check(redis)
    finally:
        for name, value in before.items():
            await redis.config_set(name, value)
    assert "hash-max-listpack-value 64" in caplog.text
    assert "keeps nothing on disk" in caplog.text


async def test_data_of_another_format_is_refused_by_number(redis: Redis, own: Settings) -> None:
    await redis.hset(live_key(own.redis_prefix), mapping={"format": 999, "generation": 1, "partitions": 1})
    with pytest.raises(UnfitServerError, match="format 999"):
        await connect(own)


async def test_a_wrong_password_names_the_setting(redis: Redis, own: Settings) -> None:
    await redis.config_set("requirepass", "secret")
    try:
        with pytest.raises(SettingError, match="RUNTALLY_REDIS_URL"):
            await connect(own)
    finally:
        await redis.config_set("requirepass", "")

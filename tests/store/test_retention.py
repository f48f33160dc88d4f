"""What is old goes, in steps, and nothing that stays is changed by it; time is what the log says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from runtally.core.bins import Bins
from runtally.core.cells import CELL
from runtally.core.time import text_of
from runtally.errors import BadRequestError, FencedError
from runtally.settings import Settings
from runtally.store.fence import Fence
from runtally.store.ledger import current_cells
from runtally.store.link import Command, Link
from runtally.store.rebuild import Request
from runtally.store.runs import RunsShard
from tests.api.living import asked, counted, living
from tests.conftest import SettingsFactory, examples

from .estate import changes_of, log
from .keeping import DAY_US
from .kept import FAR_DAYS, START_DAY, Kept, Told, at, drawn, flow_run, raw_runs, task_run, with_retentions
from .older import without


@pytest.fixture
async def kept(settings: SettingsFactory) -> AsyncIterator[Kept]:
    own = with_retentions(settings(kafka="127.0.0.1:1"), "kept")
    async with Redis.from_url(own.redis_url, protocol=2) as redis:
        kept = Kept(redis, own)
        await kept.estate.open()
        yield kept
        await kept.estate.close()


async def test_records_go_and_their_answers_stay(kept: Kept) -> None:
    runs = [task_run(n / 10, n, expected=n / 10, since=n / 10, flow_run="abc"[n % 3]) for n in range(100)]
    await kept.tell(*runs, most=7)
    assert await raw_runs(kept) == 100
    await kept.check()
    await kept.tell(task_run(15.5, 100, expected=15.5, since=15.5))
    assert await raw_runs(kept) == 51
    await kept.check()


async def test_a_worker_that_was_overtaken_is_refused_before_it_reads_what_the_other_wrote(kept: Kept) -> None:
    await kept.tell(task_run(0, 1), task_run(0, 2))
    assert await kept.shard.expire(at(12))
    successor = RunsShard(kept.redis, kept.settings, 0)
    await successor.open(log(partitions=1))
    kept.estate.watermark_us = at(12)
    await successor.apply(kept.estate.batch("0", changes_of([task_run(12, 3, "FAILED").event], "runs")))
    with pytest.raises(FencedError):
        await kept.shard.expire(at(12))
    await successor.close()


async def test_what_makes_no_sense_because_redis_was_emptied_meanwhile_is_refused(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept.tell(task_run(0, 1), task_run(12, 2, expected=12, since=12))
    read = Fence.read

    async def emptied(fence: Fence, commands: Sequence[Command]) -> list[Any]:
        if commands and commands[0][0] == "GET":
            await kept.redis.flushall()
        return await read(fence, commands)

    monkeypatch.setattr(Fence, "read", emptied)
    with pytest.raises(FencedError, match="somebody else wrote"):
        await kept.tell(task_run(60, 3, expected=60, since=60))


async def test_what_makes_no_sense_though_nobody_else_wrote_is_no_fence(kept: Kept) -> None:
    await kept.tell(task_run(0, 1), task_run(12, 2, expected=12, since=12))
    for key in await kept.redis.keys("kept:{1.0}:single:*"):
        await kept.redis.hset(key, mapping=dict.fromkeys(await kept.redis.hkeys(key), "broken"))
    with pytest.raises(ValueError, match="broken"):
        await kept.tell(task_run(60, 3, expected=60, since=60))


async def test_what_is_as_old_as_the_horizon_is_kept_and_what_is_older_goes(kept: Kept) -> None:
    await kept.tell(task_run(5, 1, expected=5, since=5), task_run(5, 2, expected=4.999, since=4.999))
    await kept.tell(task_run(15, 3, expected=15, since=15))
    assert await raw_runs(kept) == 2
    await kept.check()


async def test_the_horizon_moves_before_anything_goes(kept: Kept) -> None:
    await kept.tell(task_run(0, 1), task_run(0, 2))
    assert await kept.shard.expire(at(12))
    horizon, expired = await kept.redis.hmget("kept:{1.0}:ledger", "horizon", "expired")
    assert (int(horizon), int(expired) < at(2), await raw_runs(kept)) == (at(2), True, 2)
    while await kept.shard.expire(at(12)):
        pass
    horizon, expired = await kept.redis.hmget("kept:{1.0}:ledger", "horizon", "expired")
    assert (int(horizon), int(expired), await raw_runs(kept)) == (at(2), at(2), 0)


async def test_an_open_run_stays_until_it_has_ended_and_is_old(kept: Kept) -> None:
    await kept.tell(task_run(0, 1, "RUNNING"), task_run(0, 2), task_run(12, 3, expected=12, since=12))
    assert await raw_runs(kept) == 2
    await kept.check()
    await kept.tell(task_run(13, 1, since=13))
    await kept.check()
    await kept.tell(task_run(23, 4, expected=23, since=23))
    assert await raw_runs(kept) == 2, "it ended on a day that has its records still"
    await kept.tell(task_run(25, 5, expected=25, since=25))
    assert await raw_runs(kept) == 2
    await kept.check()


async def test_an_event_of_a_frozen_run_is_dropped_and_a_backfilled_run_is_new(kept: Kept) -> None:
    await kept.tell(task_run(0, 1, flow_run="a"), task_run(0, 2), flow_run(0, "a", "COMPLETED", tags="x"))
    await kept.tell(task_run(12, 3, expected=12, since=12))
    known = [
        task_run(12, 1, "FAILED", since=12, flow_run="a"),
        task_run(12, 2, action="delete"),
        flow_run(12, "a", "FAILED", since=12, tags="y"),
        flow_run(12, "a", None, action="delete"),
    ]
    for one in known:
        applied = await kept.shard.apply(kept.estate.batch("0", changes_of([one.event], "runs")))
        kept.estate.told["0"].append(one.event)
        kept.reference.tell(one.event, one.record_us)
        assert (applied.frozen, applied.changed, applied.stale) == (1, 0, 0)
    assert kept.reference.dropped == len(known)
    await kept.tell(task_run(12, 4, since=1), task_run(12, 5, expected=-300, since=-300))
    await kept.check()
    found = await kept.estate.history(Bins(at(0), DAY_US, 1), at(FAR_DAYS))
    assert found[0]["COMPLETED", "Completed"][0] == 3
    await kept.estate.reopen()
    await kept.tell(task_run(14, 4, since=1), task_run(14, 2, since=13))
    await kept.check()


async def test_behind_the_rollup_retention_only_open_runs_are_left(kept: Kept) -> None:
    await kept.tell(*[task_run(n, n, expected=n, since=n, flow_run="ab"[n % 2]) for n in range(20)], most=4)
    await kept.tell(flow_run(20, "a", "COMPLETED", since=20), flow_run(20, "b", None, action="delete"))
    await kept.tell(task_run(20, 50, "PENDING", expected=3.5), task_run(20, 51, action="delete"))
    await kept.tell(task_run(45, 60, expected=45, since=45))
    await kept.check()
    await kept.tell(task_run(90, 61, expected=90, since=90))
    await kept.check()
    left = {name for name in await kept.everything() if not name.startswith((b"cells:", b"states", b"cohorts"))}
    assert sorted(map(kind_of, left)) == ["days", "raw", "raw", "single", "single"]
    await kept.tell(task_run(91, 50, since=91, expected=3.5), task_run(130, 62, expected=130, since=130))
    await kept.check()
    assert await kept.redis.smembers("kept:{1.0}:days") == {b"%d" % (START_DAY + 130), b"%d" % (START_DAY + 90)}


def kind_of(name: bytes) -> str:
    return name.partition(b":")[0].decode()


async def test_a_run_without_expected_time_stays_as_long_as_cells(kept: Kept) -> None:
    await kept.tell(task_run(0, 1, expected=None), task_run(15, 2, expected=15, since=15))
    assert await kept.redis.hlen("kept:{1.0}:raw:none") == 1
    await kept.check()
    await kept.tell(task_run(45, 3, expected=45, since=45))
    assert not await kept.redis.exists("kept:{1.0}:raw:none")
    await kept.check()


async def test_a_frozen_run_is_known_as_long_as_cells_and_its_siblings_do_not_take_it_along(kept: Kept) -> None:
    await kept.tell(task_run(0, 1, flow_run="a"), task_run(5, 2, expected=5, since=5, flow_run="a"))
    await kept.tell(task_run(20, 3, expected=20, since=20), task_run(45, 4, expected=45, since=45))
    assert [await kept.redis.hlen(key) for key in await kept.redis.keys("*:members:*")] == [1]
    await kept.tell(task_run(45, 2, "FAILED", expected=44, since=45, flow_run="a"))
    assert kept.reference.dropped == 1
    await kept.check()


async def test_a_rebuild_leaves_old_answers_as_they_are(kept: Kept) -> None:
    await kept.tell(*[task_run(n, n, expected=n, since=n) for n in range(15)], most=3)
    await rebuilt(kept)
    await kept.check()


async def test_a_rebuild_that_is_overtaken_by_the_horizon_leaves_what_is_behind_it(kept: Kept) -> None:
    await kept.tell(*[task_run(n, n, expected=n, since=n) for n in range(9)], most=3)
    link = Link(kept.redis)
    request = Request(link, kept.settings, "0")
    await request.ask()
    assert await kept.shard.step()
    await kept.tell(task_run(15, 20, expected=15, since=15))
    while await kept.shard.step():
        pass
    assert (await request.standing()).finished
    await kept.check()
    await request.withdraw()
    await link.close()


async def rebuilt(kept: Kept) -> None:
    """Have the shard rebuilt."""
    link = Link(kept.redis)
    request = Request(link, kept.settings, "0")
    await request.ask()
    while await kept.shard.step():
        pass
    standing = await request.standing()
    assert standing.finished, standing.refused
    await request.withdraw()
    await link.close()


async def test_open_runs_of_old_days_leave_the_cohorts_of_an_earlier_version(kept: Kept) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        without("work_queue_name", monkeypatch)
        await kept.redis.flushall()
        await kept.estate.reopen()
        await kept.tell(flow_run(0, "a", "RUNNING"), flow_run(0, "b", "RUNNING"))
        await kept.tell(task_run(0, 1, "RUNNING", flow_run="a"), task_run(0, 2, flow_run="a"))
        await kept.tell(task_run(0, 4, "RUNNING", flow_run="b"), task_run(12, 3, expected=12, since=12))
    await kept.estate.reopen()
    assert kept.shard.outdated
    await rebuilt(kept)
    assert not kept.shard.outdated
    assert await counts_by_cohort(kept, START_DAY) == {"1": 1, "3": 2}
    await kept.check()
    await kept.tell(task_run(13, 1, since=13, flow_run="a"), task_run(13, 4, flow_run="b", action="delete"))
    assert await counts_by_cohort(kept, START_DAY) == {"1": 1, "3": 1}
    await kept.check()


async def counts_by_cohort(kept: Kept, day: int) -> dict[str, int]:
    cells = await kept.redis.hgetall(f"{kept.settings.redis_prefix}:{{1.0}}:cells:c4:{day}")
    return {field[:-1].decode(): int(np.frombuffer(packed, CELL)["n"].sum()) for field, packed in cells.items()}


async def test_other_scopes_of_days_without_records_are_made_from_the_log_only(kept: Kept) -> None:
    await kept.tell(task_run(0, 1), task_run(12, 2, expected=12, since=12))
    scopes = current_cells().replace("f234", "f34")
    await kept.redis.hset(f"{kept.settings.redis_prefix}:{{1.0}}:ledger", "cells", scopes)
    await kept.estate.reopen()
    assert "`runtally rebuild --from-log`" in kept.shard.outdated
    link = Link(kept.redis)
    request = Request(link, kept.settings, "0")
    await request.ask()
    assert not await kept.shard.step()
    assert (await request.standing()).refused == kept.shard.outdated
    await link.close()


async def test_a_minute_without_records_counts_as_a_whole_and_the_answer_says_so(kept: Kept) -> None:
    minute = 60_000_000
    early, late = (at(1) + seconds * 1_000_000 for seconds in (10, 50))
    runs = [task_run(1, n, expected=(when - at(0)) / DAY_US, since=1) for n, when in enumerate((early, late))]
    await kept.tell(*runs, task_run(15, 9, expected=15, since=15))

    def body(start_us: int, **more: Any) -> Any:
        return {"history_start": text_of(start_us), "history_end": text_of(start_us + minute)} | {
            "history_interval_seconds": 60,
            **more,
        }

    def counts(answer: Any) -> list[int]:
        return [sum(entry.count for entry in entries) for entries in answer.entries]

    async with living(kept.settings) as service:
        horizon = at(5)
        whole = await asked(service, body(at(1)), at(20))
        assert (counts(whole), whole.stand.exact) == ([2], True)
        between = await asked(service, body(at(1) + 30_000_000), at(20))
        assert (counts(between), between.stand.exact, between.stand.frozen_before_us) == ([0], False, horizon)
        assert "frozen=1m" in between.stand.plan
        before = await asked(service, body(at(1) - 30_000_000), at(20))
        assert (counts(before), before.stand.exact) == ([2], False)
        halved = {"task_runs": {"expected_start_time": {"before_": text_of(at(1) + 30_000_000)}}}
        assert counts(await asked(service, body(at(1), **halved), at(20))) == [2]
        count = await counted(service, body(at(1), **halved), at(20))
        assert (count.count, count.stand.exact) == (2, False)


async def test_a_filter_that_needs_records_says_from_when_on_there_are_some(kept: Kept) -> None:
    await kept.tell(task_run(1, 1, expected=1, since=1), task_run(15, 9, expected=15, since=15))
    named: Any = {"task_runs": {"name": {"like_": "task"}}}
    span = {"history_start": text_of(at(0)), "history_end": text_of(at(20)), "history_interval_seconds": 864_000}
    since: Any = {"task_runs": {**named["task_runs"], "expected_start_time": {"after_": text_of(at(5))}}}
    async with living(kept.settings) as service:
        for ask in (asked, counted):
            with pytest.raises(
                BadRequestError, match=f"task_runs.name.like_ need raw runs.* {text_of(at(5))} only sums"
            ):
                await ask(service, span | named, at(20))
        assert (await counted(service, span | since, at(20))).count == 1
        early = await asked(service, span | since, at(20))
        assert [len(entries) for entries in early.entries] == [0, 1]
        await asked(service, span | named | {"history_start": text_of(at(5))}, at(20))


async def test_who_has_looked_before_knows_of_no_more_days_than_who_looks_anew(kept: Kept) -> None:
    await kept.tell(task_run(1, 1, expected=1, since=1), task_run(15, 9, expected=15, since=15))
    named: Any = {"task_runs": {"name": {"like_": "task"}}}
    span = {"history_start": text_of(at(0)), "history_end": text_of(at(5)), "history_interval_seconds": 86_400}
    async with living(kept.settings) as service:
        with pytest.raises(BadRequestError, match="need raw runs"):
            await asked(service, span | named, at(20))
        await kept.tell(task_run(45, 10, expected=45, since=45))
        old = await asked(service, span | named, at(50))
        async with living(kept.settings) as another:
            anew = await asked(another, span | named, at(50))
        assert old.entries == anew.entries
        assert [len(entries) for entries in old.entries] == [0] * 5


async def replayed(settings: Settings, told: list[Told], most: int, prefix: str, cut: int) -> dict[bytes, Any]:
    """What a log leaves, applied so many events at once, with an owner that gives up after so many steps of expiry."""
    async with Redis.from_url(settings.redis_url, protocol=2) as redis:
        kept = Kept(redis, with_retentions(settings, prefix))
        try:
            await kept.estate.open()
            for begin in range(0, len(told), most):
                part = told[begin : begin + most]
                if cut:
                    for _ in range(cut):
                        await kept.shard.expire(max(kept.estate.watermark_us, part[0].record_us))
                    await kept.estate.reopen()
                await kept.tell(*part, most=most)
            await kept.check()
            return await kept.everything()
        finally:
            await kept.estate.close()


@examples(40, parts=4)
@given(st.integers(0, 1 << 40), st.sampled_from([2, 7, 1000]), st.sampled_from([0, 1, 2, 3, 5]))
def test_a_log_leaves_what_the_reference_keeps_however_it_is_read(valkey: str, seed: int, most: int, cut: int) -> None:
    settings = Settings(redis_url=valkey)
    told = drawn(Random(seed))
    with SyncRedis.from_url(valkey) as redis:
        redis.flushall()
    once = asyncio.run(replayed(settings, told, 1, "once", 0))
    again = asyncio.run(replayed(settings, told, most, "again", cut))
    assert lasting(once) == lasting(again)


def lasting(everything: dict[bytes, Any]) -> dict[bytes, Any]:
    """Records, index and what leaves it: without numbers of states, which batches may give in another order."""
    found = {}
    for name, value in everything.items():
        if name.startswith(b"raw:"):
            found[name] = {run: (record[:1], record[3:]) for run, record in value.items()}
        elif name.startswith((b"members:", b"single:", b"flow_runs:", b"leaving:")):
            found[name] = value
    return found

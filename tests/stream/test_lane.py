"""What a lane does about fetches that never reach it; its surroundings are played, since no server loses on demand."""

from __future__ import annotations

import asyncio
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.subscription_state import SubscriptionState
from faust.types import TP

from runtally.errors import FencedError, TooManyBadError
from runtally.metrics import Metrics
from runtally.store.shard import Applied, LogEnds
from runtally.stream.consumer import BatchConsumer, Fetched, _Thread
from runtally.stream.intake import by_day
from runtally.stream.lane import Lane
from runtally.stream.load import Turns


class PlayedConsumer:
    """Has fetched up to `fetched`, and notes where it is told to go on."""

    def __init__(self) -> None:
        self.fetched = 0
        self.dropped = 0
        self.restarts: list[int] = []
        self.held = False
        self.assigned = True

    def run_of(self, tp: TP) -> int:
        return len(self.restarts) + self.dropped

    def due(self, tp: TP) -> int:
        return self.fetched

    async def position(self, tp: TP) -> int:
        return self.fetched

    async def restart_at(self, tp: TP, offset: int) -> bool:
        if self.assigned:
            self.fetched = offset
            self.held = False
            self.restarts.append(offset)
        return self.assigned

    async def hold(self, tp: TP) -> None:
        self.held = True


class PlayedShard:
    """Has applied up to 5, and notes the positions that it is told of."""

    name = "0"
    next_offset = 5
    watermark_us = 0
    outdated = ""

    def __init__(self) -> None:
        self.told: list[int | None] = []
        self.trouble = ""

    async def open(self, log: LogEnds) -> int:
        return self.next_offset

    async def pulse(self, position: int | None) -> bool:
        self.told.append(position)
        return True

    async def stop(self, trouble: str) -> None:
        self.trouble = trouble

    async def repaired(self) -> bool:
        return not self.trouble

    async def expire(self, watermark_us: int) -> bool:
        return False


class PlayedLog:
    async def ends(self, topic: str, partition: int) -> LogEnds:
        async def nothing(offset: int) -> None:
            return None

        return LogEnds(0, 9, 1, nothing)


def lane() -> tuple[Lane, PlayedConsumer, PlayedShard]:
    consumer, shard = PlayedConsumer(), PlayedShard()
    parts: list[Any] = [consumer, PlayedLog(), shard, None, Metrics("worker"), Turns(1 << 20), TP("t", 0)]
    return Lane(*parts), consumer, shard


async def test_what_is_fetched_and_not_yet_applied_is_not_reported_as_read() -> None:
    followed, consumer, shard = lane()
    await followed.pulse()
    consumer.fetched = 9
    for _ in range(4):
        await followed.pulse()
    assert 9 not in shard.told


async def test_a_run_that_was_dropped_is_fetched_again_though_nothing_follows_it() -> None:
    followed, consumer, _ = lane()
    await followed.pulse()
    consumer.dropped += 1
    await followed.pulse()
    assert consumer.restarts == [5, 5]


async def test_a_lane_whose_partition_is_given_away_while_it_opens_waits() -> None:
    followed, consumer, _ = lane()
    consumer.assigned = False
    await followed.pulse()
    assert (followed.state, followed.next_offset) == ("waiting", None)
    assert "given to another worker" in followed.trouble
    consumer.assigned = True
    await followed.pulse()
    assert (followed.state, consumer.restarts) == ("live", [5])


async def test_a_quiet_partition_is_left_alone_and_reported_as_read() -> None:
    followed, consumer, shard = lane()
    for _ in range(4):
        await followed.pulse()
    assert consumer.restarts == [5]
    assert shard.told[-1] == 5


async def test_a_lane_whose_ledger_is_being_read_again_has_no_offset() -> None:
    followed, consumer, shard = lane()
    await followed.pulse()
    seen: list[int | None] = []
    opened = shard.open

    async def slowly(log: LogEnds) -> int:
        seen.append(followed.next_offset)
        return await opened(log)

    shard.open = slowly  # type: ignore[method-assign]
    consumer.dropped += 1
    await followed.pulse()
    assert (seen, followed.next_offset) == ([None], 5)


class PlayedIntake:
    """Notes the offsets of each batch that it is asked for, and stops there."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    async def batch(self, first_offset: int, records: list[Any], now_us: int) -> Any:
        self.asked.append([record.offset for record in records])
        raise FencedError("0", "far enough")


async def test_waiting_fetches_are_one_batch_up_to_the_first_gap() -> None:
    consumer, shard, intake = PlayedConsumer(), PlayedShard(), PlayedIntake()
    parts: list[Any] = [consumer, PlayedLog(), shard, intake, Metrics("worker"), Turns(1 << 20), TP("t", 0)]
    followed = Lane(*parts)
    await followed.pulse()
    run = consumer.run_of(TP("t", 0))
    for begin, offsets in ((5, [5, 6]), (7, [7, 8]), (9, [10]), (11, [11])):
        records: list[Any] = [SimpleNamespace(offset=offset, timestamp=0, timestamp_type=1) for offset in offsets]
        followed.put(Fetched(TP("t", 0), run, begin, records))
    task = asyncio.create_task(followed.run())
    while not intake.asked:
        await asyncio.sleep(0)
    task.cancel()
    assert intake.asked == [[5, 6, 7, 8]]


def to_apply(turns: Turns, work: int, *sizes: int) -> tuple[Lane, PlayedConsumer, PlayedIntake]:
    """A lane that is to apply fetches of so many records, and each of so much work."""
    consumer, shard, intake = PlayedConsumer(), PlayedShard(), PlayedIntake()
    followed = Lane(*[consumer, PlayedLog(), shard, intake, Metrics("worker"), turns, TP("t", 0)])  # type: ignore[arg-type]
    followed.state, followed._run, offset = "live", 0, 5
    for size in sizes:
        records: list[Any] = [
            SimpleNamespace(offset=at, timestamp=0, timestamp_type=1) for at in range(offset, offset + size)
        ]
        followed.put(Fetched(TP("t", 0), 0, offset, records, work))
        offset += size
    return followed, consumer, intake


async def test_no_more_fetches_become_one_batch_than_a_batch_may_weigh() -> None:
    followed, _, intake = to_apply(Turns(40), 4, 1, 1, 1, 1)
    task = asyncio.create_task(followed.run())
    while not intake.asked:
        await asyncio.sleep(0)
    task.cancel()
    assert intake.asked == [[5, 6]]


async def test_a_batch_waits_for_its_turn_and_is_not_applied_if_the_lane_is_given_up_meanwhile() -> None:
    turns = Turns(30)
    lanes = [to_apply(turns, 4, 1) for _ in range(2)]
    async with turns.turn(30):
        tasks = [asyncio.create_task(followed.run()) for followed, _, _ in lanes]
        for _ in range(20):
            await asyncio.sleep(0)
        assert not any(intake.asked for _, _, intake in lanes)
        leaving = asyncio.create_task(lanes[0][0].idle())
        await asyncio.sleep(0)
    await leaving
    while not lanes[1][2].asked:
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    assert [intake.asked for _, _, intake in lanes] == [[], [[5]]]


async def test_a_lane_that_waits_to_try_again_leaves_its_turn_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtally.stream.lane._FIRST_WAIT_S", 60)
    turns = Turns(30)
    followed, _, intake = to_apply(turns, 30, 1)
    task = asyncio.create_task(followed.run())
    while not intake.asked:
        await asyncio.sleep(0)
    async with asyncio.timeout(10), turns.turn(30):
        assert followed.state == "waiting"
    task.cancel()


def test_a_day_begins_a_batch_whatever_was_fetched_together() -> None:
    day_ms, append, create = 86_400_000, 1, 0
    times = [(5 * day_ms, append), (4 * day_ms, append), (6 * day_ms, create), (5 * day_ms, append)]
    times += [(900 * day_ms, create), (6 * day_ms + 1, append), (8 * day_ms, append)]
    records: list[Any] = [
        SimpleNamespace(offset=offset, timestamp=time, timestamp_type=kind) for offset, (time, kind) in enumerate(times)
    ]
    parts = by_day(records, 4 * day_ms * 1000, 8 * day_ms * 1000)
    assert [[record.offset for record in part] for part in parts] == [[0, 1], [2, 3, 4, 5], [6]]


class SpoiltIntake:
    """Finds every record from offset 7 on bad."""

    async def batch(self, first_offset: int, records: list[Any], now_us: int) -> Any:
        if records[-1].offset >= 7:
            raise TooManyBadError("0", "all bad", 7)
        return SimpleNamespace(
            offsets=[record.offset for record in records], next_offset=records[-1].offset + 1, watermark_us=0
        )


async def test_a_shard_that_stops_has_applied_what_is_good_and_goes_on_when_it_is_repaired() -> None:
    consumer, shard = PlayedConsumer(), PlayedShard()
    applied: list[Any] = []
    meanwhile: list[int | None] = []

    async def apply(batch: Any) -> Applied:
        applied.append(batch.offsets)
        return Applied(1, 0, 0, 0)

    async def stop(trouble: str) -> None:
        # There is no ledger to ask any more.
        meanwhile.append(followed.next_offset)
        shard.trouble = trouble

    shard.apply = apply  # type: ignore[attr-defined]
    shard.stop = stop  # type: ignore[method-assign]
    parts: list[Any] = [consumer, PlayedLog(), shard, SpoiltIntake(), Metrics("worker"), Turns(1 << 20), TP("t", 0)]
    followed = Lane(*parts)
    await followed.pulse()
    records: list[Any] = [SimpleNamespace(offset=offset, timestamp=0, timestamp_type=1) for offset in range(5, 9)]
    followed.put(Fetched(TP("t", 0), consumer.run_of(TP("t", 0)), 5, records))
    task = asyncio.create_task(followed.run())
    while followed.state != "stopped":
        await asyncio.sleep(0)
    task.cancel()
    assert (applied, shard.trouble, followed.trouble) == ([[5, 6]], "all bad", "all bad")
    assert meanwhile == [None]
    await followed.pulse()
    assert (followed.state, consumer.held) == ("stopped", True)
    shard.trouble = ""
    await followed.pulse()
    assert (followed.state, followed.trouble, consumer.restarts, consumer.held) == ("live", "", [5, 5], False)


async def test_what_is_asked_of_a_partition_that_was_given_away_is_answered_with_nothing() -> None:
    tp = TP("t", 0)
    state = SubscriptionState()
    state.assign_from_user([TP("t", 1)])
    inner = SimpleNamespace(_subscription=state)
    calls = {name: partial(getattr(AIOKafkaConsumer, name), inner) for name in ("position", "highwater")}
    thread: Any = object.__new__(_Thread)
    thread._consumer = SimpleNamespace(seek=state.seek, **calls)
    thread.consumer = SimpleNamespace(in_transaction=False)
    consumer: Any = object.__new__(BatchConsumer)
    consumer._thread = thread
    thread.call_thread = lambda function, *arguments: function(*arguments)
    assert await thread.restart(tp, 5) is False
    assert await consumer.position(tp) is None
    assert consumer.highwater(tp) is None

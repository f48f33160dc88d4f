"""What is bad or misplaced is sent on before its batch is committed, and once, however often the batch is tried."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from runtally.errors import TooManyBadError
from runtally.events.dead_letter import DeadLetter
from runtally.events.partition import FORWARDED, Partitioner, partition_of
from runtally.events.publish import Publisher
from runtally.events.reader import reader
from runtally.metrics import Metrics
from runtally.settings import Settings
from runtally.stream.intake import Intake

from . import truth

Make = Callable[..., Settings]
NOW_MS = time.time_ns() // 1_000_000
HERE = 1
"""The partition whose records are read."""


def record(offset: int, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> Any:
    return SimpleNamespace(
        **{"topic": "t.runs", "partition": HERE, "offset": offset, "timestamp": NOW_MS, "timestamp_type": 1},
        **{"key": b"k", "value": value, "headers": headers},
    )


@pytest.fixture
async def own(worker_settings: Make, embedded_broker: str) -> Settings:
    settings = worker_settings(kafka=embedded_broker, redis_url="redis://127.0.0.1:1/0", dead_letter_limit=5)
    await truth.create_topics(settings)
    return settings


@pytest.fixture
async def intake(own: Settings) -> AsyncIterator[Intake]:
    async with Publisher(own) as publisher:
        yield Intake(own, publisher, Metrics("worker"), "runs", HERE, Partitioner(own.partitions))


def events(own: Settings, *, here: bool) -> list[bytes]:
    """Good events that belong here, or elsewhere."""
    return [value for key, value in truth.estate(200) if (partition_of(key, own.partitions) == HERE) == here]


async def sent(own: Settings, topic: str) -> list[Any]:
    consumer = await reader(own, auto_offset_reset="earliest")
    try:
        consumer.assign([TopicPartition(topic, number) for number in range(1 if "dead" in topic else own.partitions)])
        found: list[Any] = []
        while fetched := await consumer.getmany(timeout_ms=1000):
            found += [each for records in fetched.values() for each in records]
        return found
    finally:
        await consumer.stop()


async def test_a_batch_that_is_tried_again_is_sent_on_once(own: Settings, intake: Intake) -> None:
    good, elsewhere = events(own, here=True), events(own, here=False)
    records = [record(0, good[0]), record(1, b"{"), record(2, elsewhere[0]), record(3, b"["), record(4, good[1])]
    for part in (records, records, records[:2], records[2:], records[2:]):
        batch = await intake.batch(part[0].offset, part, NOW_MS * 1000)
    assert (len(batch.changes), batch.next_offset) == (1, 5)
    letters = [DeadLetter(each.key, each.value, each.headers) for each in await sent(own, own.dead_letters_topic)]
    assert [letter.place[2] for letter in letters] == [1, 3]
    (forwarded,) = await sent(own, own.runs_topic)
    assert (forwarded.value, dict(forwarded.headers)) == (elsewhere[0], {FORWARDED: b"1"})

    await intake.batch(0, records[:2], NOW_MS * 1000 + 1)
    again = [record(1, b"{")]
    again[0].timestamp += 1
    await intake.batch(1, again, NOW_MS * 1000)
    assert len(await sent(own, own.dead_letters_topic)) == 4, "another log has other records at the same offsets"


async def test_an_event_that_was_forwarded_and_is_still_misplaced_is_refused(own: Settings, intake: Intake) -> None:
    astray = record(0, events(own, here=False)[0], [(FORWARDED, b"1")])
    batch = await intake.batch(0, [astray], NOW_MS * 1000)
    assert (batch.changes, batch.next_offset) == ([], 1)
    assert await sent(own, own.runs_topic) == []
    (letter,) = await sent(own, own.dead_letters_topic)
    assert DeadLetter(letter.key, letter.value, letter.headers).reason == "wrong partition"


async def test_too_many_bad_events_are_refused_before_one_of_them_is_sent(own: Settings, intake: Intake) -> None:
    good = events(own, here=True)
    first = [record(0, b"{"), *[record(offset, good[offset]) for offset in range(1, 9)]]
    bad = [record(offset, b"{") for offset in range(9, 12)]
    more = [*[record(offset, b"{") for offset in range(12, 20)], record(20, good[20])]
    await intake.batch(0, first, NOW_MS * 1000)
    for _ in range(3):  # tried again and again: still three in a row
        await intake.batch(9, bad, NOW_MS * 1000)
    with pytest.raises(TooManyBadError, match="5 events in a row") as raised:
        await intake.batch(12, more, NOW_MS * 1000)
    assert raised.value.offset == 12
    assert len(await sent(own, own.dead_letters_topic)) == 4

"""Fetches that are taken as they were decoded give what aiokafka gives, and no more of a partition than they may."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any
from weakref import ref

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from runtally.events.reader import reader
from runtally.settings import Settings
from runtally.stream.fetches import Limit, take_whole

from . import truth

Make = Callable[..., Settings]
MOST = 7
EACH = 40


async def taken(consumer: AIOKafkaConsumer) -> dict[TopicPartition, list[Any]]:
    async with asyncio.timeout(20):
        while True:
            with consumer._subscription.fetch_context():
                found: dict[TopicPartition, list[Any]] = await consumer._fetcher.fetched_records(None, 1.0)
            if found:
                return found


def told(records: list[Any]) -> list[tuple[Any, ...]]:
    return [(r.offset, r.timestamp, r.timestamp_type, r.key, r.value, [*r.headers]) for r in records]


async def test_what_is_taken_is_what_aiokafka_gives_and_only_so_much_of_each_partition_at_once(
    embedded_broker: str, worker_settings: Make
) -> None:
    settings = worker_settings(kafka=embedded_broker)
    await truth.create_topics(settings)
    places = [TopicPartition(settings.runs_topic, number) for number in range(2)]
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as producer:
        for number in range(EACH):
            for tp in places:
                value, headers = None if number == 3 else b"%d" % number, [("h", b"%d" % number)] * (number % 3)
                await producer.send(tp.topic, value, b"k", partition=tp.partition, headers=headers)
            if number % 10 == 0:
                await producer.flush()
    plain, light = [await reader(settings, auto_offset_reset="earliest") for _ in range(2)]
    try:
        for consumer in (plain, light):
            consumer.assign(places)
        expected: dict[TopicPartition, list[Any]] = {tp: [] for tp in places}
        while any(len(records) < EACH for records in expected.values()):
            for tp, records in (await plain.getmany(timeout_ms=1000)).items():
                expected[tp] += records
        limit = Limit()
        limit.most = MOST
        take_whole(light, limit)
        found: dict[TopicPartition, list[Any]] = {tp: [] for tp in places}
        together, kept = 0, False
        while any(len(records) < EACH for records in found.values()):
            fetched = await taken(light)
            assert all(len(records) <= MOST for records in fetched.values())
            together = max(together, sum(map(len, fetched.values())))
            for tp, records in fetched.items():
                found[tp] += records
                assert await light.position(tp) == records[-1].offset + 1
                kept |= tp in light._fetcher._records
            take_whole(light, limit)
        assert together > MOST
        assert kept
        assert {tp: told(records) for tp, records in found.items()} == {
            tp: told(records) for tp, records in expected.items()
        }

        # What lies there of a partition that is paused is not given, and comes again.
        for tp in places:
            light.seek(tp, 5)
        while places[0] not in (fetched := await taken(light)):
            pass
        assert fetched[places[0]][0].offset == 5
        async with asyncio.timeout(20):
            while not {*places} <= {*light._fetcher._records}:
                await asyncio.sleep(0.01)
        light.pause(places[0])
        assert {*await taken(light)} == {places[1]}
        light.resume(places[0])
        while places[0] not in (fetched := await taken(light)):
            pass
        assert fetched[places[0]][0].offset == 5 + MOST
    finally:
        await plain.stop()
        await light.stop()


async def test_a_fetch_is_gone_when_it_is_taken(embedded_broker: str, worker_settings: Make) -> None:
    settings = worker_settings(kafka=embedded_broker)
    await truth.create_topics(settings)
    here = TopicPartition(settings.runs_topic, 0)
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as producer:
        await producer.send_and_wait(here.topic, b"v", partition=0)
    consumer = await reader(settings, auto_offset_reset="earliest")
    try:
        consumer.assign([here])
        limit = Limit()
        limit.most = MOST
        take_whole(consumer, limit)
        held = consumer._fetcher._records
        async with asyncio.timeout(20):
            while here not in held:
                await asyncio.sleep(0.01)
        fetch = ref(held[here])
        gc.disable()
        assert fetch() is not None
        await taken(consumer)
        assert fetch() is None
    finally:
        gc.enable()
        await consumer.stop()

"""What was published is in Kafka, under the right key, when `publish` returns."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from runtally.errors import BadEventError, ServerLostError
from runtally.events.partition import key_of, partition_of
from runtally.events.publish import Message, Publisher, Record, checked
from runtally.events.wire import read
from runtally.ops import topics
from runtally.settings import Settings

from ..conftest import SettingsFactory
from .samples import event, raw


async def made(settings: SettingsFactory, broker: str) -> Settings:
    own = settings(kafka=broker, redis_url="redis://127.0.0.1:1", partitions=4)
    await topics.create(own)
    return own


async def records(settings: Settings, topic: str, partitions: int, count: int) -> list[Any]:
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka, isolation_level="read_committed")
    await consumer.start()
    try:
        places = [TopicPartition(topic, number) for number in range(partitions)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        found: list[Any] = []
        while len(found) < count:
            fetched = await consumer.getmany(timeout_ms=5000)
            assert fetched, f"{len(found)} of {count} records"
            found += [record for batch in fetched.values() for record in batch]
        return found
    finally:
        await consumer.stop()


def message(value: Any, settings: Settings) -> Message:
    found = checked(raw(value), settings)
    assert isinstance(found, Message)
    return found


async def test_all_are_there_when_publish_returns(settings: SettingsFactory, broker: str) -> None:
    own = await made(settings, broker)
    messages = [message(event(id=f"run {n}", flow_run_id=f"flow run {n % 50}"), own) for n in range(6000)]
    messages += [message(event("flow"), own), message(event("deployment"), own)]
    async with Publisher(own) as publisher:
        assert await publisher.publish(messages) == 6002
    runs = await records(own, own.runs_topic, 4, 6000)
    assert sorted(record.value for record in runs) == sorted(each.value for each in messages[:6000])
    assert all(record.partition == partition_of(record.key, 4) for record in runs)
    for record in runs[::100]:
        change = read(record.value)
        assert record.key == key_of(change)  # type: ignore[arg-type]
    assert len(await records(own, own.catalog_topic, 1, 2)) == 2


async def test_events_of_one_flow_run_stay_in_order(settings: SettingsFactory, broker: str) -> None:
    own = await made(settings, broker)
    messages = [message(event(name=str(number)), own) for number in range(3000)]
    async with Publisher(own) as publisher:
        await publisher.publish(messages)
    found = await records(own, own.runs_topic, 4, 3000)
    assert [record.value for record in found] == [each.value for each in messages]


async def test_a_record_is_forwarded_as_it_is(settings: SettingsFactory, broker: str) -> None:
    own = await made(settings, broker)
    async with Publisher(own) as publisher:
        await publisher.forward([Record(own.runs_topic, b"k", None, [("h", b"\xff")], partition=2)])
    (found,) = await records(own, own.runs_topic, 4, 1)
    assert (found.partition, found.key, found.value, list(found.headers)) == (2, b"k", None, [("h", b"\xff")])


@pytest.mark.kafka
async def test_the_largest_event_fits_and_one_too_large_spoils_nothing(settings: SettingsFactory, kafka: str) -> None:
    own = await made(settings, kafka)
    size = (1 << 20) - 1024 - len(raw(event(name="")))
    async with Publisher(own) as publisher:
        assert await publisher.publish([message(event(name="x" * size), own)]) == 1
        with pytest.raises(BadEventError, match="over 1 MiB"):
            await publisher.publish([(own.runs_topic, b"k", b"x" * (1 << 20))])
        assert await publisher.publish([message(event(), own)]) == 1


async def test_a_broker_that_is_away_is_named(settings: SettingsFactory) -> None:
    own = settings(kafka="127.0.0.1:1", redis_url="redis://127.0.0.1:1")
    with pytest.raises(ServerLostError, match=r"Kafka at 127\.0\.0\.1:1 is away"):
        async with Publisher(own):
            pass


@pytest.mark.kafka
async def test_a_topic_that_is_missing_is_told_from_a_broker_that_is_away(
    settings: SettingsFactory, kafka: str
) -> None:
    own = settings(kafka=kafka, redis_url="redis://127.0.0.1:1")
    async with Publisher(own) as publisher:
        with pytest.raises(ServerLostError, match="runtally topics create"):
            await publisher.publish([message(event(), own)])
        await topics.create(own)
        assert await publisher.publish([message(event(), own)]) == 1

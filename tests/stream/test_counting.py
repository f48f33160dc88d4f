"""Every event is counted once, whoever published it and however the worker ends."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import Producer

from runtally.embedded import ports
from runtally.embedded.child import Child
from runtally.settings import Settings

from . import truth

RUNS = 2_000
Start = Callable[..., Child]
Make = Callable[..., Settings]


async def test_a_worker_counts_everything_and_ends_at_once_when_asked(
    broker: str, worker_settings: Make, processes: Start
) -> None:
    settings = worker_settings(kafka=broker, verify_every="1s")
    await truth.create_topics(settings)
    await truth.publish(settings, truth.estate(RUNS))
    worker = processes("worker", settings)
    await truth.until_counted(settings, truth.completed(RUNS))
    again = truth.estate(10)
    await truth.publish(settings, again)
    expected = {"applied": 3 * RUNS, "stale": 20, "duplicate": 10}
    await truth.until(lambda: truth.metric(settings, "batch_events_sum") == 3 * RUNS + len(again))
    await truth.until(lambda: {name: truth.metric(settings, f"events_{name}_total") for name in expected} == expected)
    await truth.until(lambda: truth.metric(settings, "verified_cells_total{") > 0)
    begin = time.monotonic()
    worker.terminate()
    await truth.until(lambda: worker.returncode is not None)
    assert worker.returncode == 0
    assert time.monotonic() - begin < 8, "a second, when the machine has nothing else to do"


@pytest.mark.kafka
async def test_batches_are_read_whatever_they_are_compressed_with(
    kafka: str, worker_settings: Make, processes: Start
) -> None:
    settings = worker_settings(kafka=kafka)
    await truth.create_topics(settings)
    for seed, compression in enumerate(("gzip", "lz4", "snappy", "zstd")):
        await truth.publish(settings, truth.estate(100, seed=seed), compression_type=compression)
    processes("worker", settings)
    await truth.until_counted(settings, truth.completed(400))


@pytest.mark.kafka
async def test_a_producer_with_librdkafkas_own_partitioner_is_counted_once(
    kafka: str, worker_settings: Make, processes: Start
) -> None:
    settings = worker_settings(kafka=kafka)
    await truth.create_topics(settings)
    worker = processes("worker", settings)
    producer = Producer({"bootstrap.servers": kafka, "acks": "all"})
    for key, value in truth.estate(RUNS):
        producer.produce(settings.runs_topic, value=value, key=key)
        producer.poll(0)
    producer.flush()
    await truth.until_counted(settings, truth.completed(RUNS))
    assert truth.metric(settings, "events_forwarded_total") > 0
    await truth.until(lambda: "partitioner=murmur2_random" in worker.tail(200))


@pytest.mark.kafka
async def test_only_committed_transactions_are_counted(kafka: str, worker_settings: Make, processes: Start) -> None:
    settings = worker_settings(kafka=kafka)
    await truth.create_topics(settings)
    processes("worker", settings)
    good, bad = truth.estate(200, seed=1), truth.estate(200, seed=2)
    producer = AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=settings.topic_prefix, acks="all")
    await producer.start()
    try:
        for part in range(0, len(good), 60):
            for events, keep in ((bad, False), (good, True)):
                await producer.begin_transaction()
                await asyncio.gather(
                    *[
                        await producer.send(settings.runs_topic, value=value, key=key)
                        for key, value in events[part : part + 60]
                    ]
                )
                await (producer.commit_transaction() if keep else producer.abort_transaction())
    finally:
        await producer.stop()
    await truth.until_counted(settings, truth.completed(200))


@pytest.mark.kafka
async def test_a_worker_that_is_killed_in_mid_stream_goes_on_where_redis_is(
    kafka: str, worker_settings: Make, processes: Start
) -> None:
    settings = worker_settings(kafka=kafka)
    await truth.create_topics(settings)
    # Long names, so that a fetch holds a small part of the events.
    events = truth.estate(2_000, padding=6_000)
    await truth.publish(settings, events, max_batch_size=256 << 10)
    for _ in range(3):
        before = truth.applied(settings)
        worker = processes("worker", settings)
        await truth.until(lambda before=before: truth.applied(settings) > before)  # type: ignore[misc]
        worker.signal(signal.SIGKILL)
        worker.stop(1)
    assert truth.applied(settings) < len(events), "the kills came too late to mean anything"
    processes("worker", settings)
    await truth.until_counted(settings, truth.completed(2_000))


def shared_out(*workers: Settings) -> bool:
    """Whether all are well, each has shards, and none is with two."""
    told = [truth.health(each) for each in workers]
    shards = [name for health in told for name in health.get("shards", ())]
    return sorted(shards) == [*"0123c"] and all(health.get("ok") and health["shards"] for health in told)


@pytest.mark.kafka
async def test_two_workers_share_and_one_takes_over_what_a_killed_one_had(
    kafka: str, worker_settings: Make, processes: Start
) -> None:
    settings = worker_settings(kafka=kafka)
    other = settings.model_copy(update={"worker_name": "other", "metrics_port": ports.any_free()})
    await truth.create_topics(settings)
    first, second = truth.halves(truth.estate(RUNS))
    processes("worker", settings)
    doomed = processes("worker", other)
    await truth.until(lambda: shared_out(settings, other))
    await truth.publish(settings, first)
    await truth.until(lambda: truth.applied(settings) == len(first))
    doomed.signal(signal.SIGKILL)
    doomed.stop(1)
    await truth.publish(settings, second)
    await truth.until_counted(settings, truth.completed(RUNS))


@pytest.mark.kafka
async def test_a_worker_that_is_asked_to_end_leaves_the_group_so_that_nobody_waits(
    kafka: str, worker_settings: Make, processes: Start
) -> None:
    settings = worker_settings(kafka=kafka)
    other = settings.model_copy(update={"worker_name": "other", "metrics_port": ports.any_free()})
    await truth.create_topics(settings)
    first, second = truth.halves(truth.estate(RUNS))
    leaving = processes("worker", settings)
    processes("worker", other)
    await truth.until(lambda: shared_out(settings, other))
    await truth.publish(settings, first)
    leaving.terminate()
    await truth.publish(settings, second)
    seconds = await truth.until(lambda: truth.applied(settings) == len(first) + len(second))
    assert seconds < 5.8, "as long as a session time-out"
    await truth.until_counted(settings, truth.completed(RUNS))
    assert leaving.returncode == 0

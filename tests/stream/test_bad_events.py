"""Bad events go to the dead letters and the stream goes on; nothing but bad ones stops the worker."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from redis import Redis

from runtally.embedded.child import Child
from runtally.events.partition import partition_of
from runtally.settings import Settings

from . import truth

Start = Callable[..., Child]
Make = Callable[..., Settings]


async def test_a_bad_event_goes_to_the_dead_letters_and_the_stream_goes_on(
    broker: str, worker_settings: Make, processes: Start
) -> None:
    settings = worker_settings(kafka=broker)
    await truth.create_topics(settings)
    events = truth.estate(100)
    late = json.loads(events[0][1])
    late["occurred"] = "2199-01-01T00:00:00Z"
    bad = [b"{", b"[]", b'{"entity":"task"}', json.dumps(late).encode(), b"x" * 70_000]
    await truth.publish(settings, [(b"k", value) for value in bad] + events)
    processes("worker", settings)
    await truth.until_counted(settings, truth.completed(100))
    letters = await truth.dead_letters(settings, len(bad))
    assert {letter.key for letter in letters} == {b"k"}
    assert sorted(len(letter.value) for letter in letters)[-1] == 64 << 10
    reasons = sorted(dict(letter.headers)["runtally-reason"].decode() for letter in letters)
    assert reasons.count("not JSON") == 2
    assert "impossible time" in reasons
    await truth.until(lambda: truth.metric(settings, "events_bad_total") == len(bad))


@pytest.mark.kafka
async def test_nothing_but_bad_events_stops_their_shard_before_the_first_of_them(
    kafka: str, worker_settings: Make, processes: Start
) -> None:
    settings = worker_settings(kafka=kafka, dead_letter_limit=50)
    await truth.create_topics(settings)
    events = truth.estate(100)
    await truth.publish(settings, events)
    await truth.publish(settings, [(b"k", b"nonsense")] * 200)
    shard = str(partition_of(b"k", settings.partitions))
    before = sum(partition_of(key, settings.partitions) == int(shard) for key, _ in events)
    worker = processes("worker", settings)
    await truth.until_counted(settings, truth.completed(100))
    await truth.until(lambda: truth.states(settings).get(shard) == "stopped")
    await truth.until(lambda: set(truth.states(settings).values()) == {"live", "stopped"})
    await truth.until(lambda: "50 events in a row" in str(truth.health(settings)))
    assert truth.metric(settings, "events_bad_total") == 0
    with Redis.from_url(settings.redis_url) as redis:
        stopped = truth.ledger(redis, settings, shard)
    assert stopped is not None
    assert stopped.next == before
    assert f"from offset {before} on" in stopped.trouble
    assert worker.returncode is None
    worker.stop()

    processes("worker", settings.model_copy(update={"dead_letter_limit": 1000}))
    await truth.until(lambda: truth.applied(settings) == len(events) + 200)
    assert len({letter.offset for letter in await truth.dead_letters(settings, 200)}) == 200
    await truth.until(lambda: truth.health(settings).get("ok") is True)


@pytest.mark.kafka
async def test_a_clock_far_ahead_is_bad_where_producers_set_the_time(
    kafka: str, worker_settings: Make, processes: Start
) -> None:
    settings = worker_settings(kafka=kafka)
    await truth.create_topics(settings, timestamps="CreateTime")
    ahead = int(time.time() * 1000) + 2 * 3_600_000
    await truth.publish(settings, truth.estate(10, seed=1), timestamp_ms=ahead)
    await truth.publish(settings, truth.estate(10, seed=2))
    processes("worker", settings)
    await truth.until_counted(settings, truth.completed(10))
    assert truth.watermark(settings) < ahead * 1000 - 3_600_000_000

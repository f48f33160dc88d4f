"""Bad events go to the dead letters and the stream goes on; nothing but bad ones stops the worker."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from runtally.embedded.child import Child
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
    assert truth.metric(settings, "events_bad_total") == len(bad)


@pytest.mark.kafka
async def test_nothing_but_bad_events_stops_the_worker(kafka: str, worker_settings: Make, processes: Start) -> None:
    settings = worker_settings(kafka=kafka, dead_letter_limit=50)
    await truth.create_topics(settings)
    await truth.publish(settings, [(b"k", b"nonsense")] * 200)
    worker = processes("worker", settings)
    await truth.until(lambda: worker.returncode is not None, 20)
    assert worker.returncode == 1
    assert "in a row" in worker.tail(20)
    assert "Traceback" not in worker.tail(100)


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

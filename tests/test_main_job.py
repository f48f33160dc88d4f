"""The main job from end to end: events into Kafka, a worker process, rollups in Redis, answers over HTTP."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from redis import Redis

from runtally.embedded import ports
from runtally.embedded.child import Child
from runtally.events.publish import Message, Publisher, checked
from runtally.ops import topics
from runtally.settings import Settings

from .asking import HISTORY, Question, asking
from .reference import Reference
from .reference.times import body_time_us
from .strategies import estate_of, question
from .stream import truth

Start = Callable[..., Child]
Make = Callable[..., Settings]

SAMPLE = Path(__file__).parent / "data" / "prefect-events.jsonl"
SECOND_US = 1_000_000
TEN_US = 1_795_514_400_000_000
"""2026-11-24T10:00:00Z; the sample's events are of the four minutes after 10:01:32."""


def body(start: str, end: str, width_s: float) -> dict[str, Any]:
    day = "2026-11-24T"
    return {"history_start": f"{day}{start}Z", "history_end": f"{day}{end}Z", "history_interval_seconds": width_s}


MORNING = body("09:00:00", "11:00:00", 60)
SAMPLE_QUESTIONS: list[Question] = [
    (each, TEN_US + now_s * SECOND_US + 123_457)
    for each in (body("10:01:00", "10:06:00", 1), body("10:01:00.25", "10:06:30", 7.5), MORNING)
    for now_s in (0, 95, 150, 600, 86_400)
]


def sample() -> tuple[list[bytes], Reference]:
    lines = SAMPLE.read_bytes().splitlines()
    reference = Reference()
    for line in lines:
        assert reference.apply(line) in ("applied", "ignored")
    return lines, reference


async def test_prefects_own_events_are_answered_as_the_reference_answers(
    broker: str, settings: Make, processes: Start
) -> None:
    ours = settings(kafka=broker, partitions=4, metrics_port=ports.any_free(), api_port=ports.any_free())
    lines, reference = sample()
    await topics.create(ours)
    worker = processes("worker", ours)
    processes("api", ours)
    published = await publish(ours, lines)
    async with asking(ours) as api:
        await api.until_ready()
        await api.until_equal(reference, SAMPLE_QUESTIONS)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ours.api_port}") as client:
        await until_ready(client)
        for path in (HISTORY, "/task_runs/history"):
            answer = await client.post(path, json=MORNING)
            now, ledger = answer.headers["x-runtally-at"].removeprefix("now=").split("; ledger=")
            assert answer.json() == reference.history(MORNING, body_time_us(now))
            offsets = dict(part.split(":") for part in ledger.split(","))
            assert list(offsets) == ["c", "0", "1", "2", "3"]
            assert sum(map(int, offsets.values())) == published
    assert worker.returncode is None


async def publish(settings: Settings, events: list[bytes]) -> int:
    """Publish those that say something of a run; how many they are."""
    messages = [message for event in events if isinstance(message := checked(event, settings), Message)]
    async with Publisher(settings) as publisher:
        return await publisher.publish(messages)


async def until_ready(client: httpx.AsyncClient, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if (await client.get("/api/ready")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "the API is not ready"
        await asyncio.sleep(0.1)


# -- a random estate in any order, through kills

KEPT = {"raw_retention": "never", "rollup_retention": "never"}
"""Its runs are of 2021."""


def random_estate(seed: int) -> tuple[list[bytes], Reference, list[Question]]:
    """Good events in a random order and up to three times each, what they amount to, and questions."""
    dice = Random(seed)
    told = estate_of([Random(seed << 16 | number) for number in range(400)], latest_us=time.time_ns() // 1000)
    reference = Reference()
    good = [json.dumps(event).encode() for event in told if reference.apply(event) == "applied"]
    events = [event for event in good for _ in range(dice.choice((1, 1, 2, 3)))]
    dice.shuffle(events)
    questions = [question(dice) for _ in range(25)]
    assert sum(bool(bin_["states"]) for each in questions for bin_ in reference.history(*each)) > 10
    return events, reference, questions


def kill(worker: Child) -> None:
    worker.signal(signal.SIGKILL)
    worker.stop(1)


@pytest.mark.kafka
async def test_a_worker_killed_in_mid_stream_and_an_emptied_redis_change_no_answer(
    kafka: str, settings: Make, processes: Start
) -> None:
    ours = settings(kafka=kafka, partitions=4, metrics_port=ports.any_free(), **KEPT)
    events, reference, questions = random_estate(1)
    await topics.create(ours)
    worker = processes("worker", ours)
    async with killing(ours, events, worker):
        processes("worker", ours)
    async with asking(ours) as api:
        await api.until_equal(reference, questions)
        with Redis.from_url(ours.redis_url) as redis:
            redis.flushall()
        await api.until_equal(reference, questions)


@pytest.mark.kafka
async def test_a_second_worker_takes_over_from_a_killed_one_and_no_answer_changes(
    kafka: str, settings: Make, processes: Start
) -> None:
    ours = settings(kafka=kafka, partitions=4, metrics_port=ports.any_free(), **KEPT)
    other = ours.model_copy(update={"worker_name": "other", "metrics_port": ports.any_free()})
    events, reference, questions = random_estate(2)
    await topics.create(ours)
    first = processes("worker", ours)
    processes("worker", other)
    await truth.until(lambda: all(truth.health(each).get("shards") for each in (ours, other)))
    async with killing(ours, events, first):
        pass
    async with asking(ours) as api:
        await api.until_equal(reference, questions)


@asynccontextmanager
async def killing(settings: Settings, events: list[bytes], worker: Child) -> AsyncIterator[None]:
    """Publish the events, and kill the worker in the middle; the block runs before the rest is published."""
    middle = len(events) // 2
    await publish(settings, events[:middle])
    await truth.until(lambda: truth.applied(settings) > 0)
    await publish(settings, events[middle : middle + 20])
    worker.signal(signal.SIGKILL)
    worker.stop(1)
    yield
    await publish(settings, events[middle + 20 :])

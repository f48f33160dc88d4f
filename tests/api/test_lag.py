"""An answer says how many events of the log are not in it yet, where that is known."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from redis.asyncio import Redis

from runtally.api import lag
from runtally.api.lag import Lag
from runtally.embedded import ports
from runtally.events.publish import Publisher, checked
from runtally.ops import topics
from runtally.settings import Settings
from tests.asking import Asking, asking
from tests.conftest import SettingsFactory
from tests.reference.vectors import DT_US, TASK_RUN_BINS
from tests.store.estate import Estate

from .test_events import event

APPLIED = [event(number, flow_run_id=f"flow run {number}") for number in range(20)]
LATE = [event(number, flow_run_id=f"flow run {number}") for number in range(20, 32)]


async def publish(settings: Settings, events: list[dict[str, object]]) -> None:
    async with Publisher(settings) as publisher:
        await publisher.publish([checked(json.dumps(each).encode(), settings) for each in events])  # type: ignore[list-item]


@asynccontextmanager
async def applied(settings: Settings) -> AsyncIterator[Estate]:
    """Topics with the first events in them, and an estate that has applied these."""
    await topics.create(settings)
    await publish(settings, APPLIED)
    async with Redis.from_url(settings.redis_url, protocol=2) as redis:
        estate = Estate(redis, settings)
        await estate.open()
        await estate.apply(APPLIED)
        yield estate
        await estate.close()


async def until_behind(api: Asking, count: int | None) -> httpx.Response:
    """Ask until an answer is so many events behind."""
    deadline = time.monotonic() + 20
    while True:
        answer = await api.history(TASK_RUN_BINS.range)
        assert answer.status_code == 200
        said = answer.headers.get("x-runtally-lag")
        if said == (None if count is None else str(count)):
            return answer
        assert time.monotonic() < deadline, said
        await asyncio.sleep(0.1)


@pytest.mark.kafka
async def test_an_answer_says_how_many_events_it_is_behind(
    settings: SettingsFactory, kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lag, "EVERY_S", 0.2)
    own = settings(kafka=kafka, partitions=2, max_lag=len(LATE) - 1)
    async with applied(own) as estate, asking(own, DT_US) as api:
        await api.until_ready()
        await until_behind(api, 0)
        await publish(own, LATE)
        await until_behind(api, len(LATE))
        unready = await api.ready()
        assert unready.status_code == 503
        assert unready.json() == {"message": "12 events behind the log, more than the 11 of RUNTALLY_MAX_LAG"}
        assert "x-runtally-lag" in (await api.client.post("/api/task_runs/count")).headers
        await estate.apply(LATE)
        await until_behind(api, 0)
        await api.until_ready()


async def test_a_broker_whose_ends_are_too_low_is_not_believed(
    settings: SettingsFactory, embedded_broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lag, "EVERY_S", 0.2)
    own = settings(kafka=embedded_broker, partitions=2)
    async with applied(own), asking(own, DT_US) as api:
        await api.until_ready()
        for _ in range(20):
            await api.history(TASK_RUN_BINS.range)
            await asyncio.sleep(0.1)
        await publish(own, LATE)
        for _ in range(5):
            await asyncio.sleep(0.1)
            assert "x-runtally-lag" not in (await api.history(TASK_RUN_BINS.range)).headers


async def test_without_kafka_answers_do_not_say_and_nothing_is_logged(
    settings: SettingsFactory, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lag, "_AWAY_S", 0.05)
    own = settings(kafka=f"{ports.HOST}:{ports.any_free()}")
    async with Redis.from_url(own.redis_url, protocol=2) as redis:
        estate = Estate(redis, own)
        await estate.open()
        await estate.close()
    with caplog.at_level(logging.INFO):
        async with asking(own, DT_US) as api:
            await api.until_ready()
            for _ in range(5):
                await until_behind(api, None)
                await asyncio.sleep(0.1)
    assert not [record for record in caplog.records if "kafka" in record.name]


async def test_looking_makes_no_topics(settings: SettingsFactory, broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag, "_AWAY_S", 0.05)
    monkeypatch.setattr(lag, "EVERY_S", 0.05)
    own = settings(kafka=broker, partitions=2)
    looking = Lag(own)
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    looking.start()
    try:
        await asyncio.sleep(0.5)
        assert own.runs_topic not in await admin.list_topics()
        await topics.create(own)
        while looking.behind({"0": 0, "1": 0, "c": 0}) is None:
            await asyncio.sleep(0.05)
        await admin.delete_topics([own.runs_topic, own.catalog_topic])
        await asyncio.sleep(1)
        assert own.runs_topic not in await admin.list_topics()
    finally:
        await looking.stop()
        await admin.close()


def test_what_is_old_or_of_other_shards_is_not_said() -> None:
    known = Lag(Settings())
    assert known.behind({"c": 0}) is None
    known._ends, known._read_at = {"c": 3, "0": 10}, time.monotonic()
    assert known.behind({"c": 3, "0": 4}) == 6
    assert known.behind({"c": 9, "0": 4}) == 6
    assert known.behind({"c": 3, "0": 4, "1": 0}) is None
    known._read_at -= 31
    assert known.behind({"c": 3, "0": 4}) is None

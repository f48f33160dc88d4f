"""Events over HTTP reach the broker, all of a request or none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from runtally.ops import topics
from runtally.settings import Settings
from tests.conftest import SettingsFactory

from .fakes import Service, client_of

EVENTS = "/runtally/api/events"


def event(number: int, **changes: Any) -> dict[str, Any]:
    data = {
        "id": f"run {number}",
        "flow_run_id": "flow run",
        "name": f"task {number}",
        "state_type": "COMPLETED",
        "state_name": "Completed",
        "state_timestamp": "2026-11-01T10:00:00Z",
        "expected_start_time": "2026-11-01T09:59:00Z",
    }
    return {"entity": "task_run", "action": "upsert", "occurred": "2026-11-01T10:00:00Z", "data": data | changes}


@pytest.fixture
async def kafka_settings(embedded_broker: str, settings: SettingsFactory) -> Settings:
    made = settings(kafka=embedded_broker, redis_url="redis://127.0.0.1:1/0", partitions=2)
    await topics.create(made)
    return made


async def published(settings: Settings, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        settings.runs_topic, bootstrap_servers=settings.kafka, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    try:
        return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()


async def test_an_accepted_request_is_with_the_broker_and_a_bad_one_is_not_at_all(kafka_settings):
    given = {name: getattr(kafka_settings, name) for name in ("kafka", "redis_url", "topic_prefix")}
    good = [event(number) for number in range(3)]
    async with client_of(Service(), **given) as client:
        refused = await client.post(EVENTS, json=[event(8), event(9, state_type="DONE")])
        assert refused.status_code == 422
        assert refused.json()["index"] == 1
        assert "DONE" in refused.json()["detail"]
        as_array = await client.post(EVENTS, json=good)
        as_lines = await client.post(EVENTS, content="\n".join(map(json.dumps, good)) + "\n")
    for answer in (as_array, as_lines):
        assert (answer.status_code, answer.json()) == (202, {"accepted": 3, "ignored": 0})
    assert [json.loads(value) for value in await published(kafka_settings, 6)] == good + good


async def test_a_broker_that_is_away_is_said_and_may_come_back(settings):
    async with client_of(Service(), kafka="127.0.0.1:1") as client:
        for _ in range(2):
            answer = await client.post(EVENTS, json=[event(1)])
            assert answer.status_code == 503
            assert "127.0.0.1:1" in answer.json()["detail"]
            assert answer.headers["retry-after"]

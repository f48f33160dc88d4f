"""Dead letters are listed once each, by reason and key, and published again where they belong if they are good now."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiokafka import TopicPartition

from runtally.embedded import ports
from runtally.errors import BadEventError, ServerLostError, UserError
from runtally.events.dead_letter import dead_letter
from runtally.events.partition import partition_of
from runtally.events.publish import Publisher, Record
from runtally.events.reader import reader
from runtally.ops import dead_letters, topics
from runtally.ops.dead_letters import Chosen
from runtally.settings import Settings

from ..api.test_events import event
from ..conftest import SettingsFactory, environment
from ..servers.forks import run

EVERYTHING = Chosen()
FLOW = {
    "entity": "flow",
    "action": "upsert",
    "occurred": "2026-11-24T10:00:00Z",
    "data": {"id": "f", "name": "a flow"},
}


def letter(settings: Settings, offset: int, reason: str, key: str, value: bytes, **given: Any) -> Record:
    made = dead_letter(
        BadEventError(reason, "as it was"),
        **{
            **{"topic": settings.runs_topic, "partition": 1, "offset": offset, "timestamp_ms": 1_000 * offset},
            **{"key": key.encode(), "value": value, "headers": [("trace", b"7"), ("runtally-forwarded", b"1")]},
            **given,
        },
    )
    return Record(settings.dead_letters_topic, made.key, made.value, made.headers)


@pytest.fixture
async def own(settings: SettingsFactory, embedded_broker: str) -> Settings:
    """Topics with some dead letters, two of them written twice, and something that is none."""
    settings_ = settings(kafka=embedded_broker, partitions=4, redis_url="redis://127.0.0.1:1/0")
    await topics.create(settings_)
    good = json.dumps(event(1, flow_run_id="a flow run")).encode()
    records = [
        letter(settings_, 1, "not JSON", "dag-a/run 1", b"{"),
        letter(settings_, 1, "not JSON", "dag-a/run 1", b"{"),
        letter(settings_, 2, "not JSON", "dag-a/run 2", b"{"),
        letter(settings_, 3, "not JSON", "dag-b/run 1", b"{"),
        letter(settings_, 4, "wrong partition", "dag-b/run 2", good),
        letter(settings_, 4, "wrong partition", "dag-b/run 2", good),
        letter(settings_, 5, "wrong topic", "", json.dumps(FLOW).encode()),
        letter(settings_, 6, "wrong type", "dag-c", b"x" * 70_000),
        Record(settings_.dead_letters_topic, b"k", b"somebody else's"),
    ]
    async with Publisher(settings_) as publisher:
        await publisher.forward(records)
    return settings_


async def content(settings: Settings, topic: str, partitions: int) -> list[Any]:
    consumer = await reader(settings, auto_offset_reset="earliest")
    try:
        consumer.assign([TopicPartition(topic, number) for number in range(partitions)])
        found: list[Any] = []
        while fetched := await consumer.getmany(timeout_ms=1000):
            found += [record for records in fetched.values() for record in records]
        return found
    finally:
        await consumer.stop()


async def test_dead_letters_are_grouped_and_one_that_was_written_twice_counts_once(own: Settings) -> None:
    groups = await dead_letters.grouped(own, EVERYTHING, 5)
    assert [(group.reason, group.key_prefix, group.count) for group in groups] == [
        ("not JSON", "dag-a", 2),
        ("not JSON", "dag-b", 1),
        ("wrong partition", "dag-b", 1),
        ("wrong topic", "", 1),
        ("wrong type", "dag-c", 1),
    ]
    first = groups[0]
    assert (first.first_ms, first.last_ms, first.place) == (1000, 2000, (own.runs_topic, 1, 2))
    assert groups[-1].shortened == 1
    (alone,) = await dead_letters.grouped(own, Chosen("not JSON", "dag-b"), 0)
    assert (alone.key_prefix, alone.count) == ("", 1)
    shown = run("dead-letters", "list", **environment(own))
    assert "dag-a/ru" in shown.stdout, shown.stderr
    told = json.loads(run("dead-letters", "list", "--json", "--key-prefix", "0", **environment(own)).stdout)
    assert (told["count"], len(told["groups"])) == (6, 4)


async def test_what_is_good_now_is_published_again_once_where_it_belongs_and_the_rest_is_told(own: Settings) -> None:
    tried = await dead_letters.replay(own, EVERYTHING, publish=False)
    assert (tried.published, await content(own, own.runs_topic, 4)) == (2, [])
    seen: list[tuple[int, int]] = []
    done = await dead_letters.replay(own, EVERYTHING, progress=lambda at, total: seen.append((at, total)))
    assert (done.chosen, done.published, done.shortened) == (6, 2, 1)
    assert done.still_bad == {"not JSON": 3}
    assert seen[-1] == (6, 6)
    (published,) = await content(own, own.runs_topic, 4)
    assert json.loads(published.value) == event(1, flow_run_id="a flow run")
    assert published.partition == partition_of(published.key, 4)
    assert list(published.headers) == [("trace", b"7")]
    (flow,) = await content(own, own.catalog_topic, 1)
    assert json.loads(flow.value) == FLOW
    said = run("dead-letters", "replay", "--reason", "not JSON", **environment(own))
    assert "0 of 3 dead letters published again" in said.stdout
    assert "3 not, because they would be refused again: not JSON" in said.stdout


async def test_without_a_topic_or_a_broker_it_says_so(settings: SettingsFactory, embedded_broker: str) -> None:
    nothing = settings(kafka=embedded_broker, redis_url="redis://127.0.0.1:1/0")
    with pytest.raises(UserError, match="runtally topics create"):
        await dead_letters.grouped(nothing, EVERYTHING, 8)
    away = nothing.model_copy(update={"kafka": f"{ports.HOST}:{ports.any_free()}"})
    with pytest.raises(ServerLostError, match="does not show its dead letters"):
        await dead_letters.grouped(away, EVERYTHING, 8)

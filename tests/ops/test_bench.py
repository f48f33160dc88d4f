"""The benchmarks print what they promise; how fast this machine is, no test says."""

import asyncio
import json
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from redis import Redis

from runtally.core.changes import Change
from runtally.events.partition import key_of
from runtally.events.wire import parse
from runtally.ops.bench_load import Load
from tests.servers.forks import run

_DAY_US = 86_400_000_000
_NOON_US = 1_790_000_000_000_000

Bench = Callable[..., Any]


@pytest.fixture
def bench() -> Bench:
    def result(*arguments: str) -> Any:
        done = run("bench", *arguments, "--json", timeout=280)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return result


def test_the_load_is_what_the_contract_accepts_in_order_of_time() -> None:
    load = Load(events=630, begin_us=_NOON_US, span_us=_DAY_US, family_us=600_000_000, partitions=8)
    events = list(load)
    assert (len(events), load.families, load.runs) == (630, 10, 200)
    assert all(one.time_us <= next_.time_us for one, next_ in pairwise(events))
    changes = [parse(event.value, topic="runs", record_us=_NOON_US + _DAY_US, max_clock_skew_us=0) for event in events]
    assert all(
        isinstance(change, Change) and key_of(change) == event.key
        for change, event in zip(changes, events, strict=True)
    )
    assert len({change.id for change in changes if isinstance(change, Change)}) == 210
    assert 650 < sum(len(event.value) for event in events) / len(events) < 750
    assert list(load) == events


INGEST = [
    *("events", "runs", "events_per_second", "events_per_cpu_second", "bare_events_per_second", "bare_ratio"),
    *("redis_bytes_per_run", "redis_cpu_us_per_event"),
]


@pytest.mark.slow
def test_ingest_prints_its_numbers_and_nothing_else(bench: Bench) -> None:
    check_ingest(bench("ingest", "--events", "60000"))


def check_ingest(found: dict[str, float]) -> None:
    assert list(found) == INGEST
    assert all(value > 0 for value in found.values())


def test_latency_prints_its_numbers_and_nothing_else(bench: Bench) -> None:
    check_latency(bench("latency", "--seconds", "1", "--rate", "100"))


def check_latency(found: dict[str, float]) -> None:
    assert list(found) == ["p50_ms", "p99_ms"]
    assert 0 < found["p50_ms"] <= found["p99_ms"]


@pytest.mark.kafka
@pytest.mark.slow
async def test_on_given_servers_nothing_is_left_behind(bench: Bench, kafka: str, redis_url: str) -> None:
    servers = "--kafka", kafka, "--redis-url", redis_url
    check_ingest(await asyncio.to_thread(bench, "ingest", "--events", "60000", *servers))
    check_latency(await asyncio.to_thread(bench, "latency", "--seconds", "1", "--rate", "100", *servers))
    with Redis.from_url(redis_url) as redis:
        assert redis.keys() == []
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        assert [topic for topic in await admin.list_topics() if topic.startswith("runtally-bench")] == []
    finally:
        await admin.close()


@pytest.mark.slow
def test_query_prints_each_scan_and_nothing_else(bench: Bench) -> None:
    found = bench("query", "--runs", "2000", "--only", "scans")
    assert [(one["shape"], one["mode"]) for one in found] == [
        *(("name_like", mode) for mode in ("cold", "warm", "after_events")),
        *(("mix", mode) for mode in ("cold", "warm", "after_events")),
        *(("health", "idle"), ("small_history", "idle")),
        *(("health", "beside_scan"), ("small_history", "beside_scan"), ("like_256", "warm")),
    ]
    check_rows(found)


@pytest.mark.slow
def test_query_prints_each_shape_of_dashboards_and_mode_and_beside_it_the_memory() -> None:
    done = run("bench", "query", "--runs", "2000", "--only", "dashboards", "--json", timeout=100)
    assert done.returncode == 0, done.stderr
    held = re.search(r"the API held at most (\d+) MiB", done.stderr)
    assert held is not None, done.stderr
    assert int(held[1]) > 0
    found = json.loads(done.stdout)
    assert {one["mode"] for one in found} == {"cold", "warm", "writes", "clients10"}
    assert {one["shape"][0] for one in found} == set("abcdefghi")
    check_rows(found)


def check_rows(found: list[dict[str, Any]]) -> None:
    assert all(list(one) == ["shape", "runs", "mode", "p50_ms", "p99_ms", "api_cpu_ms"] for one in found)
    assert all(one["runs"] == 2000 and 0 < one["p50_ms"] <= one["p99_ms"] for one in found)

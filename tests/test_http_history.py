"""The history over HTTP from a real Redis: Prefect's known answers, and servers that are not as they should be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from runtally.embedded.valkey import Valkey
from runtally.settings import Settings

from .asking import Asking, asking
from .reference import Reference
from .reference.times import answer_text
from .reference.vectors import (
    BIN_COUNTS,
    BIN_EDGES,
    DT_US,
    ESTIMATES,
    TASK_RUN_BINS,
    TIMES_US,
    WIDTHS_US,
    at,
    body,
)
from .store.estate import Estate

Make = Callable[..., Settings]
Event = dict[str, Any]
SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US


async def put(settings: Settings, events: list[Event]) -> None:
    """Apply events to the shards of the settings' Redis, as workers would."""
    async with Redis.from_url(settings.redis_url, protocol=2) as redis:
        estate = Estate(redis, settings)
        await estate.open()
        await estate.apply(events, 100)
        await estate.close()


@asynccontextmanager
async def holding(settings: Settings, events: list[Event], now_us: int = DT_US) -> AsyncIterator[Asking]:
    """The application over a Redis that holds these events, ready."""
    await put(settings, events)
    async with asking(settings, now_us) as api:
        await api.until_ready()
        yield api


# -- Prefect's known answers


async def test_bins_of_task_runs_are_prefects(settings: Make) -> None:
    async with holding(settings(), TASK_RUN_BINS.events, TASK_RUN_BINS.now_us) as api:
        for filter_, expected in TASK_RUN_BINS.cases:
            bins = (await api.history({**TASK_RUN_BINS.range, **filter_})).json()
            found = [
                {(state["state_type"], state["state_name"]): state["count_runs"] for state in each["states"]}
                for each in bins
            ]
            assert found == expected
            starts = [answer_text(DT_US + number * 300 * SECOND_US) for number in range(-1, 3)]
            assert [each["interval_start"] for each in bins] == starts


async def test_estimates_are_prefects(settings: Make) -> None:
    (_, expected), *_ = ESTIMATES.cases
    async with holding(settings(), ESTIMATES.events, ESTIMATES.now_us) as api:
        (only,) = (await api.history(ESTIMATES.range)).json()
    states = [(each.pop("state_type"), each.pop("state_name")) for each in only["states"]]
    assert states == sorted(expected, key=lambda state: [part.encode() for part in state])
    assert [tuple(each.values()) for each in only["states"]] == [
        (count, run_time_us / SECOND_US, lateness_us / SECOND_US)
        for count, run_time_us, lateness_us in (expected[state] for state in states)
    ]


async def test_bins_are_as_many_and_where_prefect_makes_them(settings: Make) -> None:
    async with holding(settings(), TASK_RUN_BINS.events) as api:
        for seconds, width, count in BIN_COUNTS:
            bins = (await api.history(body(at(), at(seconds=seconds), width))).json()
            assert len(bins) == count, (seconds, width)
        for seconds, width, edges in BIN_EDGES:
            bins = (await api.history(body(at(), at(seconds=seconds), width))).json()
            instants = [answer_text(DT_US + round(edge * SECOND_US)) for edge in edges]
            assert [each["interval_start"] for each in bins] == instants[:-1], (seconds, width)
            assert [each["interval_end"] for each in bins] == instants[1:], (seconds, width)


async def test_widths_and_times_are_read_as_prefect_reads_them(settings: Make) -> None:
    async with holding(settings(), TASK_RUN_BINS.events) as api:
        for given, width_us in WIDTHS_US:
            answer = await api.history(body(at(), at(seconds=1), given))
            if width_us is None:
                assert answer.status_code == 422, given
                assert answer.json() == {"detail": "History interval must not be less than 1 second."}
            else:
                assert answer.json()[0]["interval_end"] == answer_text(DT_US + width_us), given
        for given, instant_us in TIMES_US:
            answer = await api.history(body(given, "2021-07-01T01:00:00Z", 60))
            assert answer.json()[0]["interval_start"] == answer_text(instant_us), given


# -- beyond Prefect


async def test_a_range_may_be_relative_to_now(settings: Make) -> None:
    events = [{**event, "data": dict(event["data"])} for event in ESTIMATES.events]
    reference = Reference()
    for event in events:
        reference.apply(event)
    async with holding(settings(), events) as api:
        for api.now_us in (DT_US + 1, DT_US + 100 * SECOND_US, DT_US + DAY_US, DT_US + 2 * DAY_US):
            relative = {"history_start": "-PT24H", "history_end": "now", "history_interval_seconds": 3600}
            answer = await api.history(relative)
            span = body(answer_text(api.now_us - DAY_US), answer_text(api.now_us), 3600)
            assert answer.json() == reference.history(span, api.now_us)
            assert len(answer.json()) == 24
            assert answer.headers["x-runtally-at"].startswith(f"now={answer_text(api.now_us)}; ledger=c:")


async def test_an_answer_names_what_each_shard_has_applied(settings: Make) -> None:
    async with holding(settings(), TASK_RUN_BINS.events) as api:
        answer = await api.history(TASK_RUN_BINS.range)
    ledger = answer.headers["x-runtally-at"].partition("ledger=")[2]
    offsets = dict(part.split(":") for part in ledger.split(","))
    assert list(offsets) == ["c", "0", "1"]
    assert offsets["c"] == "1"
    assert sum(map(int, offsets.values())) == len(TASK_RUN_BINS.events)


async def test_what_is_applied_between_two_requests_is_in_the_second(settings: Make) -> None:
    ours = settings()
    reference = Reference()
    async with Redis.from_url(ours.redis_url, protocol=2) as redis:
        estate = Estate(redis, ours)
        await estate.open()
        async with asking(ours, DT_US + 60 * SECOND_US) as api:
            await api.until_ready()
            for begin in range(0, len(ESTIMATES.events), 5):
                part = ESTIMATES.events[begin : begin + 5]
                await estate.apply(part)
                for event in part:
                    reference.apply(event)
                answer = await api.history(ESTIMATES.range)
                assert answer.json() == reference.history(ESTIMATES.range, api.now_us)
        await estate.close()


# -- not ready, and Redis away


async def test_without_a_ledger_nothing_is_answered_and_the_reason_is_told(settings: Make) -> None:
    ours = settings()
    async with asking(ours) as api:
        ready, answer = await api.ready(), await api.history(TASK_RUN_BINS.range)
        assert (ready.status_code, answer.status_code) == (503, 503)
        assert ready.json()["message"]
        assert answer.headers["retry-after"]
        await until_said(api, "no worker has started yet")
        await put(ours, TASK_RUN_BINS.events)
        await api.until_ready()
        assert (await api.history(TASK_RUN_BINS.range)).status_code == 200
        async with Redis.from_url(ours.redis_url) as redis:
            await redis.flushall()
        assert "no ledger" in (await api.ready()).json()["message"]
        assert (await api.history(TASK_RUN_BINS.range)).status_code == 503
        assert (await api.client.get("/api/health")).status_code == 200


async def until_said(api: Asking, words: str) -> None:
    """Wait until `ready` gives this reason; before, it may say that it connects."""
    for _ in range(100):
        answer = await api.ready()
        if words in answer.json()["message"]:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(answer.text)


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A Valkey that is not running yet, on a port that it keeps."""
    server = Valkey(tmp_path / "valkey")
    yield server
    server.stop()


async def test_redis_may_come_late_go_away_and_come_back(own_valkey: Valkey, settings: Make) -> None:
    ours = settings(redis_url=own_valkey.url)
    async with asking(ours, TASK_RUN_BINS.now_us) as api:
        await refused(api)
        own_valkey.start()
        await until_said(api, "no worker has started yet")
        own_valkey.stop(0)
        await refused(api)
        own_valkey.start()
        await put(ours, TASK_RUN_BINS.events)
        await api.until_ready()
        before = (await api.history(TASK_RUN_BINS.range)).json()
        for grace_s in (0, 2):
            own_valkey.stop(grace_s)
            await refused(api)
            own_valkey.start()
            await api.until_ready()
            assert (await api.history(TASK_RUN_BINS.range)).json() == before


async def refused(api: Asking) -> None:
    """Every request is answered with 503 and when to come again; only health goes on."""
    for answer in (await api.ready(), await api.history(TASK_RUN_BINS.range)):
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["retry-after"]) > 0
        assert "Redis" in answer.text
    assert (await api.client.get("/api/health")).status_code == 200

"""Whatever the events and their order: cells answer as the naive reference does, to the microsecond."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from runtally.core.bins import Bins
from runtally.settings import Settings
from tests import strategies
from tests.conftest import examples
from tests.reference.history import Reference

from .estate import Estate


@pytest.fixture(scope="module")
def server(valkey: str) -> Settings:
    return Settings(redis_url=valkey, redis_prefix="rollups")


async def check(settings: Settings, events: list[dict[str, Any]], questions: list[Any], batch_size: int) -> None:
    reference = Reference()
    for event in events:
        reference.apply(event)
    async with Redis.from_url(settings.redis_url, protocol=2) as redis:
        estate = Estate(redis, settings)
        try:
            await estate.open()
            half = len(events) // 2
            await estate.apply(events[:half], batch_size)
            await estate.refresh()
            await estate.apply(events[half:], batch_size)
            for body, now in questions:
                expected = reference.history_us(body, now)
                if not expected:
                    continue
                begin, end, _ = expected[0]
                found = await estate.history(Bins(begin, end - begin, len(expected)), now)
                assert found == [sums for _, _, sums in expected]
            assert await estate.cell_differences() == []
        finally:
            await estate.close()


@examples(100, parts=2)
@given(strategies.estates(), strategies.requests(5, filtered=False), st.sampled_from([1, 7, 1000]))
def test_rollups_answer_as_the_reference_and_equal_cells_made_anew(
    server: Settings, events: list[dict[str, Any]], questions: list[Any], batch_size: int
) -> None:
    with SyncRedis.from_url(server.redis_url) as redis:
        redis.flushall()
    asyncio.run(check(server, events, questions, batch_size))


@examples(40)
@given(strategies.estates(), strategies.requests(5, filtered=False))
def test_states_past_the_cap_are_answered_from_raw_runs(
    server: Settings, events: list[dict[str, Any]], questions: list[Any]
) -> None:
    with SyncRedis.from_url(server.redis_url) as redis:
        redis.flushall()
    few = server.model_copy(update={"max_states": 2})
    asyncio.run(check(few, events, questions, 7))

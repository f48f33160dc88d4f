"""Whatever is asked of whatever estate: the answer is the naive reference's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from runtally.api.history import History
from runtally.api.models import CountBody, HistoryBody, filters_of, history_request
from runtally.settings import Settings
from tests import strategies
from tests.conftest import examples
from tests.reference.history import Reference
from tests.store.estate import Estate

CAPS: list[dict[str, int]] = [{}, {"max_cohorts": 1}, {"max_cohorts": 3}, {"max_states": 2, "max_cohorts": 2}]
"""Also past the caps an answer is exact."""


@pytest.fixture(scope="module")
def server(valkey: str) -> Settings:
    return Settings(redis_url=valkey, redis_prefix="scan", max_staleness=0)


async def check(settings: Settings, events: list[dict[str, Any]], questions: list[tuple[dict[str, Any], int]]) -> None:
    reference = Reference()
    for event in events:
        reference.apply(event)
    service = History(settings)
    async with Redis.from_url(settings.redis_url, protocol=2) as redis:
        estate = Estate(redis, settings)
        try:
            await estate.open()
            await service.start()
            for part, asked, told in ((events[:20], questions[::5], None), (events[20:], questions, reference)):
                await estate.apply(part)
                for body, now in asked:
                    await compare(service, told, body, now)
        finally:
            await service.stop()
            await estate.close()


async def compare(service: History, reference: Reference | None, body: dict[str, Any], now: int) -> None:
    answer = await patiently(service, HistoryBody.model_validate(body), now)
    count = await service.count(filters_of(CountBody.model_validate(body)), now)
    if reference is None:
        return
    expected = reference.history_us(body, now)
    found = [{e.state: (e.count, e.run_time_us, e.lateness_us) for e in entries} for entries in answer.entries]
    assert found == [sums for _, _, sums in expected]
    assert count.count == reference.count(body)


async def patiently(service: History, body: Any, now: int) -> Any:
    """The first answer has to wait for the connection."""
    for _ in range(200):
        try:
            return await service.history(history_request(body), now)
        except Exception as error:
            if "Redis" not in str(error):
                raise
            await asyncio.sleep(0.01)
    raise AssertionError("never connected")


@examples(200, parts=4)
@given(strategies.estates(), strategies.requests(50), st.sampled_from(CAPS))
def test_every_filter_selects_what_the_reference_selects(
    server: Settings, events: list[dict[str, Any]], questions: list[tuple[dict[str, Any], int]], caps: dict[str, int]
) -> None:
    with SyncRedis.from_url(server.redis_url) as redis:
        redis.flushall()
    asyncio.run(check(server.model_copy(update=caps), events, questions))

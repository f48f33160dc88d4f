"""Everything that Prefect's dashboards send is answered from cells, exactly."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from runtally.api.cells import scanned
from runtally.api.models import CountBody, filters_of
from runtally.core.predicate import compile_filters
from runtally.core.selection import selection_of
from runtally.settings import Settings
from tests.conftest import examples
from tests.dashboards import HISTORY, Chosen, Sent, ranges, sent
from tests.reference.history import Reference
from tests.store.estate import Estate
from tests.strategies.hostile import Play, plays
from tests.strategies.pools import BASE_US, DAY_US, FLOWS, SECOND_US

from .living import asked, check_count, check_history, counted, living

CHOICES = [
    Chosen(),
    Chosen(tags=["a"]),
    Chosen(tags=["b", "ü", "nobody has this"]),
    Chosen(hide_subflows=True),
    Chosen(tags=["a", "b"], hide_subflows=True),
    Chosen(flow=FLOWS[0]),
    Chosen(flow=FLOWS[1].replace("-", "")),
]
MOMENTS = [BASE_US, BASE_US + DAY_US, BASE_US + DAY_US + 3600 * SECOND_US + 1, BASE_US + 1_234_567_891]


def corpus(now_us: int) -> Iterator[Sent]:
    """Every choice in every range."""
    for (start, end), chosen in itertools.product(ranges(now_us).values(), CHOICES):
        yield from sent(start, end, chosen)


@pytest.fixture(scope="module")
def server(valkey: str) -> Settings:
    return Settings(redis_url=valkey, redis_prefix="dashboards", max_staleness=0)


@pytest.mark.parametrize("now_us", MOMENTS)
def test_nothing_that_a_dashboard_sends_needs_a_scan(now_us: int) -> None:
    for name, _, body in corpus(now_us):
        selection = selection_of(compile_filters(filters_of(CountBody.model_validate(body))))
        assert not scanned(selection), f"{name}: {body}"


def test_widths_are_those_that_the_pages_make_of_a_range() -> None:
    found = {
        name: [body["history_interval_seconds"] for _, path, body in sent(*range_, Chosen()) if path == HISTORY]
        for name, range_ in ranges(BASE_US).items()
    }
    assert found["today"] == [4319.99995, 4319]
    assert found["3601 seconds"] == [180.05, 180]
    assert found["39 seconds"] == [1.95, 1]
    assert found["flow page"] == [30240, 30240]


@examples(60, parts=2)
@given(plays(80, 0), st.sampled_from(MOMENTS), st.integers(0, 10))
def test_what_dashboards_send_is_answered_as_the_reference_does(
    server: Settings, play: Play, now_us: int, offset: int
) -> None:
    with SyncRedis.from_url(server.redis_url) as redis:
        redis.flushall()
    asyncio.run(check(server, play, now_us, [*corpus(now_us)][offset::11]))


async def check(settings: Settings, play: Play, now: int, requests: list[Sent]) -> None:
    reference = Reference()
    for event in play.events:
        reference.apply(event)
    async with Redis.from_url(settings.redis_url, protocol=2) as redis:
        estate = Estate(redis, settings)
        try:
            await estate.open()
            await estate.apply(play.events, 9)
            async with living(settings) as service:
                for _, path, body in requests:
                    if path == HISTORY:
                        check_history(await asked(service, body, now), reference, body, now)
                    else:
                        check_count(await counted(service, body, now), reference, body)
        finally:
            await estate.close()

"""A rebuild gives the same: what the log makes beside the live data answers as those did, and readers change over."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from runtally.errors import FencedError
from runtally.settings import Settings
from runtally.store import generations
from runtally.store.ledger import read_live
from runtally.store.link import Link
from tests.conftest import examples
from tests.reference.history import Reference
from tests.store.estate import Estate
from tests.strategies.hostile import Play, plays

from .living import asked, check_history, living


@pytest.fixture(scope="module")
def server(valkey: str) -> Settings:
    return Settings(redis_url=valkey, redis_prefix="generations", max_staleness=0)


async def check(settings: Settings, play: Play, batch_size: int) -> None:
    """All events into one generation, the same log in other batches into the next; every question to both."""
    reference = Reference()
    for event in play.events:
        reference.apply(event)
    async with Redis.from_url(settings.redis_url, protocol=2) as redis:
        link = Link(redis)
        before = Estate(redis, settings)
        await before.open()
        await before.apply(play.events, batch_size)
        async with living(settings) as service:
            for body, now in play.questions:
                check_history(await asked(service, body, now), reference, body, now)
            live = await read_live(link, settings)
            assert live is not None
            live = await generations.begin(link, settings, live)
            after = Estate(redis, settings, generation=live.filling, beside=True)
            await after.open()
            await after.apply(play.events, 3 * batch_size)
            live = await generations.switch(link, settings, live)
            await generations.remove(link, settings, live, lambda _: None)
            for body, now in play.questions:
                check_history(await asked(service, body, now), reference, body, now)
        assert await after.cell_differences() == []
        assert {key.split(b"{")[1].split(b".")[0] async for key in redis.scan_iter("*{*")} <= {b"2"}
        with pytest.raises(FencedError):
            await before.reopen()
        await before.close()
        await after.close()
        await link.close()


@examples(20)
@given(plays(60, 12), st.sampled_from([2, 9, 1000]))
def test_what_the_log_makes_anew_answers_as_before(server: Settings, play: Play, batch_size: int) -> None:
    with SyncRedis.from_url(server.redis_url) as redis:
        redis.flushall()
    asyncio.run(check(server, play, batch_size))

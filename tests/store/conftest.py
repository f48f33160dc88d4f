"""One shard of runs over a Redis of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from runtally.settings import Settings
from tests.conftest import SettingsFactory
from tests.store.estate import Estate


@pytest.fixture
def own(settings: SettingsFactory) -> Settings:
    return settings(kafka="127.0.0.1:1")


@pytest.fixture
async def redis(own: Settings) -> AsyncIterator[Redis]:
    async with Redis.from_url(own.redis_url, protocol=2) as client:
        yield client


@pytest.fixture
async def estate(redis: Redis, own: Settings) -> AsyncIterator[Estate]:
    estate = Estate(redis, own, partitions=1)
    await estate.open()
    yield estate
    await estate.close()

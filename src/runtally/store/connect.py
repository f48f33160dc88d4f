"""Connecting to Redis or Valkey, and refusing one that would lose data."""

from __future__ import annotations

import asyncio
import logging

from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    ResponseError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from ..errors import SettingError, UnfitServerError
from ..settings import Settings
from . import ledger as ledgers
from .fitness import RULES, config_of
from .keys import live_key

log = logging.getLogger(__name__)


async def connect(settings: Settings, any_format: bool = False) -> Redis:
    """Wait until Redis answers (said once), check that it keeps what it is given, and return a client.

    Raises `SettingError` for an address or password that is wrong, `UnfitServerError` for a server that evicts or,
    unless `any_format` will do, holds another format.
    """
    redis = client(settings)
    waiting = False
    while True:
        try:
            await redis.ping()
            break
        except (AuthenticationError, NoPermissionError) as error:
            await redis.aclose()
            raise SettingError("RUNTALLY_REDIS_URL", f"Redis refused the login: {error}") from None
        except ResponseError as error:
            await redis.aclose()
            raise SettingError("RUNTALLY_REDIS_URL", f"Redis refused the connection: {error}") from None
        except (RedisConnectionError, RedisTimeoutError, OSError, BusyLoadingError) as error:
            if not waiting:
                log.warning("waiting for Redis at %s: %s", shown(settings.redis_url), error)
                waiting = True
            await asyncio.sleep(0.25)
    if waiting:
        log.info("Redis is back")
    try:
        await check(redis)
        if not any_format:
            await check_format(redis, settings)
    except BaseException:
        await redis.aclose()
        raise
    return redis


def client(settings: Settings) -> Redis:
    """A client by URL, not yet connected."""
    try:
        return Redis.from_url(settings.redis_url, protocol=2, socket_connect_timeout=5, socket_timeout=None)
    except ValueError as error:
        raise SettingError("RUNTALLY_REDIS_URL", f"{error} (got {shown(settings.redis_url)!r})") from None


def shown(url: str) -> str:
    """The URL without its password."""
    scheme, _, rest = url.rpartition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if scheme else rest


async def check(redis: Redis) -> None:
    """Refuse eviction; warn about what costs memory or durability."""
    config, hidden = await config_of(redis)
    if hidden:
        log.warning("Redis does not show its configuration (%s): make sure that maxmemory-policy is noeviction", hidden)
    for rule in RULES.values():
        problem = rule(config)
        if problem is not None and problem.fatal:
            raise UnfitServerError(problem.text)
        if problem is not None:
            log.warning("%s", problem.text)


async def check_format(redis: Redis, settings: Settings) -> None:
    """Refuse data of another format by its number."""
    stored = await redis.hget(live_key(settings.redis_prefix), "format")
    if stored is not None:
        ledgers.check_format(int(stored), settings.redis_prefix)

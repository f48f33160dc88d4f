"""Whether a Redis keeps what it is given: its configuration, memory and clock, and what is wrong with them.

Each rule is a function of what was read, in `RULES`; workers and API hold to it when they connect, `runtally doctor`
shows all of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import ResponseError

LEAST_LISTPACK: Final = {"hash-max-listpack-entries": 512, "hash-max-listpack-value": 1024}
"""With less, hashes are stored as tables, which take about twice the memory."""


@dataclass(frozen=True, slots=True)
class Server:
    """A Redis as it says it is. `config` is empty and `hidden` says why where it does not show its configuration.
    `limit_bytes` is its maxmemory, else the machine's memory, 0 when neither is told; `ahead_us` how far its clock is
    ahead of ours, to within the `round_trip_us` that asking took."""

    name: str
    config: Mapping[str, str]
    hidden: str
    used_bytes: int
    limit_bytes: int
    ahead_us: int
    round_trip_us: int


class Problem(NamedTuple):
    """What is wrong; `fatal`: data would be lost."""

    text: str
    fatal: bool = False


Rule = Callable[[Mapping[str, str]], Problem | None]


def eviction(config: Mapping[str, str]) -> Problem | None:
    """Keys that Redis drops by itself are rollups that are gone without a word."""
    policy = config.get("maxmemory-policy", "noeviction")
    if policy == "noeviction":
        return None
    return Problem(
        f"Redis has maxmemory-policy {policy}, which would silently drop rollups: set maxmemory-policy noeviction",
        fatal=True,
    )


def persistence(config: Mapping[str, str]) -> Problem | None:
    """What is kept over a restart."""
    if not config or config.get("appendonly") == "yes" or config.get("save"):
        return None
    return Problem(
        "Redis keeps nothing on disk (appendonly no, save empty): after a restart of Redis the workers rebuild "
        "everything from the log; set appendonly yes"
    )


def listpacks(config: Mapping[str, str]) -> Problem | None:
    """Up to which size a hash is stored compactly."""
    low = {name: config[name] for name, least in LEAST_LISTPACK.items() if int(config.get(name, least)) < least}
    if not low:
        return None
    said = " and ".join(f"{name} {value}" for name, value in low.items())
    least = " and ".join(str(LEAST_LISTPACK[name]) for name in low)
    return Problem(f"Redis has {said}: runs will take about twice the memory; set it to {least} or more")


RULES: Final[Mapping[str, Rule]] = {"eviction": eviction, "persistence": persistence, "listpacks": listpacks}


async def config_of(redis: Redis) -> tuple[dict[str, str], str]:
    """The part of the configuration that the rules ask for; nothing, and why, where it is not shown."""
    try:
        raw: dict[Any, Any] = await redis.config_get("maxmemory-policy", "appendonly", "save", "hash-max-listpack-*")
    except ResponseError as error:
        return {}, str(error)
    return {_text(name): _text(value) for name, value in raw.items()}, ""


async def examine(redis: Redis) -> Server:
    """Everything about a server that answers. Raises what redis-py raises."""
    config, hidden = await config_of(redis)
    info: dict[str, Any] = await redis.info()
    began = time.time_ns() // 1000
    seconds, micros = await redis.time()
    ended = time.time_ns() // 1000
    kind = "valkey" if "valkey_version" in info else "redis"
    return Server(
        name=f"{kind.capitalize()} {info[f'{kind}_version']}",
        config=config,
        hidden=hidden,
        used_bytes=int(info["used_memory"]),
        limit_bytes=int(info.get("maxmemory") or info.get("total_system_memory") or 0),
        ahead_us=int(seconds) * 1_000_000 + int(micros) - (began + ended) // 2,
        round_trip_us=ended - began,
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)

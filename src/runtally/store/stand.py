"""What there is in Redis under our prefix, at a glance: for `runtally doctor`.

Little is read, however many runs there are: ledgers, sizes of dictionaries, and the counts of cells of the newest days.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ..core.cells import CELL
from ..core.cohorts import NO_FLOW_RUN, Cohort, cohort_of
from ..core.levels import COARSEST
from ..core.scopes import ALL, COHORT
from ..errors import ServerLostError
from ..settings import Settings
from .cohort_book import ALL_NAME
from .connect import client, shown
from .fitness import Server, examine
from .keys import CATALOG, FORMAT, Keys, cells_field
from .ledger import Ledger, Live, decode, read_live
from .link import Command, Link
from .records import decode_cohorts

DAYS: Final = 7
"""So many of a shard's newest days are counted."""
_UNTOLD: Final = cohort_of(None)


@dataclass(frozen=True, slots=True)
class Census:
    """Task runs of the newest days: how many, how many of them have no flow run, and of how many the flow run has not
    been told. `states` and `cohorts`: the most that a shard has numbered."""

    runs: int
    alone: int
    untold: int
    states: int
    cohorts: int


@dataclass(frozen=True, slots=True)
class Stand:
    """What was found. `live` is None before the first start; ledgers are by shard, and empty when the format is another
    one than ours."""

    server: Server
    live: Live | None
    ledgers: Mapping[str, Ledger | None]
    census: Census


async def look(settings: Settings) -> Stand:
    """Look once, without waiting for a server that is away. Raises `ServerLostError`, and `SettingError` for a URL that
    is none."""
    redis = client(settings)
    link = Link(redis)
    try:
        return await _look(redis, link, settings)
    except (RedisError, OSError) as error:
        raise ServerLostError(f"no Redis at {shown(settings.redis_url)} ({error})") from None
    finally:
        await link.close()
        await redis.aclose()


async def _look(redis: Redis, link: Link, settings: Settings) -> Stand:
    server = await examine(redis)
    live = await read_live(link, settings)
    if live is None or live.format != FORMAT:
        return Stand(server, live, {}, Census(0, 0, 0, 0, 0))
    shards = [*map(str, range(live.partitions)), CATALOG]
    keys = [Keys(settings.redis_prefix, live.generation, shard) for shard in shards]
    ledgers = await link.call([("HGETALL", each.ledger) for each in keys])
    counted = [await _count(link, each) for each in keys[:-1]]
    census = Census(
        sum(one.runs for one in counted),
        sum(one.alone for one in counted),
        sum(one.untold for one in counted),
        max(one.states for one in counted),
        max(one.cohorts for one in counted),
    )
    return Stand(server, live, dict(zip(shards, map(decode, ledgers), strict=True)), census)


async def _count(link: Link, keys: Keys) -> Census:
    days, packed, states = await link.call(
        [("SMEMBERS", keys.days), ("LRANGE", keys.cohorts, 0, -1), ("LLEN", keys.states)]
    )
    newest = sorted(map(int, days))[-DAYS:]
    cohorts = decode_cohorts(packed)
    scopes = [[ALL_NAME], _scopes(cohorts, NO_FLOW_RUN), _scopes(cohorts, _UNTOLD)]
    counts = []
    for kind, wanted in zip((ALL, COHORT, COHORT), scopes, strict=True):
        places = [(COARSEST.number, day) for day in newest if wanted]
        reads: list[Command] = [
            ("HMGET", keys.cells_of(kind, *place), *[cells_field(scope, *place) for scope in wanted])
            for place in places
        ]
        counts.append(sum(_runs(cells) for reply in await link.call(reads) for cells in reply))
    runs, alone, untold = counts
    return Census(runs, alone, untold, states, len(cohorts))


def _scopes(cohorts: Sequence[Cohort], wanted: Cohort) -> list[bytes]:
    return [b"%d" % number for number, cohort in enumerate(cohorts) if cohort == wanted]


def _runs(cells: bytes | None) -> int:
    return int(np.frombuffer(cells or b"", CELL)["n"].sum())

"""Putting a ledger elsewhere in its log: what an operator may decide when the two do not fit.

The data stays. Applying once more what has been applied changes nothing, because of versions; what is passed over is
lost. A new epoch makes the worker that has the shard read the ledger and seek, so it need not be stopped.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from redis.asyncio import Redis

from ..errors import FencedError
from ..settings import Settings
from .keys import Keys
from .ledger import Ledger, decode, encode, new_epoch, read_ledgers, read_live
from .link import Link

_ATTEMPTS: Final = 1000
"""A worker that is catching up commits a hundred times a second, a move takes a millisecond."""


async def go_on_at(redis: Redis, settings: Settings, shard: str, known: Ledger, offset: int, end: int) -> Ledger:
    """Keep the data of a shard and go on at `offset` of its log, which ends at `end`; the ledger as it is then.

    A worker may write meanwhile, but `FencedError` is raised when the epoch is not that of `known` any more: somebody
    else has moved the ledger, and what was decided may be wrong. Raises `ServerLostError`.
    """
    link = Link(redis)
    try:
        live = await read_live(link, settings)
        for _ in range(_ATTEMPTS):
            if live is None:
                break
            key = Keys(settings.redis_prefix, live.generation, shard).ledger
            _, flat = await link.call([("WATCH", key), ("HGETALL", key)])
            now = decode(flat)
            if now is None or now.epoch != known.epoch:
                break
            moved = replace(
                now, next=offset, seq=now.seq + 1, epoch=new_epoch(), caught_up_at=end, mark=None, trouble=""
            )
            if await link.transaction([("HSET", key, *encode(moved))]) is not None:
                return moved
    finally:
        await link.close()
    raise FencedError(shard, "the ledger was moved in this moment by somebody else; nothing was written, look again")


async def accept_new_log(redis: Redis, settings: Settings) -> None:
    """Keep the data and follow a new log from offset 0, in every shard: for a log that lives in memory. Does nothing
    where there is no data."""
    for shard, ledger in (await read_ledgers(redis, settings)).items():
        if ledger is not None:
            await go_on_at(redis, settings, shard, ledger, 0, 0)

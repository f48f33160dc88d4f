"""Generations of the data under a prefix, of which one is live.

A rebuild from the log fills the next one beside it, names it live in one command, and then removes the keys of the one
before. The `live` key says what is under way, so that whoever comes after an interruption goes on with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from ..core.cells import CELL
from ..core.levels import COARSEST, FINEST, NONE
from ..core.scopes import ALL
from ..errors import FencedError
from ..settings import Settings
from .cohort_book import ALL_NAME
from .keys import CATALOG, FORMAT, Keys, cells_field, live_key
from .ledger import Live, live_of, read_live_command
from .link import Command, Link

_STEP: Final = 500
_PAUSE_S: Final = 0.005
"""Between two steps of a removal, for others to be served."""


def shards_of(live: Live) -> list[str]:
    """The names of a generation's shards."""
    return [*map(str, range(live.partitions)), CATALOG]


async def begin(link: Link, settings: Settings, live: Live) -> Live:
    """Have a generation filled: the one that was begun, if it is of this format, else the next one."""
    if live.filling and live.filling_format == FORMAT:
        return live
    live = await give_up(link, settings, live)
    following = 1 + max(map(int, (live.generation, *live.fading)))
    return await _change(link, settings, live, ("HSET", "filling", f"{following} {FORMAT}"))


async def give_up(link: Link, settings: Settings, live: Live) -> Live:
    """Fill the generation that was begun no more; its keys are to be removed."""
    if not live.filling:
        return live
    fading = " ".join((*live.fading, live.filling))
    return await _change(link, settings, live, ("HDEL", "filling"), ("HSET", "fading", fading))


async def switch(link: Link, settings: Settings, live: Live) -> Live:
    """Name the generation that was filled live, at once for all readers; the one before is to be removed."""
    fading = " ".join((*live.fading, live.generation))
    fields = ("generation", live.filling, "format", live.filling_format, "fading", fading)
    return await _change(link, settings, live, ("HSET", *fields), ("HDEL", "filling"))


async def remove(link: Link, settings: Settings, live: Live, progress: Callable[[int], None]) -> Live:
    """Remove the keys of all generations that are to be, in small steps; `progress` is told how many are gone.

    Ledgers go first, so that nobody who still has a shard of such a generation writes to it any more.
    """
    gone = 0
    for generation in live.fading:
        await link.call(
            [("UNLINK", Keys(settings.redis_prefix, generation, shard).ledger) for shard in shards_of(live)]
        )
        cursor = b"0"
        while True:
            pattern = f"{settings.redis_prefix}:{{{generation}.*"
            ((cursor, keys),) = await link.call([("SCAN", cursor, "MATCH", pattern, "COUNT", _STEP)])
            if keys:
                await link.call([("UNLINK", *keys)])
                gone += len(keys)
                progress(gone)
            if cursor == b"0":
                break
            await asyncio.sleep(_PAUSE_S)
        left = [other for other in live.fading if other != generation]
        change = ("HSET", "fading", " ".join(left)) if left else ("HDEL", "fading")
        live = await _change(link, settings, live, change)
    return live


async def next_offsets(link: Link, settings: Settings, live: Live, generation: str) -> dict[str, int | None]:
    """Where each shard of a generation goes on in the log, None without a ledger. Of any format."""
    shards = shards_of(live)
    found = await link.call(
        [("HGET", Keys(settings.redis_prefix, generation, shard).ledger, "next") for shard in shards]
    )
    return {shard: None if offset is None else int(offset) for shard, offset in zip(shards, found, strict=True)}


async def runs_in(link: Link, settings: Settings, generation: str, shard: str) -> tuple[int, int]:
    """How many runs a shard counts, and where it goes on in the log, in one state of it."""
    keys = Keys(settings.redis_prefix, generation, shard)
    (days,) = await link.call([("SMEMBERS", keys.days)])
    places = [(COARSEST.number, int(day)) for day in days] + [(FINEST.number, NONE)]
    reads: Sequence[Command] = [("HGET", keys.cells_of(ALL, *place), cells_field(ALL_NAME, *place)) for place in places]
    replies = await link.transaction([("HGET", keys.ledger, "next"), *reads])
    assert replies is not None, "nothing is watched"
    following, *cells = replies
    return int(np.frombuffer(b"".join(cell for cell in cells if cell), CELL)["n"].sum()), int(following or 0)


async def _change(link: Link, settings: Settings, live: Live, *commands: Command) -> Live:
    """Change the `live` key that is as `live` says; how it is then. Raises `FencedError` when it is not so."""
    key = live_key(settings.redis_prefix)
    _, flat = await link.call([("WATCH", key), read_live_command(settings)])
    if live_of(flat) != live:
        await link.call([("UNWATCH",)])
    else:
        done = await link.transaction([*[(name, key, *rest) for name, *rest in commands], read_live_command(settings)])
        if done is not None and (changed := live_of(done[-1])) is not None:
            return changed
    raise FencedError(CATALOG, "another rebuild from the log is under way, or a worker has begun anew; look again")

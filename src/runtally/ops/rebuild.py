"""`runtally rebuild`: asks the workers to make cells anew, and watches them do it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Final

from ..errors import SystemError_, UserError
from ..settings import Settings
from ..store.connect import client
from ..store.rebuild import Request, Standing
from .live import live_data

PATIENCE_S: Final = 30.0
"""How long nothing may happen: a worker looks for requests every second, and a busy day takes some."""
_LOOK_S: Final = 0.25

Progress = Callable[[str, Standing], None]
"""Called with a shard and how far it is, whenever it has moved."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was done: shards, days of shards, and values (packed cells of a scope in a bucket) that were not as the raw
    runs make them."""

    shards: Sequence[str]
    days: int
    written: int
    seconds: float

    def as_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self))


async def rebuild(
    settings: Settings, shards: Sequence[str], progress: Progress, patience_s: float = PATIENCE_S
) -> Rebuilt:
    """Have these shards rebuilt, or all of them.

    Raises `UserError` for a shard that does not exist or when there are no data, `SystemError_` when nothing happens
    for `patience_s`; what was asked for and not begun is withdrawn then.
    """
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        redis = client(settings)
        link, live = await live_data(stack, redis, settings)
        live.check_format(settings)
        known = [str(shard) for shard in range(live.partitions)]
        for shard in shards:
            if shard not in known:
                raise UserError(f"there is no shard {shard!r}: they are called {known[0]} to {known[-1]}")
        requests = [Request(link, settings, shard, live.generation) for shard in dict.fromkeys(shards or known)]
        for request in requests:
            await request.ask()
        standings = await _watch(requests, progress, patience_s)
    return Rebuilt(
        [request.shard for request in requests],
        sum(standing.done for standing in standings),
        sum(standing.written for standing in standings),
        round(time.monotonic() - began, 3),
    )


async def _watch(requests: Sequence[Request], progress: Progress, patience_s: float) -> Collection[Standing]:
    """Until all are finished; how far each has come then."""
    waiting = list(requests)
    last: dict[str, Standing] = {}
    moved = time.monotonic()
    while waiting:
        await asyncio.sleep(_LOOK_S)
        for request in list(waiting):
            standing = await request.standing()
            if standing != last.get(request.shard):
                last[request.shard] = standing
                moved = time.monotonic()
                progress(request.shard, standing)
            if standing.finished:
                waiting.remove(request)
                await request.withdraw()
            if standing.refused:
                raise SystemError_(f"shard {request.shard}: {standing.refused}")
        if waiting and time.monotonic() - moved > patience_s:
            for request in waiting:
                await request.withdraw()
            raise SystemError_(
                f"nothing happened for {patience_s:g} s: no worker owns shard "
                f"{', '.join(request.shard for request in waiting)}, or it waits for a server. Start one, or look at "
                "its /health, and ask again"
            )
    return last.values()

"""What a run costs in Redis, by what it is stored for."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from .bench_servers import Bench, Say

_EVERY: Final = 20
"""One key in so many is weighed."""
_SWEEP: Final = 10_000
_KINDS: Final = {b"raw": "raw", b"members": "index", b"single": "index", b"flow_runs": "flow runs"}
_SCOPES: Final = {b"a": "cells of all", b"c": "cells of cohorts", b"f": "cells of flows", b"d": "cells of deployments"}


async def say_bytes(run: Bench, runs: int, say: Say) -> None:
    """Say the bytes a run, all in and by part: values with their keys (one in twenty weighed), and the rest, which is
    the tables that find keys."""
    sizes: defaultdict[str, int] = defaultdict(int)
    number = 0
    batch: list[bytes] = []
    async for key in run.redis.scan_iter(match=f"{run.settings.redis_prefix}:*", count=_SWEEP):
        number += 1
        if number % _EVERY == 0:
            batch.append(key)
    async with run.redis.pipeline(transaction=False) as pipe:
        for key in batch:
            pipe.memory_usage(key)
        for key, size in zip(batch, await pipe.execute(), strict=True):
            sizes[_part(key)] += _EVERY * int(size or 0)
    total = await run.redis_bytes()
    parts = {**dict(sorted(sizes.items())), "tables of keys": total - sum(sizes.values())}
    shown = ", ".join(f"{name} {size / runs:.0f}" for name, size in parts.items())
    say(f"{total / runs:.0f} bytes of Redis a run in {number:,} keys: {shown}")


def _part(key: bytes) -> str:
    name = key.partition(b"}:")[2].partition(b":")
    if name[0] == b"cells":
        return _SCOPES[name[2][:1]]
    return _KINDS.get(name[0], "other")

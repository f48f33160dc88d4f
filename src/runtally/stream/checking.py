"""The running check: days of this worker's shards, chosen at random, held against their raw runs again and again.

The worker does it, for the shards that are its own: so each shard is checked by exactly one process without anybody
having to agree on it, and more workers check more. It reads over connections of its own, a day of a shard at a time in
pieces of six hours, and compares in a thread; batches go on meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from random import Random
from typing import TYPE_CHECKING, Final

from ..core.levels import DAY_US, NONE
from ..core.time import text_of
from ..errors import SystemError_
from ..metrics import Metrics
from ..ops.verify import in_words, names_of
from ..settings import Settings
from ..store.audit import Audit, Wrong

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger(__name__)

_NAMED: Final = 5
_SPREAD: Final = 0.1
"""So much earlier or later than said, so that workers that were started together do not check together."""


class RunningCheck:
    """Checks one random day of each shard that `shards` names, every so often, and the days again that were wrong."""

    def __init__(self, redis: Redis, settings: Settings, metrics: Metrics, shards: Callable[[], Iterable[str]]) -> None:
        self._redis = redis
        self._settings = settings
        self._metrics = metrics
        self._shards = shards
        self._random = Random()
        self._wrong: defaultdict[str, dict[int, int]] = defaultdict(dict)

    async def run(self) -> None:
        """Check until cancelled. Servers that are away are for others to speak of."""
        while True:
            every_s = self._settings.verify_every / 1e6
            await asyncio.sleep(every_s * self._random.uniform(1 - _SPREAD, 1 + _SPREAD))
            for shard in [*self._shards()]:
                try:
                    await self._check(shard)
                except SystemError_:
                    continue
                except Exception:
                    # A check that fails must not be the end of the work that it looks at.
                    log.exception("shard %s could not be checked", shard)

    def forget(self, shard: str) -> None:
        """Another worker checks the shard from now on."""
        self._wrong.pop(shard, None)

    async def _check(self, shard: str) -> None:
        audit = Audit(self._redis, self._settings, shard)
        try:
            days = await audit.days()
            known = self._wrong[shard]
            for day in {self._random.choice(days), *known} & {*days}:
                checked = await audit.check(day)
                self._metrics["verified_cells_total"].labels(shard).inc(checked.cells)
                if checked.wrong and known.get(day) != len(checked.wrong):
                    await self._tell(shard, day, checked.wrong)
                known[day] = len(checked.wrong)
            self._wrong[shard] = {day: count for day, count in known.items() if count and day in days}
        finally:
            await audit.close()
        if shard in self._shards():
            began = time.monotonic()
            self._metrics["verify_age_seconds"].labels(shard).set_function(lambda: time.monotonic() - began)
            self._metrics["wrong_cells"].labels(shard).set(sum(self._wrong[shard].values()))

    async def _tell(self, shard: str, day: int, wrong: list[Wrong]) -> None:
        names = await names_of(self._redis, self._settings)
        named = [in_words(one, names).text for one in wrong[:_NAMED]]
        more = f"; and {len(wrong) - len(named)} more" if len(wrong) > len(named) else ""
        log.error(
            "shard %s: cells of %s are not what its raw runs make of them: %s%s. `runtally rebuild` makes them anew",
            shard,
            "runs without expected time" if day == NONE else text_of(day * DAY_US)[:10],
            "; ".join(named),
            more,
            extra={"shard": shard, "wrong_cells": len(wrong)},
        )

"""How far the ledgers are behind the end of the log, in events.

The ends are read beside the answers, every few seconds and only while Kafka answers: nothing here waits for it, and
without it answers merely do not say. Some brokers, the embedded one among them, tell ends that are too low. An end
before what was applied already gives that away, and from then on answers do not say either.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from typing import Final

from ..errors import NotReadyError, ServerLostError
from ..events.ends import Ends
from ..settings import Settings

EVERY_S: Final = 3.0
_OLDEST_S: Final = 30.0
"""Ends that are older say nothing any more."""
_AWAY_S: Final = 15.0
"""So long between two tries while Kafka is away."""


class Lag:
    """Follows the ends of the log from `start()` to `stop()`."""

    def __init__(self, settings: Settings) -> None:
        self._ends_of_log = Ends(settings)
        self._most: float = settings.max_lag or math.inf
        self._ends: Mapping[str, int] = {}
        self._read_at = -_OLDEST_S
        self._applied: Mapping[str, int] = {}
        self._following: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ask; returns at once, also while Kafka is away."""
        self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Ask no more, and disconnect."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._ends_of_log.close()

    def behind(self, ledger: Mapping[str, int]) -> int | None:
        """How many events these ledgers (next offset by shard) still have to apply; None when that is not known."""
        known = self.by_shard(ledger)
        return None if known is None else sum(known.values())

    def by_shard(self, ledger: Mapping[str, int]) -> Mapping[str, int] | None:
        """The same for each of the shards."""
        self._applied = ledger
        if time.monotonic() - self._read_at > _OLDEST_S or not ledger.keys() <= self._ends.keys():
            return None
        return {shard: max(0, self._ends[shard] - following) for shard, following in ledger.items()}

    def check(self, ledger: Mapping[str, int]) -> None:
        """Raise `NotReadyError` when these ledgers are known to be further behind than RUNTALLY_MAX_LAG allows."""
        behind = self.behind(ledger)
        if behind is not None and behind > self._most:
            raise NotReadyError(f"{behind:,} events behind the log, more than the {self._most:,} of RUNTALLY_MAX_LAG")

    async def _follow(self) -> None:
        while True:
            applied = self._applied
            try:
                ends = await self._ends_of_log.read()
            except ServerLostError:
                await asyncio.sleep(_AWAY_S)
                continue
            if any(ends.get(shard, following) < following for shard, following in applied.items()):
                self._ends = {}
                await self._ends_of_log.close()
                return
            self._ends, self._read_at = ends, time.monotonic()
            await asyncio.sleep(EVERY_S)

"""What the stream half needs of the store: a shard to apply batches to, whichever topic it belongs to."""

from __future__ import annotations

from typing import Protocol

from redis.asyncio import Redis

from ..settings import Settings
from .catalog import CatalogShard
from .fence import Applied, Batch
from .keys import CATALOG
from .ledger import LogEnds, Mark
from .runs import RunsShard

__all__ = ["CATALOG", "Applied", "Batch", "LogEnds", "Mark", "Shard", "shard"]


class Shard(Protocol):
    """One partition's state in Redis. See `fence` for the promises."""

    name: str

    @property
    def next_offset(self) -> int:
        """Where the next batch has to begin."""

    async def open(self, log: LogEnds) -> int:
        """Read or create the ledger; the offset to seek to."""

    async def apply(self, batch: Batch) -> Applied:
        """One fenced commit."""

    async def pulse(self, position: int | None) -> bool:
        """Whether the ledger is as this worker left it."""

    async def stop(self, trouble: str) -> None:
        """Write down why this shard does not go on."""

    async def repaired(self) -> bool:
        """Whether somebody has written to the ledger since it stopped."""

    def forget(self) -> None:
        """Drop every cache."""

    async def close(self) -> None:
        """Forget everything and give the connection back."""


def shard(redis: Redis, settings: Settings, name: str) -> Shard:
    """The shard of that name: a partition number of the runs topic, or `c`."""
    return CatalogShard(redis, settings) if name == CATALOG else RunsShard(redis, settings, int(name))

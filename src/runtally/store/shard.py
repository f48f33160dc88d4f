"""What the stream half needs of the store: a shard to apply batches to, whichever topic it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
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

    @property
    def watermark_us(self) -> int:
        """The newest record timestamp applied."""

    @property
    def outdated(self) -> str:
        """Why a rebuild has to be done before a batch can be applied, "" when none has."""

    @property
    def numbered(self) -> Mapping[str, int]:
        """How many states and cohorts are counted apart, by these words; nothing for the catalog."""

    async def open(self, log: LogEnds) -> int:
        """Read or create the ledger; the offset to seek to."""

    async def apply(self, batch: Batch) -> Applied:
        """One fenced commit."""

    async def expire(self, watermark_us: int) -> bool:
        """Do one step of what a watermark leaves behind the horizons; False when nothing is left to do."""

    async def step(self) -> bool:
        """Do one step of a rebuild that is asked for; False when there is none."""

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


def shard(redis: Redis, settings: Settings, name: str, generation: str, beside: bool = False) -> Shard:
    """The shard of that name: a partition number of the runs topic, or `c`. Of the live generation, or of one that is
    filled `beside` it."""
    if name == CATALOG:
        return CatalogShard(redis, settings, generation, beside)
    return RunsShard(redis, settings, int(name), generation, beside)

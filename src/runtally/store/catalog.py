"""The catalog shard: flows and deployments. They are few; all of them are remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from redis.asyncio import Redis

from ..core.changes import DEPLOYMENT, FLOW, Entity
from ..core.versions import merge, repeats
from ..settings import Settings
from .fence import Applied, Batch, Fence
from .keys import CATALOG
from .ledger import GENERATION, LogEnds
from .link import Command
from .records import DEAD, decode_entity, encode_entity

_KINDS: Final[dict[str, Entity]] = {"flow": FLOW, "deployment": DEPLOYMENT}


class CatalogShard:
    """The one partition of the catalog topic, as this worker holds it."""

    def __init__(self, redis: Redis, settings: Settings, generation: str = GENERATION, beside: bool = False) -> None:
        self.name = CATALOG
        self._fence = Fence(redis, settings, CATALOG, generation, beside)
        self._turn = asyncio.Lock()
        self._records: dict[str, dict[bytes, bytes]] = {}

    @property
    def next_offset(self) -> int:
        """Where the next batch has to begin."""
        return self._fence.ledger.next

    @property
    def watermark_us(self) -> int:
        """The newest record timestamp applied."""
        return self._fence.ledger.watermark

    @property
    def outdated(self) -> str:
        """Never: there are no cells."""
        return ""

    async def step(self) -> bool:
        """There is nothing to rebuild."""
        return False

    @property
    def numbered(self) -> Mapping[str, int]:
        """See `Shard.numbered`."""
        return {}

    async def open(self, log: LogEnds) -> int:
        """Read or create the ledger and read all entities; the offset to seek to. Errors: see `Fence.open`."""
        async with self._turn:
            self.forget()
            opened = await self._fence.open(log)
            kinds = list(_KINDS)
            replies = await self._fence.read([("HGETALL", self._key(kind)) for kind in kinds])
            for kind, flat in zip(kinds, replies, strict=True):
                self._records[kind] = dict(zip(flat[::2], flat[1::2], strict=True))
            return opened.next

    async def pulse(self, position: int | None) -> bool:
        """See `Fence.pulse`."""
        async with self._turn:
            return await self._fence.pulse(position)

    async def stop(self, trouble: str) -> None:
        """See `Fence.stop`."""
        async with self._turn:
            self.forget()
            await self._fence.stop(trouble)

    async def repaired(self) -> bool:
        """See `Fence.repaired`."""
        async with self._turn:
            return await self._fence.repaired()

    async def expire(self, watermark_us: int) -> bool:
        """The catalog is kept for ever: there is nothing to do."""
        return False

    def forget(self) -> None:
        """Drop what is remembered."""
        self._records = {kind: {} for kind in _KINDS}

    async def close(self) -> None:
        """Forget everything and give the connection back."""
        self.forget()
        await self._fence.close()

    async def apply(self, batch: Batch) -> Applied:
        """Merge one batch in one fenced commit. Errors: as `RunsShard.apply`."""
        async with self._turn:
            return await self._apply(batch)

    async def _apply(self, batch: Batch) -> Applied:
        self._fence.check_start(batch)
        await self._fence.resume()
        written: dict[tuple[str, bytes], bytes] = {}
        stale = duplicate = 0
        for change in batch.changes:
            known = self._records[change.entity]
            record = known.get(change.id)
            if record == DEAD:
                stale += 1
                continue
            if change.action == "delete":
                after = DEAD
            else:
                kind, stored = _KINDS[change.entity], decode_entity(record, 0) if record else None
                merged = merge(kind, stored, change)
                if merged is stored:
                    twice = repeats(kind, merged, change)
                    duplicate, stale = duplicate + twice, stale + (not twice)
                    continue
                after = encode_entity(merged)
            known[change.id] = written[change.entity, change.id] = after
        await self._fence.commit(batch, self._commands(written))
        return Applied(len(batch.changes) - stale - duplicate, stale, duplicate, 0)

    def _commands(self, written: dict[tuple[str, bytes], bytes]) -> list[Command]:
        ledger = self._fence.ledger
        touched = self._fence.keys.touched_ids
        commands: list[Command] = [("ZREMRANGEBYSCORE", touched, "-inf", ledger.floor)]
        for (kind, identity), record in written.items():
            commands.append(("HSET", self._key(kind), identity, record))
            commands.append(("ZADD", touched, ledger.seq + 1, kind[0].encode() + identity))
        return commands

    def _key(self, kind: str) -> bytes:
        keys = self._fence.keys
        return keys.flows if kind == "flow" else keys.deployments

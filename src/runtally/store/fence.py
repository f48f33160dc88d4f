"""The fence around one shard: who may write to it, and from which offset.

A writer knows the ledger as it last read or wrote it. `begin` puts it under WATCH and compares; `commit` is one
MULTI/EXEC that moves it. Another writer in between, a rolled-back or emptied Redis: nothing is written and
`FencedError` says that the ledger has to be read again (`open`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from redis.asyncio import Redis

from ..core.changes import Change
from ..errors import FencedError, LedgerTroubleError
from ..settings import Settings
from . import ledger as ledgers
from .keys import CATALOG, Keys
from .ledger import GENERATION, Ledger, LogEnds, Mark
from .link import Command, Link

KEEP_TOUCHED = 4096
"""How many commits back the touched sets reach; a reader that looked longer ago starts anew."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one fetch of a partition gave: offsets [first_offset, next_offset), all good changes of it in order, the
    last record's mark and the newest record timestamp (µs, 0 when there was none)."""

    first_offset: int
    next_offset: int
    changes: Sequence[Change]
    mark: Mark
    watermark_us: int


@dataclass(frozen=True, slots=True)
class Applied:
    """What a batch did: changes that moved something, and those that said nothing newer."""

    changed: int
    stale: int


class Fence:
    """One shard's ledger as this writer knows it, and the connection that it writes through."""

    def __init__(self, redis: Redis, settings: Settings, shard: str) -> None:
        self.shard = shard
        self.keys = Keys(settings.redis_prefix, GENERATION, shard)
        self._settings = settings
        self._link = Link(redis)
        self._ledger: Ledger | None = None
        self._stopped_at: tuple[bytes | None, ...] = ()

    @property
    def ledger(self) -> Ledger:
        """The ledger as last read or written."""
        if self._ledger is None:
            raise FencedError(self.shard, "the ledger has not been read")
        return self._ledger

    async def open(self, log: LogEnds) -> Ledger:
        """Read the ledger, or write a new one; check it against the log; begin a new epoch.

        Raises `LedgerTroubleError`, which the ledger then tells too, when the log is another one, the topic has another
        partition count or the cells are of something else.
        """
        self._ledger = None
        key = self.keys.ledger
        await self._link.call([("UNWATCH",)])
        _, flat = await self._link.call([("WATCH", key), ("HGETALL", key)])
        known = ledgers.decode(flat)
        try:
            opened = await self._opened(known, log)
        except LedgerTroubleError as error:
            await self._stop(known, error.detail)
            raise
        await self._put(opened, "another worker wrote while the ledger was read")
        if self.shard != CATALOG:
            await self._link.call([ledgers.write_live(self._settings, opened.partitions)])
        self._ledger = opened
        return opened

    async def stop(self, trouble: str) -> None:
        """Write down why this shard does not go on, unless somebody else has written; forget the ledger."""
        await self.begin()
        await self._stop(self.ledger, trouble)

    async def repaired(self) -> bool:
        """Whether somebody has written to the ledger since this writer stopped."""
        (found,) = await self._link.call([self._stand()])
        return tuple(found) != self._stopped_at

    async def begin(self, reads: Sequence[Command] = ()) -> list[Any]:
        """Put the ledger under WATCH, check that it is as known, and read; the replies of `reads`."""
        replies = await self._link.call([("WATCH", self.keys.ledger), self._stand(), *reads])
        known = self.ledger
        if replies[1] != _stand_of(known):
            await self._link.call([("UNWATCH",)])
            self._ledger = None
            raise FencedError(self.shard, "the ledger is not as this worker left it")
        return replies[2:]

    async def read(self, commands: Sequence[Command]) -> list[Any]:
        """Further reads between `begin` and `commit`."""
        return await self._link.call(commands)

    async def commit(self, batch: Batch, commands: Sequence[Command]) -> None:
        """Write all of it or nothing, and move the ledger past the batch."""
        known = self.ledger
        seq = known.seq + 1
        await self._write(
            replace(
                known,
                next=batch.next_offset,
                seq=seq,
                watermark=max(known.watermark, batch.watermark_us),
                floor=max(known.floor, seq - KEEP_TOUCHED),
                mark=batch.mark,
            ),
            commands,
        )

    async def pulse(self, position: int | None) -> bool:
        """Whether the ledger is as this worker left it; notes that the log has been read to its noted end.

        `position` is the consumer's next offset when everything before it has been applied, else None: control
        records move it without giving a batch.
        """
        if self._ledger is None:
            return False
        try:
            await self.begin()
            known = self.ledger
            if not known.caught_up and position is not None and position >= known.caught_up_at:
                await self._write(replace(known, seq=known.seq + 1, caught_up_at=known.next), [])
            else:
                await self._link.call([("UNWATCH",)])
        except FencedError:
            return False
        return True

    async def close(self) -> None:
        """Forget the ledger and give the connection back."""
        self._ledger = None
        await self._link.close()

    def check_start(self, batch: Batch) -> None:
        """Refuse a batch that does not begin where the ledger ends."""
        if batch.first_offset != self.ledger.next:
            raise FencedError(
                self.shard, f"the batch begins at {batch.first_offset}, the ledger expects {self.ledger.next}"
            )

    async def _opened(self, known: Ledger | None, log: LogEnds) -> Ledger:
        if known is None:
            if self.shard != CATALOG and (live := await ledgers.read_live(self._link, self._settings)) is not None:
                ledgers.check_partitions(self.shard, live.partitions, log)
            return ledgers.fresh(log)
        await ledgers.check_log(self.shard, known, log)
        if self.shard != CATALOG:
            ledgers.check_cells(self.shard, known)
        return replace(
            known,
            seq=known.seq + 1,
            epoch=ledgers.new_epoch(),
            caught_up_at=max(known.next, log.end),
            trouble="",
        )

    async def _stop(self, known: Ledger | None, trouble: str) -> None:
        """Under WATCH. A shard without a ledger has nowhere to write it."""
        self._ledger = None
        if known is None or known.trouble == trouble:
            await self._link.call([("UNWATCH",)])
        else:
            known = replace(known, seq=known.seq + 1, trouble=trouble)
            await self._put(known, "another worker wrote while this one stopped")
        self._stopped_at = (None, None, None) if known is None else tuple(_stand_of(known))

    def _stand(self) -> Command:
        return ("HMGET", self.keys.ledger, "epoch", "seq", "next")

    async def _write(self, moved: Ledger, commands: Sequence[Command]) -> None:
        await self._put(moved, "another writer moved the ledger; nothing was written", commands)
        self._ledger = moved

    async def _put(self, moved: Ledger, otherwise: str, commands: Sequence[Command] = ()) -> None:
        """Write the ledger that is under WATCH, and more with it; `FencedError` with these words if it moved."""
        done = await self._link.transaction([("HSET", self.keys.ledger, *ledgers.encode(moved)), *commands])
        if done is None:
            self._ledger = None
            raise FencedError(self.shard, otherwise)


def _stand_of(ledger: Ledger) -> list[bytes]:
    """What `Fence._stand` gives when the ledger is this one."""
    return [ledger.epoch.encode(), b"%d" % ledger.seq, b"%d" % ledger.next]

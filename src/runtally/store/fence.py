"""The fence around one shard: who may write to it, and from which offset.

A writer knows the ledger as it last read or wrote it. `begin` puts it under WATCH and compares; `commit` is one
MULTI/EXEC that moves it, and has it under WATCH again in the same round trip: `resume` then has nothing to ask. Another
writer in between, a rolled-back or emptied Redis: nothing is written and `FencedError` says that the ledger has to be
read again (`open`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from redis.asyncio import Redis

from ..core.changes import Change
from ..errors import FencedError, LedgerTroubleError, RuntallyError
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
    """What a batch did: changes that moved something, those that were older than what is known, those that said the
    newest once more, and those of runs that are too old to change."""

    changed: int
    stale: int
    duplicate: int
    frozen: int


class Fence:
    """One shard's ledger as this writer knows it, and the connection that it writes through.

    `generation` has to be the live one, or is filled `beside` it.
    """

    def __init__(
        self, redis: Redis, settings: Settings, shard: str, generation: str = GENERATION, beside: bool = False
    ) -> None:
        self.shard = shard
        self.keys = Keys(settings.redis_prefix, generation, shard)
        self._generation = generation
        self._beside = beside
        self._settings = settings
        self._link = Link(redis)
        self._ledger: Ledger | None = None
        # Whether the ledger has been under WATCH ever since it was as known.
        self._watched = False
        self._stopped_at: tuple[bytes | None, ...] = ()

    @property
    def ledger(self) -> Ledger:
        """The ledger as last read or written."""
        if self._ledger is None:
            raise FencedError(self.shard, "the ledger has not been read")
        return self._ledger

    async def open(self, log: LogEnds) -> Ledger:
        """Read the ledger, or write a new one; check it against the log; begin a new epoch.

        Raises `LedgerTroubleError`, which the ledger then tells too, when the log is another one or has another
        partition count, `UnfitServerError` for another format, `FencedError` when another generation is live.
        """
        self._ledger = None
        key = self.keys.ledger
        self._watched = False
        await self._call([("UNWATCH",)])
        _, flat = await self._call([("WATCH", key), ("HGETALL", key)])
        known = ledgers.decode(flat)
        # After the ledger is watched: who makes another generation live removes the ledgers of this one later.
        partitions = await self._check_generation(log)
        try:
            opened = await self._opened(known, log, partitions)
        except LedgerTroubleError as error:
            await self._stop(known, error.detail)
            raise
        await self._put(opened, "another worker wrote while the ledger was read")
        self._ledger = opened
        return opened

    async def stop(self, trouble: str) -> None:
        """Write down why this shard does not go on, unless somebody else has written; forget the ledger."""
        await self.begin()
        await self._stop(self.ledger, trouble)

    async def repaired(self) -> bool:
        """Whether somebody has written to the ledger since this writer stopped."""
        (found,) = await self._call([self._stand()])
        return tuple(found) != self._stopped_at

    async def begin(self, reads: Sequence[Command] = ()) -> list[Any]:
        """Put the ledger under WATCH, check that it is as known, and read; the replies of `reads`."""
        self._watched = False
        # A WATCH that was broken stays broken until it is taken back, whatever is watched after it.
        _, _, stand, *replies = await self._call([("UNWATCH",), ("WATCH", self.keys.ledger), self._stand(), *reads])
        known = self.ledger
        if stand != _stand_of(known):
            await self._call([("UNWATCH",)])
            self._ledger = None
            raise FencedError(self.shard, "the ledger is not as this worker left it")
        self._watched = True
        return replies

    async def resume(self, reads: Sequence[Command] = ()) -> list[Any]:
        """As `begin`, without a look at a ledger that has been under WATCH since this writer's last commit: what
        somebody else has written since then, the next one refuses."""
        return await (self._call(reads) if self._watched else self.begin(reads))

    @asynccontextmanager
    async def guarded(self) -> AsyncIterator[None]:
        """Around work between `begin` and `commit`. While somebody else writes, reads are not of one state and may make
        no sense: what comes of that is a `FencedError`, as it will be at the commit, and no end of the worker."""
        try:
            yield
        except RuntallyError:
            raise
        except Exception as error:
            known = self._ledger
            if known is not None:
                self._watched = False
                stand, _ = await self._call([self._stand(), ("UNWATCH",)])
                if stand == _stand_of(known):
                    raise
            self._ledger = None
            raise FencedError(self.shard, "somebody else wrote while the shard was read") from error

    async def read(self, commands: Sequence[Command]) -> list[Any]:
        """Further reads between `begin` and `commit`."""
        return await self._call(commands)

    async def commit(self, batch: Batch, commands: Sequence[Command], floor: int = 0) -> None:
        """Write all of it or nothing, and move the ledger past the batch. `floor`: up to which seq, at least, the
        touched sets are trimmed with that."""
        known = self.ledger
        seq = known.seq + 1
        await self._write(
            replace(
                known,
                next=batch.next_offset,
                seq=seq,
                watermark=max(known.watermark, batch.watermark_us),
                floor=max(known.floor, seq - KEEP_TOUCHED, floor),
                mark=batch.mark,
            ),
            commands,
        )

    async def step(self, commands: Sequence[Command], **moved: Any) -> None:
        """As `commit`, for what is done between batches: the ledger stays where it is in the log. `moved`: fields of it
        that change."""
        seq = self.ledger.seq + 1
        floor = max(self.ledger.floor, seq - KEEP_TOUCHED)
        await self._write(replace(self.ledger, seq=seq, floor=floor, **moved), commands)

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

    async def _check_generation(self, log: LogEnds) -> int:
        """The partition count that a shard of this generation has to be of."""
        live = await ledgers.read_live(self._link, self._settings)
        if self._beside:
            if live is None or live.filling != self._generation:
                raise FencedError(self.shard, "its generation is not being filled any more")
            return log.partitions
        if live is None:
            if self.shard == CATALOG:
                return log.partitions
            live = await ledgers.found_live(self._link, self._settings, self._generation, log.partitions)
        if live.generation != self._generation:
            raise FencedError(self.shard, "another generation of the data is live now")
        live.check_format(self._settings)
        return log.partitions if self.shard == CATALOG else live.partitions

    async def _opened(self, known: Ledger | None, log: LogEnds, partitions: int) -> Ledger:
        if known is None:
            ledgers.check_partitions(self.shard, partitions, log)
            return ledgers.fresh(log)
        await ledgers.check_log(self.shard, known, log)
        return replace(
            known,
            seq=known.seq + 1,
            epoch=ledgers.new_epoch(),
            caught_up_at=max(known.next, log.end),
            trouble="" if self.shard == CATALOG else ledgers.outdated(known),
        )

    async def _stop(self, known: Ledger | None, trouble: str) -> None:
        """Under WATCH. A shard without a ledger has nowhere to write it."""
        self._ledger = None
        self._watched = False
        if known is None or known.trouble == trouble:
            await self._call([("UNWATCH",)])
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
        self._watched = False
        key = self.keys.ledger
        again = [("WATCH", key), self._stand()]
        after = await self._link.commit([("HSET", key, *ledgers.encode(moved)), *commands], again)
        if after is None:
            self._ledger = None
            raise FencedError(self.shard, otherwise)
        # Somebody else may have written just before the WATCH.
        self._watched = after[1] == _stand_of(moved)

    async def _call(self, commands: Sequence[Command]) -> list[Any]:
        """Whatever fails may have cost the connection, and the WATCH with it."""
        watched, self._watched = self._watched, False
        replies = await self._link.call(commands)
        self._watched = watched
        return replies


def _stand_of(ledger: Ledger) -> list[bytes]:
    """What `Fence._stand` gives when the ledger is this one."""
    return [ledger.epoch.encode(), b"%d" % ledger.seq, b"%d" % ledger.next]

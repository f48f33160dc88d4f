"""Holding one shard's cells against its raw runs, while its worker goes on.

A day is compared in one state of the shard: its pieces are read one by one, so that no script keeps Redis from others
for long, and what was touched meanwhile is read again, in one transaction with the ledger, until nothing else was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from ..core.cohorts import Cohort
from ..core.compare import differences
from ..core.groups import FIRST_STATE, States
from ..core.levels import DAY_US, LEVELS, NONE
from ..core.scopes import COHORT, Scope
from ..errors import NotReadyError
from ..settings import Settings
from . import ledger as ledgers
from .cohort_book import CohortBook
from .keys import Keys
from .ledger import Ledger
from .link import Link
from .records import decode_cohorts, decode_states
from .recount import Piece, day_of, pieces_of, recount


@dataclass(frozen=True, slots=True)
class Wrong:
    """A cell that is not what the raw runs make of it. `scope` is the name of its scope, `cohort` what the number of a
    cohort stands for (None: nothing); `group` and `problem` are words."""

    shard: str
    kind: Scope
    scope: bytes
    cohort: Cohort | None
    level: int
    bucket: int
    group: str
    problem: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What the check of a day found: how many runs and cells there are, and which cells are wrong."""

    runs: int
    cells: int
    wrong: list[Wrong]


class Audit:
    """One shard of runs, read over a connection of its own."""

    def __init__(self, redis: Redis, settings: Settings, shard: str) -> None:
        self.shard = shard
        self._settings = settings
        self._keys = Keys(settings.redis_prefix, ledgers.GENERATION, shard)
        self._link = Link(redis)
        self._max_cohorts = settings.max_cohorts
        self._states = States()
        self._cohorts: list[Cohort] = []
        self._book: CohortBook | None = None

    async def days(self) -> list[int]:
        """The days of the live generation whose raw runs are complete, NONE among them. To be asked first. Raises
        `NotReadyError` without a ledger."""
        live = await ledgers.read_live(self._link, self._settings)
        if live is not None:
            self._keys = Keys(self._settings.redis_prefix, live.generation, self.shard)
        flat, days = await self._link.call([("HGETALL", self._keys.ledger), ("SMEMBERS", self._keys.days)])
        ledger = self._ledger(flat)
        return [NONE, *sorted(day for day in map(int, days) if not _gone(day, ledger))]

    async def check(self, day: int) -> Checked:
        """Compare all cells of a day. Raises `NotReadyError` without a ledger, `ServerLostError`."""
        pieces = pieces_of(day)
        replies = await self._read(day, pieces)
        if replies is None:
            return Checked(0, 0, [])
        return await asyncio.to_thread(self._compare, pieces, replies)

    async def close(self) -> None:
        """Give the connection back."""
        await self._link.close()

    async def _read(self, day: int, pieces: list[Piece]) -> list[Any] | None:
        """The replies of all pieces, of one state of the shard, and whatever dictionaries they need; None for a day
        whose raw runs have gone meanwhile."""
        keys = self._keys
        stand = self._ledger((await self._link.call([("HGETALL", keys.ledger)]))[0])
        replies = [(await self._link.call([piece.command(keys)]))[0] for piece in pieces]
        again: list[int] = []
        while True:
            found = await self._link.transaction(
                [
                    ("HGETALL", keys.ledger),
                    ("ZRANGE", keys.touched, f"({stand.seq}", "+inf", "BYSCORE"),
                    ("LRANGE", keys.states, len(self._states) - FIRST_STATE, -1),
                    ("LRANGE", keys.cohorts, len(self._cohorts), -1),
                    *[pieces[at].command(keys) for at in again],
                ]
            )
            assert found is not None, "nothing is watched"
            before, stand = stand, self._ledger(found[0])
            if _gone(day, stand):
                return None
            if stand.epoch != before.epoch:
                self._states, self._cohorts, self._book = States(), [], None
                again = [*range(len(pieces))]
                continue
            self._extend(found[2], found[3])
            for at, reply in zip(again, found[4:], strict=True):
                replies[at] = reply
            if stand.seq < before.seq or stand.floor > before.seq:
                moved = {*range(len(pieces))}
            else:
                moved = _moved(pieces, day, map(int, found[1]))
            if moved <= {*again}:
                return replies
            again = sorted(moved | {*again})

    def _extend(self, states: list[bytes], cohorts: list[bytes]) -> None:
        self._states.extend(decode_states(states))
        if cohorts:
            self._cohorts += decode_cohorts(cohorts)
            self._book = None

    def _compare(self, pieces: list[Piece], replies: list[Any]) -> Checked:
        book = self._book = self._book or CohortBook(self._max_cohorts, self._cohorts)
        counted = recount(pieces, replies, book, self._states)
        wrong: list[Wrong] = []
        cells = 0
        for level in LEVELS:
            stored, broken = counted.stored_sums(level.number, book)
            cells += len(stored)
            for entry in broken:
                problem = f"{len(entry.cells)} bytes are no cells"
                wrong.append(self._wrong(entry.kind, entry.scope, level.number, entry.bucket, "", problem))
            for one in differences(stored, counted.anew[level.number], self._states):
                place = book.names[one.scope]
                wrong.append(self._wrong(*place, level.number, one.bucket, one.group, one.problem))
        if book.fresh:
            # Numbers that the shard may give to others.
            self._book = None
        return Checked(counted.runs, cells, wrong)

    def _wrong(self, kind: Scope, scope: bytes, level: int, bucket: int, group: str, problem: str) -> Wrong:
        cohort = None
        if kind is COHORT and self._book is not None:
            cohort = self._book.cohort(scope)
        return Wrong(self.shard, kind, scope, cohort, level, bucket, group, problem)

    def _ledger(self, flat: list[bytes]) -> Ledger:
        found = ledgers.decode(flat)
        if found is None:
            raise NotReadyError(f"shard {self.shard} has no ledger yet: no worker has been assigned its partition")
        return found


def _moved(pieces: list[Piece], day: int, minutes: Iterable[int]) -> set[int]:
    """Which pieces of a day a change of minutes may have changed."""
    of_day = [minute for minute in minutes if day_of(minute) == day]
    return {at for at, piece in enumerate(pieces) if any(map(piece.touched_by, of_day))}


def _gone(day: int, ledger: Ledger) -> bool:
    """Whether raw runs of a day are not complete any more."""
    return day != NONE and day * DAY_US < ledger.horizon

"""Making a shard's cells anew from its raw runs: by the worker that owns it, a day at a time, a fenced commit each.

Somebody else asks for it by a key (`Request`). Days before the horizon keep their cells: of their runs only the open
ones are there. Cells that were of other attributes or scopes than this version's are of two kinds until the last day is
done; the ledger says so, and no batch is applied meanwhile.

The key is the one key of a shard that others than its worker write. Fields: `asked`, who asks; `finished`, whose
rebuild was done last; `done` and `total`, days of the one that goes on, and `written`, values that were not as they had
to be; `refused`, why it is not done.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ..core.groups import States
from ..core.levels import LEVELS, MINUTE_US, NONE
from ..settings import Settings
from .cohort_book import CohortBook
from .fence import Fence
from .keys import Keys
from .ledger import GENERATION, attributes_before, current_cells, half_rebuilt
from .link import Command, Link
from .records import encode_cohort
from .recount import Entry, Piece, attributed_anew, pieces_of, recount
from .rollups import Rollups

_KEPT_S: Final = 3600
"""For so long after the last step the key says what became of it."""


class Rebuild:
    """What is left of one shard's rebuild, as its worker does it. `token`: whose request it is,
    `carried`: the days whose cells are carried over."""

    def __init__(self, token: str, days: Sequence[int], carried: Sequence[int]) -> None:
        self.token = token
        self._days = days
        self._carried = carried
        self._done = 0
        self._written = 0

    @property
    def over(self) -> bool:
        """Whether all days are done."""
        return self._done == len(self._days)

    async def step(self, fence: Fence, book: CohortBook, states: States, rollups: Rollups) -> bool:
        """Do the next day; whether cells have changed. Errors: as `RunsShard.apply`."""
        await fence.begin()
        if attributes_before(fence.ledger) != attributes_before(replace(fence.ledger, cells=current_cells())):
            await self._attribute_anew(fence, book, states, rollups)
            return True
        pieces = pieces_of(self._days[self._done])
        # Nobody else may write until the commit, so that pieces read one by one are of one state.
        replies = [(await fence.read([piece.command(fence.keys)]))[0] for piece in pieces]
        found = await asyncio.to_thread(_differences, pieces, replies, book, states)
        commands = found.commands(fence.keys, fence.ledger.seq + 1)
        if book.fresh:
            commands.append(("RPUSH", fence.keys.cohorts, *map(encode_cohort, book.fresh)))
        done, written = self._done + 1, self._written + len(found.written) + len(found.gone)
        last = done == len(self._days)
        key = fence.keys.rebuild
        standing = ("done", done, "total", len(self._days), "written", written)
        commands.append(("HSET", key, *standing, *(("finished", self.token) if last else ())))
        commands.append(("EXPIRE", key, _KEPT_S))
        current = current_cells()
        whole = last or fence.ledger.cells == current
        await fence.step(commands, cells=current if whole else half_rebuilt(fence.ledger))
        book.committed()
        self._done, self._written = done, written
        return found.any

    async def _attribute_anew(self, fence: Fence, book: CohortBook, states: States, rollups: Rollups) -> None:
        """Move the runs that have records on days that are carried over to the cohorts that they will be taken from;
        all at once, since nothing would tell which ones were moved. They are few: runs that have not ended."""
        names = attributes_before(fence.ledger)
        keys = fence.keys
        commands: list[Command] = []
        for day in self._carried:
            pieces = [replace(piece, spans=()) for piece in pieces_of(day) if piece.first is not None]
            replies = [(await fence.read([piece.command(keys)]))[0] for piece in pieces]
            if any(reply[0] for reply in replies):
                change = attributed_anew(pieces, replies, book, states, names)
                commands += await rollups.apply(change, book.names)
                minutes = {minute for piece in pieces for minute in range(piece.first or 0, (piece.last or 0) + 1)}
                touched = [part for minute in minutes for part in (fence.ledger.seq + 1, minute)]
                commands.append(("ZADD", keys.touched, *touched))
        if book.fresh:
            commands.append(("RPUSH", keys.cohorts, *map(encode_cohort, book.fresh)))
        await fence.step(commands, cells=half_rebuilt(fence.ledger))
        book.committed()


def read_request(keys: Keys) -> Command:
    """The command whose reply goes to `requested`."""
    return ("HMGET", keys.rebuild, "asked", "finished")


def refusal(keys: Keys, token: str, why: str) -> list[Command]:
    """The commands that tell whoever asked that it is not done."""
    return [("HSET", keys.rebuild, "refused", why, "finished", token)]


def requested(reply: Sequence[bytes | None]) -> str | None:
    """Who waits for a rebuild; None when nobody does."""
    asked, finished = reply
    return None if asked is None or asked == finished else asked.decode()


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a request is: days done, of so many (0 before the worker has taken it), and values that were not as they
    had to be. `refused`: why it is not done, "" if it is."""

    done: int
    total: int
    written: int
    finished: bool
    refused: str = ""


class Request:
    """A rebuild of one shard, as the one who asks for it sees it."""

    def __init__(self, link: Link, settings: Settings, shard: str, generation: str = GENERATION) -> None:
        self.shard = shard
        self._link = link
        self._key = Keys(settings.redis_prefix, generation, shard).rebuild
        self._token = secrets.token_hex(8)

    async def ask(self) -> None:
        """Ask for it. A request that is there already is replaced."""
        await self._link.transaction(
            [("DEL", self._key), ("HSET", self._key, "asked", self._token), ("EXPIRE", self._key, _KEPT_S)]
        )

    async def standing(self) -> Standing:
        """How far it is."""
        fields = ("done", "total", "written", "finished", "refused")
        ((*numbers, finished, refused),) = await self._link.call([("HMGET", self._key, *fields)])
        done, total, written = (int(number or 0) for number in numbers)
        return Standing(done, total, written, finished == self._token.encode(), (refused or b"").decode())

    async def withdraw(self) -> None:
        """Take it back, or clear it away when it is over."""
        await self._link.call([("DEL", self._key)])


@dataclass(frozen=True, slots=True)
class _Differences:
    """What makes the stored cells of a day what they should be: values to write, and those to take away."""

    written: Sequence[Entry]
    gone: Sequence[Entry]

    @property
    def any(self) -> bool:
        return bool(self.written or self.gone)

    def commands(self, keys: Keys, seq: int) -> list[Command]:
        """As commands. Each bucket that changes is touched by the first of its minutes."""
        pairs: defaultdict[bytes, list[bytes]] = defaultdict(list)
        fields: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for entry in self.written:
            pairs[keys.cells(entry.kind, entry.level, entry.page)] += (entry.field, entry.cells)
        for entry in self.gone:
            fields[keys.cells(entry.kind, entry.level, entry.page)].append(entry.field)
        commands: list[Command] = [("HSET", key, *found) for key, found in pairs.items()]
        commands += [("HDEL", key, *found) for key, found in fields.items()]
        touched = sorted({_first_minute(entry) for entry in (*self.written, *self.gone)})
        if touched:
            commands.append(("ZADD", keys.touched, *[part for minute in touched for part in (seq, minute)]))
        return commands


def _differences(pieces: Sequence[Piece], replies: Sequence[Any], book: CohortBook, states: States) -> _Differences:
    counted = recount(pieces, replies, book, states)
    stored = {_place(entry): entry for part in counted.stored for entry in part.entries()}
    written = []
    for entry in counted.wanted(book):
        known = stored.pop(_place(entry), None)
        if known is None or known.cells != entry.cells:
            written.append(entry)
    return _Differences(written, [*stored.values()])


def _place(entry: Entry) -> tuple[str, int, int, bytes]:
    return entry.kind.letter, entry.level, entry.page, entry.field


def _first_minute(entry: Entry) -> int:
    return NONE if entry.bucket == NONE else entry.bucket * (LEVELS[entry.level].width_us // MINUTE_US)

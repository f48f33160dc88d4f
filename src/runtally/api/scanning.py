"""Answers by a scan of raw runs: gather the blocks, then ask them in a thread.

What is missing is read and decoded beside refreshes and off the event loop, by several connections at once, so that
neither Redis nor this process waits for the other and everybody else is answered meanwhile. What has changed since is
patched within a refresh, so that an answer is made from one state of every shard.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import islice
from typing import Final, NamedTuple, TypeVar

import numpy as np

from ..core.bins import Bins
from ..core.cells import CELL, LATEST
from ..core.combine import Entry
from ..core.levels import COARSEST, LEVELS, NONE
from ..core.plan import days_between
from ..core.predicate import Node
from ..core.selection import expected_range, selection_of
from ..core.time import text_of
from ..errors import BadRequestError, BusyError, TooLargeError
from ..settings import Settings
from ..store.block_copies import BlockCopies, Lacking
from ..store.blocks import BLOCK_LEVEL, MINUTES, Block
from ..store.blocks import decode as decode_block
from ..store.flow_runs import decode as decode_flow_runs
from ..store.link import Link
from ..store.places import BLOCK, Place
from ..store.view import View
from .columns import Shelf
from .explain import Size, line_of_scan
from .joined import Joined, Tables
from .scan import Dictionaries, Split, split
from .service import Stand
from .shards import Shards, Wanted
from .snapshot import Snapshot, count_of, history_of, size_of

_T = TypeVar("_T")
_MAX_ROUNDS: Final = 60
_LINKS: Final = 3
"""Connections that read at once: one is served, one's answer comes in, one's is decoded."""
_BLOCKS_A_READ: Final = 4
_PATCHES: Final = 8
"""So many blocks of a shard are patched within a refresh; more are read beside it."""
_BUSY: Final = 16
_BLOCKS_A_DAY: Final = COARSEST.width_us // LEVELS[BLOCK_LEVEL].width_us

Read = Callable[[Link], Awaitable[None]]
Blocks = Callable[[View], list[int]]
Because = Sequence[str]
"""The filters for which a scan is needed, as they were written."""


class _OfView(NamedTuple):
    """Blocks of one view that are wanted, and which of them are lacking."""

    buckets: list[int]
    lacking: Lacking


class _Derived:
    """What is derived from a view's blocks and kept."""

    def __init__(self, blocks: BlockCopies) -> None:
        self.blocks = blocks
        self.shelf = Shelf()
        self.tables = Tables()


class Scanning:
    """Scans over the shards; `join` gives the catalog of now, `stand` names the state of an answer."""

    def __init__(
        self, settings: Settings, shards: Shards, join: Callable[[], Joined], stand: Callable[[int, str], Stand]
    ) -> None:
        self._settings = settings
        self._shards = shards
        self._join = join
        self._stand = stand
        self._scans = asyncio.Semaphore(settings.max_scans)
        self._derived: dict[str, _Derived] = {}
        self._reading = asyncio.Lock()
        self._links: list[Link] = []
        self._gathering = 0

    async def history(self, tree: Node, because: Because, bins: Bins, now_us: int) -> tuple[list[list[Entry]], Stand]:
        """The entries of every bin. Raises `TooLargeError`, `BusyError`, and what a refresh raises."""
        snapshots, stand = await self._snapshots(tree, because, bins, now_us)
        return await self._in_turn(stand, history_of, snapshots, split(tree), bins, now_us)

    async def count(self, tree: Node, because: Because, now_us: int) -> tuple[int, Stand]:
        """How many runs the tree selects, with and without expected time. Raises as `history` does."""
        snapshots, stand = await self._snapshots(tree, because, None, now_us)
        return await self._in_turn(stand, count_of, snapshots, split(tree))

    async def size(self, bins: Bins) -> Size:
        """About how large a scan of the bins is, without reading what it needs. Raises what a refresh raises."""
        async with self._shards.turn:
            await self._shards.refresh({})
            return await self._size(_blocks_of(bins))

    async def gathered(self, tree: Node, because: Because, bins: Bins, now_us: int) -> tuple[Size, Stand]:
        """How large a scan of the bins is, reading all that it needs. Raises as `history` does."""
        snapshots, stand = await self._snapshots(tree, because, bins, now_us)
        return await asyncio.to_thread(size_of, snapshots), stand

    async def _snapshots(
        self, tree: Node, because: Because, bins: Bins | None, now_us: int
    ) -> tuple[list[Snapshot], Stand]:
        """Everything that a scan of the bins needs (None: of all runs), of one state of every shard."""
        began = time.perf_counter()
        blocks = _every_block if bins is None else _blocks_of(bins)
        begin, end = (0, LATEST) if bins is None else (bins.start, bins.end)
        within = expected_range(selection_of(tree), begin, end)
        parts = split(tree)
        patches: Wanted = {}
        busy: set[int] = set()
        async with self._gathered():
            for number in range(_MAX_ROUNDS):
                async with self._shards.turn:
                    await self._shards.refresh(patches)
                    self._check_horizon(because, within)
                    self._forget()
                    wanted = self._wanted(blocks)
                    if number == 0 and any(lacking.absent for _, lacking in wanted):
                        _check_size((await self._size(blocks)).rows, because, self._settings)
                        wanted = self._wanted(blocks)
                    reads = self._reads(parts, wanted)
                    patches = {} if reads else self._patches(wanted, busy)
                    if not reads and not patches:
                        views = zip(self._shards.views, wanted, strict=True)
                        found = [self._snapshot(view, parts, buckets) for view, (buckets, _) in views]
                        rows = sum(snapshot.size for snapshot in found)
                        _check_size(rows, because, self._settings)
                        stand = self._stand(now_us, line_of_scan(rows, because))
                        spent_s = {"read": time.perf_counter() - began}
                        return found, replace(stand, spent_s=spent_s, found="scan", raw_rows=rows)
                if reads:
                    await self._read(parts, blocks)
        raise BusyError("the runs of this range change faster than they can be read")

    @asynccontextmanager
    async def _gathered(self) -> AsyncIterator[None]:
        """Nothing that is gathered is given up for lack of memory before it was used."""
        self._gathering += 1
        try:
            yield
        finally:
            self._gathering -= 1
            if not self._gathering:
                self._shards.trim_blocks()

    def _wanted(self, blocks: Blocks) -> list[_OfView]:
        """By view the blocks that are wanted, and which of them are lacking."""
        wanted = [(view, blocks(view)) for view in self._shards.views]
        return [_OfView(buckets, view.blocks.lacking(buckets)) for view, buckets in wanted]

    def _patches(self, wanted: Sequence[_OfView], busy: set[int]) -> Wanted:
        """The blocks that are behind, by view. What was written again since it was read is read in every further round,
        of all shards since they write to the same buckets: else a busy range is seldom all there."""
        behind = {raw for _, lacking in wanted for buckets in lacking.behind.values() for raw in buckets}
        again: Sequence[Iterable[int]] = [lacking.behind for _, lacking in wanted]
        if behind and len(behind) <= _BUSY:
            busy |= behind
            for view in self._shards.views:
                view.blocks.touch(busy)
            views = zip(self._shards.views, wanted, strict=True)
            again = [view.blocks.lacking(buckets).behind for view, (buckets, _) in views]
        return {at: [Place(BLOCK, bucket) for bucket in found] for at, found in enumerate(again) if found}

    def _reads(self, parts: Split, wanted: Sequence[_OfView]) -> list[Read]:
        """What has to be read beside refreshes: blocks that are not here, or too many that are behind."""
        reads: list[Read] = []
        for view, (_, lacking) in zip(self._shards.views, wanted, strict=True):
            if parts.flow_run is not None and not view.flow_runs.known:
                reads.append(self._flow_runs_read(view))
            absent = [*lacking.absent, *[*lacking.behind][_PATCHES:]]
            reads += [
                self._blocks_read(view, absent[at : at + _BLOCKS_A_READ])
                for at in range(0, len(absent), _BLOCKS_A_READ)
            ]
        return reads

    async def _read(self, parts: Split, blocks: Blocks) -> None:
        """Read all of that, once for all scans that want it."""
        async with self._reading:
            reads = iter(self._reads(parts, self._wanted(blocks)))

            async def work(link: Link) -> None:
                for read in reads:
                    await read(link)

            while len(self._links) < _LINKS:
                self._links.append(self._shards.link_besides())
            workers = [asyncio.create_task(work(link)) for link in self._links]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    def _blocks_read(self, view: View, buckets: Sequence[int]) -> Read:
        async def read(link: Link) -> None:
            copies = view.blocks
            asked = [copies.ask(bucket) for bucket in buckets]
            try:
                replies = iter(await link.call([command for one in asked for command in one.commands]))
                hashes = [[*islice(replies, len(one.commands))] for one in asked]
                found = await asyncio.to_thread(lambda: list(map(decode_block, hashes)))
                async with self._shards.turn:
                    for one, block in zip(asked, found, strict=True):
                        copies.put(one, block)
            finally:
                for one in asked:
                    copies.withdraw(one)

        return read

    def _flow_runs_read(self, view: View) -> Read:
        async def read(link: Link) -> None:
            flow_runs, seq = view.flow_runs, view.ledger.seq
            (reply,) = await link.call([flow_runs.read_all()])
            found = await asyncio.to_thread(decode_flow_runs, reply)
            async with self._shards.turn:
                flow_runs.start(found, seq)

        return read

    def _check_horizon(self, because: Because, within: tuple[int, int]) -> None:
        """Refuse a scan of runs that have no records any more; the caller has the turn."""
        horizon = max(view.ledger.horizon for view in self._shards.views)
        begin, end = within[0], min(within[1], horizon)
        if begin < end and any(day in days_between(begin, end) for view in self._shards.views for day in view.days):
            raise BadRequestError(
                f"The filters on {', '.join(because)} need raw runs, and of those expected before {text_of(horizon)} "
                "only sums are kept (RUNTALLY_RAW_RETENTION). Ask for a later range, also by "
                "task_runs.expected_start_time.after_, or leave those filters out."
            )

    async def _size(self, blocks: Blocks) -> Size:
        """How many runs: of days by their cells where a block is not here, else by the blocks. The caller has the
        turn."""
        wanted = self._wanted(blocks)
        days = {at: _days_of(lacking.absent) for at, (_, lacking) in enumerate(wanted)}
        places = {at: [Place(COARSEST.number, day) for day in found] for at, found in days.items()}
        for _ in range(_MAX_ROUNDS):
            lacking = {
                at: [place for place in found if self._shards.views[at].cells([place]) == [None]]
                for at, found in places.items()
            }
            if not any(lacking.values()):
                break
            await self._shards.refresh(lacking)
        rows = sum(_runs_in(self._shards.views[at], place) for at, found in places.items() for place in found)
        minutes = 0
        for at, view in enumerate(self._shards.views):
            known = [bucket for bucket in wanted[at].buckets if bucket // _BLOCKS_A_DAY not in days[at]]
            rows += sum(block.size for block in _here(view, known))
            minutes += MINUTES * (len(known) + _BLOCKS_A_DAY * len(days[at]))
        return Size(rows, minutes)

    def _snapshot(self, view: View, parts: Split, buckets: list[int]) -> Snapshot:
        wanted = _here(view, buckets)
        derived, known = self._derived[view.shard], view.blocks.dictionaries
        table = None
        if parts.flow_run is not None:
            table = derived.tables.update(known.flow_runs, view.flow_runs, self._join())
        dictionaries = Dictionaries(dict(view.states()), list(known.tag_sets.values), known.flow_runs.by_value)
        size = sum(block.size for block in wanted)
        return Snapshot(wanted, view.blocks.held(), derived.shelf, table, dictionaries, view.type_codes, size)

    def _forget(self) -> None:
        """Drop what was derived from blocks that a view had to forget, before new ones need the memory."""
        for view in self._shards.views:
            found = self._derived.get(view.shard)
            if found is None or found.blocks is not view.blocks:
                self._derived[view.shard] = _Derived(view.blocks)

    async def _in_turn(self, stand: Stand, work: Callable[..., _T], *arguments: object) -> tuple[_T, Stand]:
        """Run a scan in a thread, a few at a time; the rest wait, for so long."""
        try:
            async with asyncio.timeout(self._settings.scan_wait / 1e6):
                await self._scans.acquire()
        except TimeoutError:
            raise BusyError("too many scans of raw runs at once; try again", retry_after_s=2) from None
        began = time.perf_counter()
        try:
            found = await asyncio.to_thread(work, *arguments)
            return found, replace(stand, spent_s={**stand.spent_s, "scan": time.perf_counter() - began})
        finally:
            self._scans.release()


def _blocks_of(bins: Bins) -> Blocks:
    days = range(0) if bins.count == 0 else days_between(bins.start, bins.end)
    return lambda view: _blocks(view, days, bins)


def _every_block(view: View) -> list[int]:
    return [*_blocks(view, None, None), NONE]


def _blocks(view: View, days: range | None, bins: Bins | None) -> list[int]:
    """The blocks of a view that can hold runs of the bins; all of them without bins."""
    width = LEVELS[BLOCK_LEVEL].width_us
    found = [
        day * _BLOCKS_A_DAY + part
        for day in sorted(view.days)
        if days is None or day in days
        for part in range(_BLOCKS_A_DAY)
    ]
    if bins is None:
        return found
    reached = range(bins.start // width, -(-bins.end // width))
    return [bucket for bucket in found if bucket in reached]


def _here(view: View, buckets: list[int]) -> list[Block]:
    return [block for bucket in buckets if (block := view.blocks.get(bucket)) is not None]


def _days_of(buckets: Sequence[int]) -> list[int]:
    return sorted({bucket // _BLOCKS_A_DAY for bucket in buckets if bucket != NONE})


def _check_size(rows: int, because: Because, settings: Settings) -> None:
    """Refuse a scan over the budget."""
    if rows > settings.max_scan_rows:
        raise TooLargeError(
            f"The filters on {', '.join(because)} need a scan of about {rows:,} runs, more than the "
            f"{settings.max_scan_rows:,} that RUNTALLY_MAX_SCAN_ROWS allows. Ask for a shorter range, or "
            "leave those filters out."
        )


def _runs_in(view: View, place: Place) -> int:
    (page,) = view.cells([place])
    return 0 if page is None else int(np.frombuffer(page.cells, CELL)["n"].sum())

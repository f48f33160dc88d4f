"""The service behind the routes: answers from cells where that is possible, else by a scan of the raw runs."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..core.bins import Bins
from ..core.cells import CELL, Kinds
from ..core.combine import Entry, Tally
from ..core.groups import State
from ..core.levels import COARSEST, LEVELS, NONE
from ..core.plan import days_between
from ..core.predicate import Node, atoms, compile_filters
from ..core.request import Filters, HistoryRequest
from ..core.selection import selection_of
from ..errors import BusyError, NotReadyError, ServerLostError, TooLargeError
from ..settings import Settings
from ..store.blocks import BLOCK_LEVEL, Block
from ..store.view import BLOCK, Place, View
from .answer import Attempt, Question
from .cells import Cells, plan_of, scanned, state_map
from .columns import Columns, Shelf
from .joined import Joined, Table, Tables
from .masks import Mask
from .scan import Dictionaries, Split, selected, split
from .service import CountAnswer, HistoryAnswer, Stand
from .shards import Shards

_T = TypeVar("_T")
_MAX_ROUNDS = 60
_MAX_READS = 20_000
_LITTLE = 16
_BLOCKS_A_READ = 4
_SUMS_PART = 4
"""The share of the cache's memory that sums of cells may take besides."""


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What a scan of one shard needs; nothing in it changes any more."""

    wanted: list[Block]
    held: Sequence[Block]
    shelf: Shelf
    table: Table | None
    dictionaries: Dictionaries
    type_codes: npt.NDArray[np.uint8]

    @property
    def size(self) -> int:
        return sum(map(len, self.wanted))

    def selected(self, tree: Split) -> Iterator[tuple[Columns, Mask]]:
        """The runs, and which of them the tree selects."""
        flow_runs = self.table.selected(tree.flow_run) if self.table and tree.flow_run else None
        for columns in self.shelf.columns(self.wanted, self.held):
            yield columns, selected(columns, tree.task_run, flow_runs, self.dictionaries)


class _Copies:
    """What is derived from one view and kept."""

    def __init__(self) -> None:
        self.shelf = Shelf()
        self.tables = Tables()


class History:
    """Answers from Redis. See `service.HistoryService` for the promises."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._shards = Shards(settings)
        self._scans = asyncio.Semaphore(settings.max_scans)
        self._joined: Joined | None = None
        self._cells = Cells(settings.api_cache // _SUMS_PART)
        self._copies: defaultdict[str, _Copies] = defaultdict(_Copies)

    async def start(self) -> None:
        """Begin to connect; requests before that get `NotReadyError`."""
        self._shards.start()

    async def stop(self) -> None:
        """Disconnect."""
        await self._shards.stop()

    async def ready(self) -> None:
        """Return if an answer would be complete now."""
        async with self._shards.turn:
            try:
                await self._shards.refresh({})
            except ServerLostError as error:
                raise NotReadyError(str(error)) from error
            behind = [name for name, ledger in self._shards.ledgers().items() if not ledger.caught_up]
        if behind:
            raise NotReadyError(f"catching up with the log: shards {', '.join(behind)}")

    async def history(self, request: HistoryRequest, now_us: int) -> HistoryAnswer:
        """Answer from cells where every filter allows it, else by a scan."""
        bins = request.resolve(now_us)
        tree = compile_filters(request.filters)
        selection = selection_of(tree)
        if not scanned(selection):
            found, stand = await self._from_cells(Question(selection, bins, now_us))
            return HistoryAnswer(bins, found.entries, stand)
        days = range(0) if bins.count == 0 else days_between(bins.start, bins.end)
        snapshots, stand = await self._snapshots(tree, lambda view: _blocks(view, days, bins), now_us)
        entries = await self._in_turn(_history_of, snapshots, split(tree), bins, now_us)
        return HistoryAnswer(bins, entries, stand)

    async def count(self, filters: Filters, now_us: int) -> CountAnswer:
        """Count all runs of the selection, also those without an expected time, without a state and outside any bin."""
        tree = compile_filters(filters)
        selection = selection_of(tree)
        if not scanned(selection):
            found, stand = await self._from_cells(Question(selection, None, now_us))
            return CountAnswer(found.count, stand)
        snapshots, stand = await self._snapshots(tree, lambda view: [*_blocks(view, None, None), NONE], now_us)
        return CountAnswer(await self._in_turn(_count_of, snapshots, split(tree)), stand)

    async def _from_cells(self, question: Question) -> tuple[Attempt, Stand]:
        missing: Mapping[int, Sequence[Place]] = {}
        # What was written again while something else was being read is read in every further round, and so is what is
        # little at once; of all shards, since they write to the same minutes: else a busy range is seldom all there.
        read: set[Place] = set()
        busy: set[Place] = set()
        async with self._shards.turn:
            for _ in range(_MAX_ROUNDS):
                lacking = {place for places in missing.values() for place in places}
                busy |= lacking if len(lacking) <= _LITTLE else lacking & read
                read |= lacking
                views = self._shards.views
                await self._shards.refresh({at: [*busy.union(missing.get(at, ()))] for at in range(len(views))})
                found = self._cells.answer(question, self._shards.views, self._join())
                if not found.missing:
                    self._shards.trim()
                    self._cells.trim()
                    return found, self._stand(question.now, plan_of(found))
                missing = found.missing
        raise BusyError("the runs of this range change faster than they can be read")

    async def _snapshots(
        self, tree: Node, blocks: Callable[[View], list[int]], now_us: int
    ) -> tuple[list[_Snapshot], Stand]:
        """Everything that a scan of those blocks needs, of one state of every shard.

        Blocks are read a few at a time, and between two reads others get their turn: a cold scan blocks nobody.
        """
        parts = split(tree)

        def places(view: View) -> list[Place]:
            return [Place(BLOCK, bucket) for bucket in blocks(view)]

        async with self._shards.turn:
            await self._shards.refresh({})
            await self._check_size(tree, blocks)
            if parts.flow_run is not None:
                self._shards.follow_flow_runs()
        wanted: dict[int, list[Place]] = {}
        for _ in range(_MAX_READS):
            async with self._shards.turn:
                await self._shards.refresh(wanted)
                wanted = self._absent(places)
                if not wanted:
                    snapshots = [self._snapshot(view, parts, blocks(view)) for view in self._shards.views]
                    self._shards.trim()
                    return snapshots, self._stand(now_us, f"scan; raw_runs={sum(s.size for s in snapshots)}")
        raise BusyError("the runs of this range change faster than they can be read")

    async def _read(self, places: Callable[[View], Sequence[Place]]) -> None:
        """Refresh until every view holds all of its places at its newest state; the caller has the turn."""
        wanted: dict[int, list[Place]] = {}
        for _ in range(_MAX_ROUNDS):
            await self._shards.refresh(wanted)
            wanted = self._absent(places)
            if not wanted:
                return
        raise BusyError("the runs of this range change faster than they can be read")

    def _absent(self, places: Callable[[View], Sequence[Place]]) -> dict[int, list[Place]]:
        """What to read next, by view: all that is not here, of blocks only a few."""
        return {
            position: absent[:_BLOCKS_A_READ] if absent[0].level == BLOCK else absent
            for position, view in enumerate(self._shards.views)
            if (absent := [place for place in places(view) if not view.holds(place)])
        }

    async def _check_size(self, tree: Node, blocks: Callable[[View], list[int]]) -> None:
        """Refuse a scan over the budget before anything is read for it."""
        ratio = COARSEST.width_us // LEVELS[BLOCK_LEVEL].width_us

        def days(view: View) -> list[int]:
            return sorted({bucket // ratio for bucket in blocks(view) if bucket != NONE})

        await self._read(lambda view: [Place(COARSEST.number, day) for day in days(view)])
        rows = sum(_runs_in(view, COARSEST.number, day) for view in self._shards.views for day in days(view))
        if rows > self._settings.max_scan_rows:
            columns = ", ".join(dict.fromkeys(atom.column for atom in atoms(tree)))
            raise TooLargeError(
                f"The filters on {columns} need a scan of about {rows:,} runs, more than the "
                f"{self._settings.max_scan_rows:,} that RUNTALLY_MAX_SCAN_ROWS allows. Ask for a shorter range, or "
                "leave those filters out."
            )

    def _snapshot(self, view: View, parts: Split, blocks: list[int]) -> _Snapshot:
        wanted = [block for bucket in blocks if (block := view.block(bucket)) is not None and len(block)]
        copies, known = self._copies[view.shard], view.dictionaries
        table = None
        if parts.flow_run is not None:
            table = copies.tables.update(known.flow_runs, view.flow_runs, self._join())
        dictionaries = Dictionaries(dict(view.states()), list(known.tag_sets.values), known.flow_runs.by_value)
        return _Snapshot(wanted, view.blocks(), copies.shelf, table, dictionaries, view.type_codes)

    def _join(self) -> Joined:
        catalog = self._shards.catalog
        if self._joined is None or self._joined.version != catalog.version:
            self._joined = Joined(catalog)
        return self._joined

    async def _in_turn(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Run a scan in a thread, a few at a time; the rest wait, for so long."""
        try:
            async with asyncio.timeout(self._settings.scan_wait / 1e6):
                await self._scans.acquire()
        except TimeoutError:
            raise BusyError("too many scans of raw runs at once; try again", retry_after_s=2) from None
        try:
            return await asyncio.to_thread(work, *arguments)
        finally:
            self._scans.release()

    def _stand(self, now_us: int, plan: str) -> Stand:
        ledgers = self._shards.ledgers()
        return Stand(
            now_us,
            {name: ledger.next for name, ledger in ledgers.items()},
            {name: ledger.epoch for name, ledger in ledgers.items()},
            plan=plan,
        )


def _history_of(snapshots: list[_Snapshot], tree: Split, bins: Bins, now_us: int) -> list[list[Entry]]:
    numbering: dict[State, int] = {}
    for snapshot in snapshots:
        for state in snapshot.dictionaries.states.values():
            numbering.setdefault(state, len(numbering))
    tally = Tally(bins, now_us, list(numbering))
    for snapshot in snapshots:
        mapped = state_map(snapshot.dictionaries.states, numbering)
        for columns, mask in snapshot.selected(tree):
            rows = columns.rows.take(np.flatnonzero(mask))
            tally.add_rows(rows, Kinds(rows.group, snapshot.type_codes), mapped)
    return tally.entries()


def _count_of(snapshots: list[_Snapshot], tree: Split) -> int:
    return sum(int(mask.sum()) for snapshot in snapshots for _, mask in snapshot.selected(tree))


def _blocks(view: View, days: range | None, bins: Bins | None) -> list[int]:
    """The blocks of a view that can hold runs of the bins; all of them without bins."""
    width = LEVELS[BLOCK_LEVEL].width_us
    ratio = COARSEST.width_us // width
    found = [day * ratio + part for day in sorted(view.days) if days is None or day in days for part in range(ratio)]
    if bins is None:
        return found
    reached = range(bins.start // width, -(-bins.end // width))
    return [bucket for bucket in found if bucket in reached]


def _runs_in(view: View, level: int, bucket: int) -> int:
    stored = view.cells(Place(level, bucket))
    if stored is None:
        return 0
    return sum(int(np.frombuffer(cells, CELL)["n"].sum()) for cells in stored.cells)

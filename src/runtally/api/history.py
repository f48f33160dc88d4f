"""The service behind the routes: answers from cells where that is possible, else by a scan of the raw runs."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..core.predicate import compile_filters
from ..core.request import Filters, HistoryRequest
from ..core.selection import selection_of
from ..errors import BusyError, NotReadyError, ServerLostError
from ..settings import Settings
from ..store.places import Place
from .answer import Attempt, Question
from .cells import Cells, scanned
from .explain import explain_cells, explain_scan, line_of_cells, raw_filters
from .following import Following
from .joined import Joined
from .scanning import Scanning
from .service import CountAnswer, Explanation, Figures, Found, HistoryAnswer, Stand
from .shards import SUMS_PART, Shards
from .sums import Missing

_MAX_ROUNDS = 60
_LITTLE = 16


class History:
    """Answers from Redis. See `service.HistoryService` for the promises."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._shards = Shards(settings)
        self._following = Following(self._shards, self._prepare, settings.max_staleness / 1e6)
        self._joined: Joined | None = None
        self._cells = Cells(settings.api_cache // SUMS_PART)
        # Questions are answered in the order in which they come, each in a turn of the loop: else all that are there
        # together would be, before the loop sees who came meanwhile.
        self._line = asyncio.Lock()
        self._scanning = Scanning(settings, self._shards, self._join, self._stand)

    async def start(self) -> None:
        """Begin to connect; requests before that get `NotReadyError`."""
        self._shards.start()

    async def stop(self) -> None:
        """Disconnect."""
        await self._following.stop()
        await self._shards.stop()

    async def ready(self) -> Mapping[str, int]:
        """The next offset of each shard if an answer would be complete now."""
        async with self._shards.turn:
            try:
                await self._shards.refresh({})
            except ServerLostError as error:
                raise NotReadyError(str(error)) from error
            ledgers = self._shards.ledgers()
        reasons = [f"shard {name} has stopped: {ledger.trouble}" for name, ledger in ledgers.items() if ledger.trouble]
        behind = [name for name, ledger in ledgers.items() if not ledger.caught_up and not ledger.trouble]
        if behind:
            reasons.append(f"catching up with the log: shards {', '.join(behind)}")
        if reasons:
            raise NotReadyError("; ".join(reasons))
        return {name: ledger.next for name, ledger in ledgers.items()}

    async def history(self, request: HistoryRequest, now_us: int) -> HistoryAnswer:
        """Answer from cells where every filter allows it, else by a scan."""
        bins = request.resolve(now_us)
        tree = compile_filters(request.filters)
        selection = selection_of(tree)
        if not scanned(selection):
            found, stand = await self._from_cells(Question(selection, bins, now_us))
            return HistoryAnswer(bins, found.entries, stand)
        because = raw_filters(request.filters, selection)
        entries, stand = await self._scanning.history(tree, because, bins, now_us)
        return HistoryAnswer(bins, entries, stand)

    async def count(self, filters: Filters, now_us: int) -> CountAnswer:
        """Count all runs of the selection, also those without an expected time, without a state and outside any bin."""
        tree = compile_filters(filters)
        selection = selection_of(tree)
        if not scanned(selection):
            found, stand = await self._from_cells(Question(selection, None, now_us))
            return CountAnswer(found.count, stand)
        return CountAnswer(*await self._scanning.count(tree, raw_filters(filters, selection), now_us))

    async def explain(self, request: HistoryRequest, now_us: int) -> Explanation:
        """Find the answer, and say how; of a scan all is read, but not asked."""
        bins, filters = request.resolve(now_us), request.filters
        tree = compile_filters(filters)
        question = Question(selection_of(tree), bins, now_us)
        estimated = await self._scanning.size(bins)
        if scanned(question.selection):
            because = raw_filters(filters, question.selection)
            real, stand = await self._scanning.gathered(tree, because, bins, now_us)
            return explain_scan(question, filters, estimated, real, stand)
        found, stand = await self._from_cells(question)
        shards = len(self._shards.views)
        return explain_cells(question, filters, found, shards, self._cells.cohorts, estimated, stand)

    async def figures(self) -> Figures:
        """Runs by the cells of whole days, and what this process keeps."""
        missing: Missing = defaultdict(list)
        async with self._shards.turn:
            for _ in range(_MAX_ROUNDS):
                await self._shards.refresh(missing)
                missing = defaultdict(list)
                runs = self._cells.runs_by_type(self._shards.views, missing)
                if not missing:
                    break
            else:
                raise BusyError("the runs change faster than they can be read")
            ledger = {name: ledger.next for name, ledger in self._shards.ledgers().items()}
            kept = {**self._shards.kept_bytes(), "sums": self._cells.kept_bytes}
            return Figures(runs, ledger, kept, *self._cells.take_outcomes())

    async def _from_cells(self, question: Question) -> tuple[Attempt, Stand]:
        spent_s = {"read": 0.0, "plan": 0.0}
        new_enough_s = time.monotonic() - self._settings.max_staleness / 1e6
        self._following.asked()
        self._cells.note_asked(question.selection)
        async with self._line:
            await asyncio.sleep(0)
            found = self._attempt(question, spent_s) if self._shards.seen_since(new_enough_s) else None
        if found is None or found.missing:
            async with self._shards.turn:
                found = await self._read_for(question, found, new_enough_s, spent_s)
        if not self._shards.turn.locked():
            self._shards.trim()
            self._cells.trim()
        how: Found = "edges" if found.raw_minutes else "cells"
        frozen_us = found.horizon if found.frozen_minutes else None
        stand = self._stand(question.now, line_of_cells(found))
        stand = replace(stand, exact=frozen_us is None, frozen_before_us=frozen_us)
        return found, replace(stand, spent_s=spent_s, found=how, raw_rows=found.raw_rows)

    async def _read_for(
        self, question: Question, found: Attempt | None, new_enough_s: float, spent_s: dict[str, float]
    ) -> Attempt:
        """Read what a question needs, given what came of an attempt with what was known; the attempt that needs no
        more."""
        # What was written again while something else was being read is read in every further round, and so is what is
        # little at once: else a busy range is seldom all there.
        read: set[Place] = set()
        busy: set[Place] = set()
        along = found is not None
        for _ in range(_MAX_ROUNDS):
            began = time.perf_counter()
            if found is not None:
                lacking = {place for places in found.missing.values() for place in places}
                busy |= lacking if len(lacking) <= _LITTLE else lacking & read
                read |= lacking
                wanted = {at: [*busy.union(places)] for at, places in found.missing.items()}
                await self._shards.read(wanted, along=along)
                along = False
            elif not self._shards.seen_since(new_enough_s):
                await self._shards.refresh({})
            spent_s["read"] += time.perf_counter() - began
            found = self._attempt(question, spent_s)
            if not found.missing:
                return found
        raise BusyError("the runs of this range change faster than they can be read")

    def _attempt(self, question: Question, spent_s: dict[str, float]) -> Attempt:
        began = time.perf_counter()
        found = self._cells.answer(question, self._shards.views, self._join())
        spent_s["plan"] += time.perf_counter() - began
        return found

    def _prepare(self) -> Iterator[None]:
        return self._cells.prepare(self._shards.views, self._join())

    def _join(self) -> Joined:
        catalog = self._shards.catalog
        if self._joined is None or self._joined.version != catalog.version:
            self._joined = Joined(catalog)
        return self._joined

    def _stand(self, now_us: int, plan: str) -> Stand:
        ledgers = self._shards.ledgers()
        return Stand(
            now_us,
            {name: ledger.next for name, ledger in ledgers.items()},
            {name: ledger.epoch for name, ledger in ledgers.items()},
            plan=plan,
        )

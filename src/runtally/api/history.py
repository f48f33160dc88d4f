"""The service behind the routes: views of all shards, refreshed for each request, answers made from them.

A refresh is one MULTI over all shards. Requests take turns at refreshing, and what one has read the next one finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from redis.asyncio import Redis

from ..core.bins import Bins
from ..core.request import NO_FILTERS, Filters, HistoryRequest
from ..errors import BusyError, FilterNotSupportedError, NotReadyError, RuntallyError
from ..settings import Settings
from ..store.connect import connect
from ..store.keys import CATALOG, Keys
from ..store.ledger import Ledger, Live, decode, read_live
from ..store.link import Command, Link
from ..store.view import Place, View
from .answer import Attempt, attempt
from .service import CountAnswer, HistoryAnswer, Stand

log = logging.getLogger(__name__)

_MAX_ROUNDS = 40


class History:
    """Answers from Redis. See `service.HistoryService` for the promises."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._redis: Redis | None = None
        self._link: Link | None = None
        self._live: Live | None = None
        self._views: list[View] = []
        self._catalog: Ledger | None = None
        self._turn = asyncio.Lock()
        self._connecting: asyncio.Task[None] | None = None
        self._trouble = "not connected to Redis yet"

    async def start(self) -> None:
        """Begin to connect; requests before that get `NotReadyError`."""
        self._connecting = asyncio.create_task(self._connect())

    async def stop(self) -> None:
        """Disconnect."""
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        if self._link is not None:
            await self._link.close()
        if self._redis is not None:
            await self._redis.aclose()

    async def ready(self) -> None:
        """Return if an answer would be complete now."""
        async with self._turn:
            await self._refresh({})
        ledgers = {view.shard: view.ledger for view in self._views}
        if self._catalog is not None:
            ledgers[CATALOG] = self._catalog
        behind = [name for name, ledger in ledgers.items() if not ledger.caught_up]
        if behind:
            raise NotReadyError(f"catching up with the log: shards {', '.join(behind)}")

    async def history(self, request: HistoryRequest, now_us: int) -> HistoryAnswer:
        """Answer from cells, with raw runs where a zone map says *some*."""
        if request.filters != NO_FILTERS:
            raise FilterNotSupportedError(request.filters.given()[0])
        bins = request.resolve(now_us)
        found = await self._answer(bins, now_us)
        assert found.entries is not None
        plan = f"cells={found.cells}; raw_minutes={found.raw_minutes}; raw_runs={found.raw_rows}"
        return HistoryAnswer(bins, found.entries, self._stand(now_us, plan))

    async def count(self, filters: Filters, now_us: int) -> CountAnswer:
        """Not answered yet: needs the raw scan."""
        raise FilterNotSupportedError("task_runs/count")

    async def _answer(self, bins: Bins, now_us: int) -> Attempt:
        missing: dict[int, list[Place]] = {}
        async with self._turn:
            for _ in range(_MAX_ROUNDS):
                await self._refresh(missing)
                found = attempt(self._views, bins, now_us)
                if found.entries is not None:
                    for view in self._views:
                        view.trim()
                    return found
                missing = found.missing
        raise BusyError("the runs of this range change faster than they can be read")

    async def _refresh(self, wanted: dict[int, list[Place]]) -> None:
        """Move every view to one state of all shards, reading what is wanted by position."""
        link = await self._linked()
        while True:
            commands: list[Command] = []
            spans: list[tuple[View, list[Place], int, int]] = []
            for position, view in enumerate(self._views):
                places = wanted.get(position, [])
                reads = view.reads(places)
                spans.append((view, places, len(commands), len(commands) + len(reads)))
                commands += reads
            assert self._live is not None
            commands.append(("HGETALL", Keys(self._settings.redis_prefix, self._live.generation, CATALOG).ledger))
            replies = await link.transaction(commands)
            assert replies is not None
            for view, places, begin, end in spans:
                view.take(places, replies[begin:end])
            self._catalog = decode(replies[-1])
            for view in self._views:
                _ = view.ledger
            if self._catalog is None:
                raise NotReadyError("the catalog has no ledger yet: no worker has been assigned its partition")
            if all(view.fresh for view in self._views):
                return
            wanted = {}

    async def _linked(self) -> Link:
        if self._link is None or self._redis is None:
            raise NotReadyError(self._trouble)
        live = await read_live(self._redis, self._settings) if not self._views else self._live
        if live is None:
            raise NotReadyError("no worker has started yet: there is no data under this prefix in Redis")
        if live != self._live:
            self._live = live
            budget = self._settings.api_cache // live.partitions
            self._views = [
                View(self._settings.redis_prefix, live.generation, str(shard), budget)
                for shard in range(live.partitions)
            ]
        return self._link

    async def _connect(self) -> None:
        self._trouble = "waiting for Redis"
        try:
            self._redis = await connect(self._settings)
            self._link = Link(self._redis)
        except RuntallyError as error:
            log.error("%s", error)
            self._trouble = str(error)

    def _stand(self, now_us: int, plan: str) -> Stand:
        ledgers = {view.shard: view.ledger for view in self._views}
        assert self._catalog is not None
        ledgers = {CATALOG: self._catalog, **ledgers}
        return Stand(
            now_us,
            {name: ledger.next for name, ledger in ledgers.items()},
            {name: ledger.epoch for name, ledger in ledgers.items()},
            plan=plan,
        )

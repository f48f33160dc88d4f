"""All shards as this process knows them: views, the catalog, and the refresh that moves them together.

A refresh reads each shard that has moved in one MULTI, so everything that is read of a shard without awaiting is of one
state of it. Shards share no state: Redis works on the next one while a view takes the last.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from ..errors import NotReadyError, RuntallyError, UnfitServerError
from ..settings import Settings
from ..store.catalog_copy import CatalogCopy
from ..store.connect import connect
from ..store.keys import CATALOG, live_key
from ..store.ledger import Ledger, Live, check_scopes, live_of, read_live_command
from ..store.link import Command, Link, ReadLink, Taker
from ..store.places import Place
from ..store.scripts import STILL
from ..store.view import View

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger(__name__)
SUMS_PART = 4
"""The share of the cache's memory that sums over the shards may take: a fourth; copies of shards take the rest."""

_LIVE: Final = 0
_FIRST_VIEW: Final = 2
"""Where in what `STILL` says the live generation and the first view stand; between them stands the catalog."""

Wanted = Mapping[int, Sequence[Place]]
"""By a view's position, what to read."""


class Shards:
    """Use `async with shards.turn:` around a refresh and whatever has to see its state, and nothing newer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._redis: Redis | None = None
        self._link: Link | None = None
        self._besides: list[Link] = []
        # The generation that is followed, and what the key said that names it.
        self._live: Live | None = None
        self._said: list[bytes] = []
        # Asks which of all that is known has moved; None while not all of it is known.
        self._still: Command | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._trouble = "not connected to Redis yet"
        self._catalog: CatalogCopy | None = None
        self.turn = asyncio.Lock()
        # When the last whole refresh began, by the monotonic clock in seconds.
        self._seen_s = -math.inf
        self.views: list[View] = []

    @property
    def catalog(self) -> CatalogCopy:
        """The catalog, as of the last refresh."""
        if self._catalog is None:
            raise NotReadyError(self._trouble)
        return self._catalog

    def start(self) -> None:
        """Begin to connect; a refresh before that raises `NotReadyError`."""
        self._connecting = asyncio.create_task(self._connect())

    async def stop(self) -> None:
        """Disconnect."""
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        for link in (self._link, *self._besides):
            if link is not None:
                await link.close()
        if self._redis is not None:
            await self._redis.aclose()

    def ledgers(self) -> dict[str, Ledger]:
        """Every shard's ledger by its name, the catalog's first."""
        return {CATALOG: self.catalog.ledger, **{view.shard: view.ledger for view in self.views}}

    def link_besides(self) -> Link:
        """One more connection, for reads beside refreshes; only after a refresh."""
        assert self._redis is not None
        self._besides.append(ReadLink(self._redis))
        return self._besides[-1]

    async def refresh(self, wanted: Wanted) -> bool:
        """Move to the newest state, reading what is wanted besides; False if that is where it was. Raises
        `NotReadyError`, `ServerLostError`."""
        began_s = time.monotonic()
        link = await self._linked()
        chosen: Collection[int] = range(len(self.views))
        if self._still is not None and not any(wanted.values()):
            (moved,) = await link.call([self._still])
            if not moved:
                self._seen_s = began_s
                return False
            if _LIVE not in moved:
                chosen = [at - _FIRST_VIEW for at in moved if at >= _FIRST_VIEW]
        await self._move(link, chosen, wanted, along=True)
        self._seen_s = began_s
        return True

    async def read(self, wanted: Wanted, *, along: bool) -> None:
        """Read what is wanted, moving only the views that it is wanted of: enough where the last refresh is new enough
        for the question and nothing was read beside it. `along` as for `View.reads`. Raises as `refresh` does."""
        await self._move(await self._linked(), [at for at, places in wanted.items() if places], wanted, along=along)

    async def _move(self, link: Link, chosen: Collection[int], wanted: Wanted, *, along: bool) -> None:
        """Move the chosen views, and all if another generation is live; for `along` see `View.reads`."""
        self._still = None
        while True:
            followed = self._live
            views = [self.views[position] for position in chosen]
            reads = (
                view.reads(wanted.get(position, ()), along=along) for position, view in zip(chosen, views, strict=True)
            )

            def of_followed(take: Taker, followed: Live | None = followed) -> Taker:
                def taker(replies: list[Any]) -> None:
                    self._note_live(replies[0])
                    if self._live is followed:
                        take(replies[1:])

                return taker

            live = read_live_command(self._settings)
            await link.transactions(
                ([live, *commands] for commands in chain([[self.catalog.read()]], reads)),
                map(of_followed, [self.catalog.take, *(view.take for view in views)]),
            )
            if self._live is not followed:
                chosen, wanted = range(len(self.views)), {}
                continue
            for view in views:
                check_scopes(view.shard, view.ledger)
            chosen, wanted = [at for at in chosen if not self.views[at].fresh], {}
            if not chosen:
                self._note_stands()
                return

    def seen_since(self, instant_s: float) -> bool:
        """Whether what is known is of a refresh that began at an instant of the monotonic clock, or later, and of use
        as it is: others' questions are answered from it too."""
        return self._seen_s >= instant_s and all(view.fresh for view in self.views)

    def kept_bytes(self) -> dict[str, int]:
        """About what copies take: of cells, and of decoded runs."""
        return {
            "cells": sum(view.kept_bytes for view in self.views),
            "runs": sum(view.blocks.weight for view in self.views),
        }

    def trim(self) -> None:
        """Keep within the memory budget: between answers."""
        for view in self.views:
            view.trim()

    def trim_blocks(self) -> None:
        """The same for blocks: while no scan gathers them."""
        for view in self.views:
            view.trim_blocks()

    def _note_stands(self) -> None:
        stands = [self.catalog.stand, *(view.stand for view in self.views)]
        keys = [live_key(self._settings.redis_prefix), *(stand[0] for stand in stands)]
        said = [b" ".join(self._said), *chain.from_iterable(stand[1:] for stand in stands)]
        self._still = ("EVAL", STILL, len(keys), *keys, *said)

    async def _linked(self) -> Link:
        if self._link is None:
            raise NotReadyError(self._trouble)
        if self._live is None:
            (said,) = await self._link.call([read_live_command(self._settings)])
            self._note_live(said)
            if self._live is None:
                raise NotReadyError("no worker has started yet: there is no data under this prefix in Redis")
        return self._link

    def _note_live(self, said: list[bytes]) -> None:
        """Follow another generation from now on if that is what the `live` key says.

        Raises `NotReadyError` for one of another format.
        """
        if said == self._said:
            return
        live, self._said = live_of(said), said
        if live is None:
            return
        try:
            live.check_format(self._settings)
        except UnfitServerError as error:
            self._said = []
            raise NotReadyError(str(error)) from None
        before = self._live
        if before is not None and (before.generation, before.partitions) == (live.generation, live.partitions):
            return
        self._live = live
        prefix, generation = self._settings.redis_prefix, live.generation
        if self._catalog is None:
            self._catalog = CatalogCopy(prefix, generation)
        self._catalog.follow(prefix, generation)
        budget = (self._settings.api_cache - self._settings.api_cache // SUMS_PART) // live.partitions
        for view in self.views:
            view.follow(prefix, generation)
        further = range(len(self.views), live.partitions)
        self.views += [View(prefix, generation, str(shard), budget) for shard in further]
        del self.views[live.partitions :]

    async def _connect(self) -> None:
        self._trouble = "waiting for Redis"
        try:
            self._redis = await connect(self._settings, any_format=True)
            self._link = ReadLink(self._redis)
        except RuntallyError as error:
            log.error("%s", error)
            self._trouble = str(error)

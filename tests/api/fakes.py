"""A service for tests of the HTTP layer alone: it remembers what it was asked and answers what it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from runtally.api import create_app
from runtally.api.service import CountAnswer, Explanation, Figures, HistoryAnswer, Stand, Way, Work
from runtally.core.combine import Entry
from runtally.core.request import Filters, HistoryRequest
from runtally.settings import load

NOW_US = 1_625_097_600_000_000


@dataclass
class Service:
    """`states` are in every bin; `trouble`, if set, is raised instead of an answer."""

    states: Sequence[Entry] = ()
    trouble: Exception | None = None
    exact: bool = True
    requests: list[HistoryRequest] = field(default_factory=list)
    filters: list[Filters] = field(default_factory=list)
    running: bool = False

    async def start(self) -> None:
        self.running = True

    async def stop(self) -> None:
        self.running = False

    async def ready(self) -> dict[str, int]:
        self._fail()
        return {}

    async def history(self, request: HistoryRequest, now_us: int) -> HistoryAnswer:
        self.requests.append(request)
        self._fail()
        bins = request.resolve(now_us)
        return HistoryAnswer(bins, [self.states] * bins.count, self._stand(now_us))

    async def count(self, filters: Filters, now_us: int) -> CountAnswer:
        self.filters.append(filters)
        self._fail()
        return CountAnswer(7, self._stand(now_us))

    async def explain(self, request: HistoryRequest, now_us: int) -> Explanation:
        self.requests.append(request)
        self._fail()
        ways = [Way("all", 1, 2, 0, taken=True)]
        bins = request.resolve(now_us)
        return Explanation(bins, False, [], Work(1, 0, 0), Work(1, 0, 0), ways, [], self._stand(now_us))

    async def figures(self) -> Figures:
        self._fail()
        return Figures({"RUNNING": 3, "OTHER": 0}, {"0": 5, "c": 1}, {"cells": 100}, 2, 1)

    def _stand(self, now_us: int) -> Stand:
        frozen = None if self.exact else NOW_US - 1_000_000
        return Stand(now_us, {"10": 1, "2": 20, "c": 3}, {}, exact=self.exact, frozen_before_us=frozen)

    def _fail(self) -> None:
        if self.trouble is not None:
            raise self.trouble


@asynccontextmanager
async def client_of(service: Service, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(load(settings), clock=lambda: NOW_US, history=service)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client

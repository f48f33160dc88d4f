"""The API in this process, asked over HTTP with a frozen clock, and held against the reference."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from runtally.api import create_app
from runtally.settings import Settings

from .reference import Reference

HISTORY = "/api/task_runs/history"

Question = tuple[dict[str, Any], int]
"""A history body, and `now` in µs."""


class Asking:
    """A client of the application with the real service behind it; `now_us` is what its clock says."""

    def __init__(self, client: httpx.AsyncClient, now_us: int) -> None:
        self.client = client
        self.now_us = now_us

    async def history(self, body: dict[str, Any]) -> httpx.Response:
        return await self.client.post(HISTORY, json=body)

    async def ready(self) -> httpx.Response:
        return await self.client.get("/api/ready")

    async def until_ready(self, timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while (answer := await self.ready()).status_code != 200:
            assert time.monotonic() < deadline, answer.text
            await asyncio.sleep(0.05)

    async def until_equal(self, reference: Reference, questions: Iterable[Question], timeout_s: float = 50) -> None:
        """Wait until every answer is the reference's, exactly, and see that they stay so."""
        expected = [(body, now_us, reference.history(body, now_us)) for body, now_us in questions]
        assert any(bin_["states"] for _, _, bins in expected for bin_ in bins), "nothing is asked for"
        deadline = time.monotonic() + timeout_s
        while (different := await self._first_difference(expected)) is not None:
            assert time.monotonic() < deadline, different
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.3)
        assert await self._first_difference(expected) is None, "counted again"

    async def _first_difference(self, expected: list[tuple[dict[str, Any], int, Any]]) -> str | None:
        for body, now_us, bins in expected:
            self.now_us = now_us
            answer = await self.history(body)
            if answer.status_code == 503:
                return answer.text
            assert answer.status_code == 200, answer.text
            if answer.json() != bins:
                return f"{body} at {now_us}: {answer.json()} instead of {bins}, {answer.headers['x-runtally-at']}"
        return None


@asynccontextmanager
async def asking(settings: Settings, now_us: int = 0) -> AsyncIterator[Asking]:
    """`async with asking(settings, now_us) as api`: the application runs in between."""
    app = create_app(settings, clock=lambda: api.now_us)
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://test", timeout=30
    )
    api = Asking(client, now_us)
    async with app.router.lifespan_context(app), client:
        yield api

"""The worker's small HTTP server: `/metrics` for Prometheus, `/health` for people and probes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web

from ..errors import SettingError
from ..metrics import CONTENT_TYPE, Metrics
from ..settings import Settings


@contextlib.asynccontextmanager
async def serve(settings: Settings, metrics: Metrics, health: Callable[[], dict[str, Any]]) -> AsyncIterator[None]:
    """Serve while the context lasts. `health` gives the JSON of `/health`; its `ok` decides between 200 and 503.

    Raises `SettingError` when the port is taken.
    """

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def show_health(_: web.Request) -> web.Response:
        found = health()
        return web.json_response(found, status=200 if found["ok"] else 503)

    app = web.Application()
    app.add_routes([web.get("/metrics", show_metrics), web.get("/health", show_health)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.metrics_host, settings.metrics_port).start()
    except OSError as error:
        await runner.cleanup()
        raise SettingError("RUNTALLY_METRICS_PORT", f"cannot listen on {settings.metrics_port}: {error}") from None
    try:
        yield
    finally:
        await runner.cleanup()

"""The ASGI application: routes, middleware, errors and the service behind them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from ..settings import Settings
from . import docs, errors, garbage, schema
from .encode import HEADERS
from .events import Intake
from .lag import Lag
from .routes import Context, router
from .service import HistoryService
from .watching import Watching

_METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_GZIP_FROM_BYTES: Final = 500
# Level 9 takes four times as long as 4 for a twentieth less.
_GZIP_LEVEL: Final = 4


def wall_clock_us() -> int:
    """The time of the machine in µs since the epoch."""
    return time.time_ns() // 1000


def create_app(
    settings: Settings, clock: Callable[[], int] | None = None, history: HistoryService | None = None
) -> FastAPI:
    """The application; `clock` gives µs since the epoch (tests freeze it), `history` answers in place of Redis."""
    service = history if history is not None else _history(settings)
    intake = Intake(settings)
    lag = Lag(settings)
    watching = Watching(service, lag)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        lag.start()
        collecting = asyncio.create_task(garbage.collect_at_times())
        try:
            yield
        finally:
            collecting.cancel()
            await asyncio.gather(collecting, return_exceptions=True)
            await lag.stop()
            await intake.close()
            await service.stop()

    app = FastAPI(
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        middleware=[
            Middleware(
                CORSMiddleware, allow_origins=["*"], allow_methods=_METHODS, allow_headers=["*"], expose_headers=HEADERS
            ),
            Middleware(GZipMiddleware, minimum_size=_GZIP_FROM_BYTES, compresslevel=_GZIP_LEVEL),
        ],
    )
    errors.install(app, watching.refused)
    app.include_router(router(Context(settings, clock or wall_clock_us, service, intake, lag, watching)))
    docs.install(app)
    schema.install(app)
    return app


def _history(settings: Settings) -> HistoryService:
    from .history import History

    return History(settings)

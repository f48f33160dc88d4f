"""The routes: Prefect's own paths as Prefect has them, ours under /runtally/api."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ..errors import NotReadyError
from ..events.intake import MAX_BODY_BYTES
from ..metrics import CONTENT_TYPE
from ..settings import Settings
from .body import read_body, validated
from .encode import encode_history, explanation_json, stand_headers
from .errors import json_response
from .events import Intake
from .lag import Lag
from .models import CountBody, HistoryBody, filters_of, history_request
from .schema import COUNT, EVENTS, EXPLAIN, HEALTH, HISTORY, METRICS, OUR_VERSION, READY, VERSION
from .service import HistoryService, Stand
from .versions import API_VERSION, check_api_version
from .watching import Watching

PREFECT_PREFIXES: Final = ("/api", "")
"""Where Prefect mounts its API, and where a caller that has stripped the prefix finds it."""
READY_RETRY_S: Final = 2


@dataclass(frozen=True, slots=True)
class Context:
    """What the routes work with; `clock` gives µs since the epoch."""

    settings: Settings
    clock: Callable[[], int]
    history: HistoryService
    intake: Intake
    lag: Lag
    watching: Watching


def router(context: Context) -> APIRouter:
    """All routes, bound to a context."""
    routes = APIRouter()

    def headers(route: str, stand: Stand, began: float) -> dict[str, str]:
        spent_s = time.perf_counter() - began
        context.watching.answered(route, stand, spent_s)
        return stand_headers(stand, spent_s, context.lag.behind(stand.ledger))

    async def history(request: Request) -> Response:
        check_api_version(request)
        began = time.perf_counter()
        body = await validated(request, HistoryBody, context.settings.max_body)
        answer = await context.history.history(history_request(body), context.clock())
        content = encode_history(answer)
        return Response(content, headers=headers("history", answer.stand, began), media_type="application/json")

    async def explain(request: Request) -> Response:
        check_api_version(request)
        began = time.perf_counter()
        body = await validated(request, HistoryBody, context.settings.max_body)
        found = await context.history.explain(history_request(body), context.clock())
        return json_response(explanation_json(found), headers=headers("explain", found.stand, began))

    async def count(request: Request) -> Response:
        check_api_version(request)
        began = time.perf_counter()
        body = await validated(request, CountBody, context.settings.max_body)
        answer = await context.history.count(filters_of(body), context.clock())
        return json_response(answer.count, headers=headers("count", answer.stand, began))

    async def health() -> Response:
        return json_response(True)

    async def ready() -> Response:
        try:
            context.lag.check(await context.history.ready())
        except NotReadyError as error:
            return json_response({"message": str(error)}, 503, {"Retry-After": str(READY_RETRY_S)})
        return json_response({"message": "OK"})

    async def metrics() -> Response:
        return Response(await context.watching.text(), media_type=CONTENT_TYPE)

    async def api_version() -> Response:
        return json_response(API_VERSION)

    async def our_version() -> Response:
        return json_response({"version": version("runtally"), "api_version": API_VERSION})

    async def events(request: Request) -> Response:
        body = await read_body(request, MAX_BODY_BYTES)
        accepted, ignored = await context.intake.accept(body, request.headers.get("content-type"))
        return json_response({"accepted": accepted, "ignored": ignored}, 202)

    def add(
        path: str, endpoint: Callable[..., Any], method: str, operation: dict[str, Any], *, shown: bool = True
    ) -> None:
        name = endpoint.__name__
        routes.add_api_route(path, endpoint, methods=[method], name=name, include_in_schema=shown, **operation)

    for prefix in PREFECT_PREFIXES:
        shown = bool(prefix)
        add(f"{prefix}/task_runs/history", history, "POST", HISTORY, shown=shown)
        add(f"{prefix}/task_runs/count", count, "POST", COUNT, shown=shown)
    add("/api/health", health, "GET", HEALTH)
    add("/api/ready", ready, "GET", READY)
    add("/metrics", metrics, "GET", METRICS)
    add("/api/version", api_version, "GET", VERSION)
    add("/runtally/api/task_runs/history/explain", explain, "POST", EXPLAIN)
    add("/runtally/api/version", our_version, "GET", OUR_VERSION)
    add("/runtally/api/events", events, "POST", EVENTS)
    return routes

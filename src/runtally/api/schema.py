"""The OpenAPI document: what each route takes and answers.

The routes read their bodies themselves, so FastAPI cannot derive this; it is said here, with the bodies'
schemas from the same models that validate them.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from ..core.levels import LEVELS
from ..core.scopes import SCOPES
from ..events.intake import MAX_EVENTS
from .encode import AT, EXACT, LAG, PLAN, TIMING
from .errors import MEANINGS
from .explain import MAX_LINE, SCAN
from .models import CountBody, HistoryBody
from .versions import API_VERSION, VERSION_HEADER

_JSON: Final = "application/json"
_REF: Final = "#/components/schemas/{model}"

_STATE_OF_BIN: Final = {
    "type": "object",
    "required": [
        "state_type",
        "state_name",
        "count_runs",
        "sum_estimated_run_time",
        "sum_estimated_lateness",
    ],
    "properties": {
        "state_type": {"$ref": _REF.format(model="StateType")},
        "state_name": {"type": "string"},
        "count_runs": {"type": "integer", "minimum": 1},
        "sum_estimated_run_time": {"type": "number", "minimum": 0, "description": "Seconds."},
        "sum_estimated_lateness": {"type": "number", "minimum": 0, "description": "Seconds."},
    },
}
_BIN: Final = {
    "type": "object",
    "required": ["interval_start", "interval_end", "states"],
    "properties": {
        "interval_start": {"type": "string", "format": "date-time"},
        "interval_end": {"type": "string", "format": "date-time"},
        "states": {"type": "array", "items": {"$ref": _REF.format(model="StateOfBin")}},
    },
}
_NUMBER: Final = {"type": "integer", "minimum": 0}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


_WORK: Final = _object(
    buckets={**_NUMBER, "description": "Buckets of cells."},
    raw_minutes={**_NUMBER, "description": "Minutes whose raw runs are read, each once a shard."},
    raw_rows={**_NUMBER, "description": "Raw runs."},
)
_EXPLANATION: Final = _object(
    plan={"type": "string", "description": "The same in a line, as in the header of an answer."},
    answered_by={"enum": ["cells", SCAN]},
    bins=_object(
        start={"type": "string", "format": "date-time"},
        end={"type": "string", "format": "date-time"},
        count=_NUMBER,
        seconds={"type": "number"},
    ),
    parts={
        "type": "array",
        "description": "What came from cells, by kind of scope and level.",
        "items": _object(
            scope={"enum": [scope.name for scope in SCOPES]},
            level={"enum": [level.name for level in LEVELS]},
            buckets=_NUMBER,
            cells=_NUMBER,
        ),
    },
    estimated={**_WORK, "description": "What could be told beforehand; runs from how many there are on average."},
    real={**_WORK, "description": "What it took."},
    ways={
        "type": "array",
        "description": "The ways in which it can be answered, the one that was taken first, and about what each costs.",
        "items": _object(
            way={"enum": [*(scope.name for scope in SCOPES), SCAN], "description": "Whose cells, or a scan."},
            taken={"type": "boolean"},
            buckets=_NUMBER,
            values={**_NUMBER, "description": "Values of Redis to read at most, when nothing is held here."},
            raw_rows=_NUMBER,
        ),
    },
    because={
        "type": "array",
        "description": "Why raw runs were needed; empty when none were.",
        "items": _object(
            about={"type": "string", "description": "The filter as it was written, or what divides minutes."},
            raw_minutes={"type": ["integer", "null"], "description": "How many minutes; null: all of the range."},
            why={"type": "string"},
            instead={"type": "string", "description": "What would avoid it."},
        ),
    },
)
_REFUSAL: Final = {
    "type": "object",
    "properties": {
        "detail": {"type": "string", "description": "What is wrong and what would help."},
        "exception_message": {"type": "string"},
        "exception_detail": {"type": "array", "items": {"type": "object"}},
        "request_body": {},
        "index": {"type": ["integer", "null"], "description": "Which event is bad, counted from 0."},
    },
}
_STAND_HEADERS: Final = {
    AT: {
        "description": "Of which state of the log the answer is true: now, and the next offset of each shard.",
        "schema": {"type": "string"},
    },
    EXACT: {
        "description": "Only there, and `false`, where old runs were decided by whole minutes.",
        "schema": {"type": "string"},
    },
    PLAN: {
        "description": "How the answer was found: cells, their scopes and levels, and minutes/runs that were read raw; "
        "or a scan of raw runs, and the filters for which it was needed.",
        "schema": {"type": "string", "maxLength": MAX_LINE, "examples": ["cells=412 scopes=all:1h,all:1m raw=3m/57r"]},
    },
    LAG: {
        "description": "How many events of the log, as of some seconds ago, are not in the answer yet; not there when "
        "that is not known.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    TIMING: {
        "description": "Milliseconds: of reading from Redis, of planning or scanning, in total.",
        "schema": {"type": "string", "examples": ["read;dur=1.2, plan;dur=0.9, total;dur=2.6"]},
    },
}
_VERSION_PARAMETER: Final = {
    "name": VERSION_HEADER,
    "in": "header",
    "required": False,
    "description": "The version of Prefect's API that the client speaks, as x.y.z; optional.",
    "schema": {"type": "string", "pattern": r"^[0-9]+\.[0-9]+\.[0-9]+$", "examples": [API_VERSION]},
}


def _answers(status: int, what: str, content: Any, *refusals: int, headers: Any = None) -> dict[int | str, Any]:
    good: dict[str, Any] = {"description": what, "content": {_JSON: {"schema": content}}}
    if headers:
        good["headers"] = headers
    refused: dict[int | str, Any] = {
        code: {"description": MEANINGS[code], "content": {_JSON: {"schema": {"$ref": _REF.format(model="Refusal")}}}}
        for code in refusals
    }
    return {status: good, **refused}


def _body(model: str, *, required: bool) -> dict[str, Any]:
    schema = {"$ref": _REF.format(model=model)}
    return {
        "requestBody": {"required": required, "content": {_JSON: {"schema": schema}}},
        "parameters": [_VERSION_PARAMETER],
    }


_REFUSALS: Final = (400, 413, 422, 503)
"""The codes of what is asked of runs and not answered."""
_EVENT: Final = {
    "type": "object",
    "description": "An event of our own contract (docs/events.md), or one of Prefect's.",
}

HISTORY: Final[dict[str, Any]] = {
    "summary": "Task runs by time and state",
    "description": "Bins of equal width over the range, at most 500. Each holds the task runs expected to start in "
    "it, counted by their current state, with the sums of their run time and lateness.",
    "responses": _answers(
        200,
        "The bins, in order.",
        {"type": "array", "items": {"$ref": _REF.format(model="Bin")}},
        *_REFUSALS,
        headers=_STAND_HEADERS,
    ),
    "openapi_extra": _body("TaskRunHistory", required=True),
    "tags": ["Task runs"],
}
EXPLAIN: Final[dict[str, Any]] = {
    "summary": "How a history is answered",
    "description": "Finds the answer to the same body as the history's, and tells what it was made from, what that "
    "took, which other ways there were, and why raw runs were needed.",
    "responses": _answers(
        200,
        "The plan.",
        {"$ref": _REF.format(model="Explanation")},
        *_REFUSALS,
        headers=_STAND_HEADERS,
    ),
    "openapi_extra": _body("TaskRunHistory", required=True),
    "tags": ["Task runs"],
}
COUNT: Final[dict[str, Any]] = {
    "summary": "Number of task runs",
    "description": "How many task runs the filters select, with or without an expected start time.",
    "responses": _answers(200, "The number.", {"type": "integer", "minimum": 0}, *_REFUSALS, headers=_STAND_HEADERS),
    "openapi_extra": _body("TaskRunCount", required=False),
    "tags": ["Task runs"],
}
EVENTS: Final[dict[str, Any]] = {
    "summary": "Publish events",
    "description": "A JSON array of events or NDJSON, at most 8 MiB and 10,000 events. All are checked first; a bad "
    "one refuses the request as a whole and is named by its index. The answer comes once the broker has them.",
    "status_code": 202,
    "responses": _answers(
        202,
        "The broker has them.",
        {
            "type": "object",
            "required": ["accepted", "ignored"],
            "properties": {
                "accepted": {"type": "integer", "minimum": 0},
                "ignored": {"type": "integer", "minimum": 0, "description": "Prefect's events about other things."},
            },
        },
        413,
        422,
        503,
    ),
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                _JSON: {"schema": {"type": "array", "maxItems": MAX_EVENTS, "items": _EVENT}},
                "application/x-ndjson": {"schema": {"type": "string"}},
            },
        }
    },
    "tags": ["Events"],
}
HEALTH: Final[dict[str, Any]] = {
    "summary": "Whether the process answers",
    "responses": _answers(200, "It does.", {"const": True}),
    "tags": ["Service"],
}
READY: Final[dict[str, Any]] = {
    "summary": "Whether answers are complete",
    "responses": {
        **_answers(200, "They are.", {"type": "object", "properties": {"message": {"const": "OK"}}}),
        503: {
            "description": "They are not; the message says why.",
            "content": {_JSON: {"schema": {"type": "object", "properties": {"message": {"type": "string"}}}}},
        },
    },
    "tags": ["Service"],
}
METRICS: Final[dict[str, Any]] = {
    "summary": "What there is to watch, for Prometheus",
    "responses": {
        200: {"description": "docs/metrics.md says what each number means.", "content": {"text/plain": {}}},
    },
    "tags": ["Service"],
}
VERSION: Final[dict[str, Any]] = {
    "summary": "The version that Prefect's clients ask for",
    "responses": _answers(200, "x.y.z.", {"type": "string"}),
    "tags": ["Service"],
}
OUR_VERSION: Final[dict[str, Any]] = {
    "summary": "The version of runtally, and of Prefect's API it speaks",
    "responses": _answers(
        200,
        "Both versions.",
        {"type": "object", "properties": {"version": {"type": "string"}, "api_version": {"type": "string"}}},
    ),
    "tags": ["Service"],
}


def install(app: FastAPI) -> None:
    """Give the application its OpenAPI document, made once when it is first asked for."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title="runtally",
        version=version("runtally"),
        summary="The history of workflow runs, answered instantly however many runs there are.",
        routes=app.routes,
    )
    _, schemas = models_json_schema([(HistoryBody, "validation"), (CountBody, "validation")], ref_template=_REF)
    document.setdefault("components", {})["schemas"] = {
        **schemas["$defs"],
        "Bin": _BIN,
        "StateOfBin": _STATE_OF_BIN,
        "Explanation": _EXPLANATION,
        "Refusal": _REFUSAL,
    }
    return document

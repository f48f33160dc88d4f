"""What an exception becomes on the wire: one table of exception class, status and body.

User errors say what to do; system errors are 503 with Retry-After, because the request itself was right. What
is not in the table is a defect: it is logged and answered with 500 and nothing about it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ..errors import (
    BadEventError,
    BadRequestError,
    BusyError,
    NotReadyError,
    SystemError_,
    TooLargeError,
)
from .body import InvalidBodyError, echo

Body = Callable[[Any], dict[str, Any]]


class ApiVersionError(Exception):
    """The version header is malformed or names a version that is too old (HTTP 400)."""


class Row(NamedTuple):
    """How one class of exceptions is answered; `means` is the OpenAPI description of its status."""

    error: type[Exception]
    status: int
    body: Body
    means: str
    retry_after_s: int | None = None


def _detail(error: Exception) -> dict[str, Any]:
    return {"detail": str(error)}


def _bad_event(error: BadEventError) -> dict[str, Any]:
    return {"detail": f"{error}; nothing of this request was published", "index": error.index}


def _unavailable(error: Exception) -> dict[str, Any]:
    return {"exception_message": "Service Unavailable", "detail": str(error)}


def _invalid(error: InvalidBodyError) -> dict[str, Any]:
    return {
        "exception_message": "Invalid request received.",
        "exception_detail": echo(error.errors),
        "request_body": echo(error.body),
    }


def _internal(_: Exception) -> dict[str, Any]:
    return {"exception_message": "Internal Server Error"}


_BAD = "The body is not valid, or cannot be answered as asked."
_LATER = "The answer would be incomplete now, or too much is asked at once; try again."

# A class stands before its base classes.
ROWS: Final[tuple[Row, ...]] = (
    Row(ApiVersionError, 400, _detail, "The version header is malformed or too old."),
    Row(ClientDisconnect, 400, _detail, "The client went away."),
    Row(InvalidBodyError, 422, _invalid, _BAD),
    Row(BadRequestError, 422, _detail, _BAD),
    Row(BadEventError, 422, _bad_event, _BAD),
    Row(TooLargeError, 413, _detail, "The body is over its limit."),
    Row(BusyError, 503, _unavailable, _LATER),
    Row(NotReadyError, 503, _unavailable, _LATER, retry_after_s=2),
    Row(SystemError_, 503, _unavailable, _LATER, retry_after_s=5),
    Row(Exception, 500, _internal, "A defect of the server; its log says more."),
)
MEANINGS: Final[dict[int, str]] = {row.status: row.means for row in reversed(ROWS)}


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON with every character beyond ASCII escaped, so that whatever a body held can be repeated."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Response(text, status_code=status, headers=headers, media_type="application/json")


def install(app: FastAPI, count: Callable[[int], None]) -> None:
    """Answer the exceptions of the table; `count` is told each status."""
    for row in ROWS:
        app.add_exception_handler(row.error, _handler(row, count))


def _handler(row: Row, count: Callable[[int], None]) -> Callable[[Request, Exception], Response]:
    def handle(_: Request, error: Exception) -> Response:
        status = error.status if isinstance(error, TooLargeError) else row.status
        seconds = error.retry_after_s if isinstance(error, BusyError) else row.retry_after_s
        headers = None if seconds is None else {"Retry-After": str(seconds)}
        count(status)
        return json_response(row.body(error), status, headers)

    return handle

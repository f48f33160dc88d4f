"""The body of a POST: read within its limit, parsed, validated, and refused in Prefect's shape.

FastAPI would do this itself, but its errors have another shape, and it answers 500 or 400 where a body is too
deep, too long or no UTF-8.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from ..errors import TooLargeError

MAX_DEPTH: Final = 64
_NO_FIELDS: Final = "Field required"

Model = TypeVar("Model", bound=BaseModel)


class InvalidBodyError(Exception):
    """A body that does not validate: `errors` in pydantic's terms, and the body as far as it was parsed."""

    def __init__(self, errors: list[dict[str, Any]], body: Any) -> None:
        super().__init__("Invalid request received.")
        self.errors = errors
        self.body = body


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The raw body; `TooLargeError` (413) as soon as it is known to be longer than the limit."""
    message = f"The body is larger than the limit of {limit_bytes} bytes."
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit_bytes):
        raise TooLargeError(message, status=413)
    chunks: list[bytes] = []
    length = 0
    async for chunk in request.stream():
        length += len(chunk)
        if length > limit_bytes:
            raise TooLargeError(message, status=413)
        chunks.append(chunk)
    return b"".join(chunks)


async def validated(request: Request, model: type[Model], limit_bytes: int) -> Model:
    """The body as a model; raises `InvalidBodyError` with every error, or `TooLargeError`."""
    raw = await read_body(request, limit_bytes)
    if not raw:
        return _validate(None, None, model)
    if not is_json(request.headers.get("content-type")):
        return _validate(None, raw.decode("utf-8", "replace"), model)
    document = parse(raw)
    return _validate(document, document, model)


def is_json(content_type: str | None) -> bool:
    """Whether a body of this type is parsed: JSON of any kind, or no type at all."""
    if not content_type:
        return True
    kind, _, subtype = content_type.partition(";")[0].strip().lower().partition("/")
    return kind == "application" and (subtype == "json" or subtype.endswith("+json"))


def parse(raw: bytes) -> Any:
    """JSON, where a key given twice keeps its last value; anything else raises `InvalidBodyError`."""
    try:
        text = raw.decode(json.detect_encoding(raw))
    except UnicodeDecodeError as error:
        raise _not_json(error.start, "not valid Unicode", raw.decode("utf-8", "replace")) from None
    try:
        document = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise _not_json(error.pos, error.msg, text) from None
    except ValueError as error:
        # Also an integer of more digits than Python converts; what follows the semicolon is advice to programmers.
        raise _not_json(0, str(error).partition(";")[0], text) from None
    except RecursionError:
        raise _not_json(0, f"nested more than {MAX_DEPTH} deep", None) from None
    if _deeper_than(document, MAX_DEPTH):
        raise _not_json(0, f"nested more than {MAX_DEPTH} deep", None)
    return document


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")


def _not_json(offset: int, reason: str, text: str | None) -> InvalidBodyError:
    error = {
        "type": "json_invalid",
        "loc": ("body", offset),
        "msg": "JSON decode error",
        "input": {},
        "ctx": {"error": reason},
    }
    return InvalidBodyError([error], text)


def _deeper_than(document: Any, limit: int) -> bool:
    layer = [document]
    for _ in range(limit + 1):
        layer = [
            inner
            for value in layer
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not layer:
            return False
    return True


def _validate(document: Any, shown: Any, model: type[Model]) -> Model:
    """`document` None is no body; `shown` is what the answer repeats when something is wrong."""
    if document is not None and not isinstance(document, dict):
        # Prefect looks up each of its parameters in the body, and fails for each.
        raise InvalidBodyError([_missing(name) for name in model.model_fields], shown)
    given = {name: value for name, value in (document or {}).items() if value is not None}
    try:
        return model.model_validate(given, from_attributes=True)
    except ValidationError as error:
        raise InvalidBodyError([_reported(entry) for entry in error.errors(include_url=False)], shown) from None


def _missing(name: str) -> dict[str, Any]:
    return {"type": "missing", "loc": ("body", name), "msg": _NO_FIELDS, "input": None}


def _reported(entry: Any) -> dict[str, Any]:
    if entry["type"] == "missing":
        return _missing(entry["loc"][0])
    reported = {"type": entry["type"], "loc": ("body", *entry["loc"]), "msg": entry["msg"], "input": entry["input"]}
    if "ctx" in entry:
        context = {key: {} if isinstance(value, Exception) else value for key, value in entry["ctx"].items()}
        reported["ctx"] = context
    return reported


def echo(value: Any) -> Any:
    """A parsed body in a form that JSON can say: numbers beyond a double become null."""
    if isinstance(value, dict):
        return {key: echo(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [echo(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""Events by HTTP, without the HTTP: a body becomes events, and events become messages, all of them or none.

Limits: 8 MiB and 10,000 events a request.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from ..errors import BadEventError, TooLargeError
from ..settings import Settings
from .contract import bad
from .publish import Message, checked
from .wire import Ignored

MAX_BODY_BYTES: Final = 8 << 20
MAX_EVENTS: Final = 10_000
_NDJSON: Final = frozenset(
    {
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "application/jsonlines",
    }
)
_value = msgspec.json.Decoder(msgspec.Raw).decode
_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class Checked:
    """The messages to publish, and how many events were understood and are of no interest."""

    messages: Sequence[Message]
    ignored: int


def read_body(body: bytes, content_type: str | None) -> list[bytes]:
    """The events of a body, each as its bytes: a JSON array, or NDJSON (one event a line).

    What the content type does not say is told from the first character. Raises `TooLargeError` (413) over a limit and
    `BadEventError` for a body that is neither.
    """
    if len(body) > MAX_BODY_BYTES:
        raise TooLargeError(f"the body has more than {MAX_BODY_BYTES >> 20} MiB; send it in parts", 413)
    kind = (content_type or "").split(";")[0].strip().lower()
    text = body.strip()
    if kind not in _NDJSON and text.startswith(b"["):
        events = _elements(text)
    elif kind not in _NDJSON and _is_one_value(text):
        events = [text]
    else:
        events = [line for line in text.split(b"\n") if line.strip()]
    if len(events) > MAX_EVENTS:
        raise TooLargeError(f"the body has {len(events):,} events, {MAX_EVENTS:,} are allowed; send it in parts", 413)
    return events


def check_all(events: Sequence[bytes], settings: Settings, now_us: int | None = None) -> Checked:
    """The messages of all events; `now_us` stands for the records' timestamp.

    Raises `BadEventError` with the `index` of the first bad one.
    """
    moment_us = time.time_ns() // 1000 if now_us is None else now_us
    found = []
    for index, event in enumerate(events):
        try:
            found.append(checked(event, settings, moment_us))
        except BadEventError as error:
            raise BadEventError(error.reason, error.detail, index) from None
    messages = [each for each in found if not isinstance(each, Ignored)]
    return Checked(messages, len(found) - len(messages))


def _elements(text: bytes) -> list[bytes]:
    try:
        return [bytes(element) for element in _array(text)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad("not JSON", f"the body is no JSON array: {error}") from None


def _is_one_value(text: bytes) -> bool:
    try:
        _value(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True

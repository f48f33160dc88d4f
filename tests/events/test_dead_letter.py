"""A dead letter holds what is needed to understand and to send again, and always fits into a message."""

from __future__ import annotations

from typing import Any

import pytest

from runtally.errors import BadEventError
from runtally.events.dead_letter import MAX_VALUE_BYTES, DeadLetter, dead_letter

PLACE: dict[str, Any] = {"topic": "t.runs", "partition": 3, "offset": 41, "timestamp_ms": 1_795_514_493_118}


def letter(key: bytes | None = b"k", value: bytes | None = b"{", headers: list[tuple[str, bytes]] | None = None) -> Any:
    return dead_letter(BadEventError("not JSON", "ü at byte 1"), key=key, value=value, headers=headers or [], **PLACE)


def test_it_says_why_and_from_where() -> None:
    # What comes back from Kafka is key, value and headers.
    written = letter(headers=[("trace", b"\xff")])
    found = DeadLetter(written.key, written.value, tuple(written.headers))
    assert (found.reason, found.detail) == ("not JSON", "ü at byte 1")
    assert found.place == ("t.runs", 3, 41)
    assert found.timestamp_ms == 1_795_514_493_118
    assert (found.key, found.value, found.original_headers) == (b"k", b"{", [("trace", b"\xff")])
    assert not found.shortened


@pytest.mark.parametrize("size", [0, MAX_VALUE_BYTES, MAX_VALUE_BYTES + 1, 5 << 20])
def test_it_holds_at_most_the_first_64_kib(size: int) -> None:
    found = letter(value=b"x" * size)
    assert found.value == b"x" * min(size, 65_536)
    assert found.shortened == (size > 65_536)


def test_a_record_without_key_or_value_keeps_none() -> None:
    found = letter(key=None, value=None)
    assert (found.key, found.value, found.shortened) == (None, None, False)


def test_a_record_of_headers_and_key_still_fits() -> None:
    many = [(f"h{number}", b"x" * 1000) for number in range(1000)]
    found = letter(key=b"k" * (1 << 20), value=b"v" * (1 << 20), headers=many)
    held = found.key + found.value + b"".join(name.encode() + content for name, content in found.headers)
    assert len(held) < 200_000
    assert found.original_headers == many[: len(found.original_headers)]


def test_a_dead_letter_of_a_dead_letter_tells_the_later_reason() -> None:
    first = letter()
    second = dead_letter(
        BadEventError("wrong topic", "x" * 5000), key=first.key, value=first.value, headers=first.headers, **PLACE
    )
    assert second.reason == "wrong topic"
    assert len(second.detail) == 1000
    assert second.original_headers == first.headers

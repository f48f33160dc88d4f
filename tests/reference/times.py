"""Texts and instants: integer µs since the epoch from what producers and clients may write, and back."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation

SECOND_US = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST_EVENT_US = 0
AFTER_LATEST_EVENT_US = (date(2200, 1, 1) - date(1970, 1, 1)).days * 86_400 * SECOND_US

RFC_3339 = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)[Tt ](?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)(?:\.(?P<fraction>\d+))?"
    r"(?P<offset>[Zz]|[+-]\d\d:\d\d)",
    re.ASCII,
)
IN_A_BODY = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)"
    r"(?:[Tt ](?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9}))?)?"
    r"(?P<offset>[Zz]|[+-]\d\d:?\d\d)?)?",
    re.ASCII,
)


def event_time_us(text: str) -> int:
    """A time in an event: RFC 3339 with an offset, in 1970…2199; ValueError otherwise."""
    instant = _instant_us(RFC_3339.fullmatch(text))
    if not EARLIEST_EVENT_US <= instant < AFTER_LATEST_EVENT_US:
        raise ValueError("outside 1970…2200")
    return instant


def body_time_us(value: str | int | float) -> int:
    """A time in a request body: text with or without offset (UTC), or a number of seconds or ms."""
    if isinstance(value, str):
        match = IN_A_BODY.fullmatch(value)
        if match:
            return _instant_us(match)
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise ValueError(f"not a time: {value!r}") from None
    seconds = number / 1000 if abs(number) > 20_000_000_000 else number
    return int(seconds * SECOND_US)


def _instant_us(match: re.Match[str] | None) -> int:
    if match is None:
        raise ValueError("not a time")
    days = date.fromisoformat(match["date"]).toordinal() - EPOCH.toordinal()
    hour, minute, second = (int(match[part] or 0) for part in ("hour", "minute", "second"))
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError("no such time of day")
    fraction_us = int(((match["fraction"] or "") + "000000")[:6])
    local = ((days * 24 + hour) * 60 + minute) * 60 + second - _offset_s(match["offset"])
    return local * SECOND_US + fraction_us


def _offset_s(text: str | None) -> int:
    if text is None or text in "Zz":
        return 0
    hours, minutes = int(text[1:3]), int(text[-2:])
    if hours > 23 or minutes > 59:
        raise ValueError("no such offset")
    return (hours * 60 + minutes) * (-60 if text[0] == "-" else 60)


def answer_text(instant_us: int) -> str:
    """An instant as the answer writes it: UTC with Z, no fraction if it is 0, else six digits."""
    instant = EPOCH + timedelta(microseconds=instant_us)
    timespec = "microseconds" if instant.microsecond else "seconds"
    return instant.isoformat(timespec=timespec).replace("+00:00", "Z")

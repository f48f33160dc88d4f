"""Instants and durations as a request spells them, turned into integer µs.

What is accepted follows Prefect's route, less the exotic forms (week dates, `2021-07`, bare times): a text
without offset is UTC, fractions beyond µs are cut, numbers are Unix seconds, or milliseconds above 2·10¹⁰.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final

from .request import FIRST_INSTANT_US, LAST_INSTANT_US, NOW, SECOND_US, BeforeEnd, Now

_MILLISECONDS_ABOVE: Final = 20_000_000_000
_EPOCH: Final = datetime(1970, 1, 1)
"""In UTC, as everything here."""
_TEXT: Final = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)"
    r"(?:[Tt ](?P<hour>[01]\d|2[0-3]):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d)(?:[.,](?P<fraction>\d{1,9}))?)?"
    r"(?P<offset>[Zz]|[+-](?:[01]\d|2[0-3]):?[0-5]\d)?)?",
    re.ASCII,
)
_NUMBER: Final = re.compile(r"[+-]?\d{1,20}(?:\.\d{1,20})?", re.ASCII)
_DURATION: Final = re.compile(
    r"-P(?:(?P<weeks>\d{1,9})W|(?=.)(?:(?P<days>\d{1,9})D)?"
    r"(?:T(?=.)(?:(?P<hours>\d{1,9})H)?(?:(?P<minutes>\d{1,9})M)?(?:(?P<seconds>\d{1,9}(?:\.\d{1,6})?)S)?)?)",
    re.ASCII,
)
_UNITS_S: Final = {"weeks": 604_800, "days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1}


def instant_of(value: object) -> int:
    """An instant in µs since the epoch from a JSON string or number.

    Raises `ValueError` for anything else, for texts that name no instant and outside the years 1…9999 in UTC.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("expected a date and time as text, or a number of seconds since 1970")
    instant_us = _from_text(value) if isinstance(value, str) else _from_number(value)
    if not FIRST_INSTANT_US <= instant_us <= LAST_INSTANT_US:
        raise ValueError("outside the years 1 to 9999 in UTC")
    return instant_us


def end_of(value: object) -> int | Now:
    """`history_end`: an instant, or the word `now`."""
    return NOW if value == NOW.value else instant_of(value)


def start_of(value: object) -> int | BeforeEnd:
    """`history_start`: an instant, or a negative ISO 8601 duration such as `-PT24H`, counted from the end."""
    if not isinstance(value, str) or not value.startswith("-P"):
        return instant_of(value)
    match = _DURATION.fullmatch(value)
    if match is None:
        raise ValueError("expected a duration before history_end such as -PT24H, -PT90M or -P7D")
    seconds = sum(Decimal(match[unit] or 0) * scale for unit, scale in _UNITS_S.items())
    return BeforeEnd(int(seconds * SECOND_US))


def text_of(instant_us: int) -> str:
    """An instant as an answer spells it: UTC with `Z`, no fraction if it is 0, otherwise six digits."""
    return (_EPOCH + timedelta(microseconds=instant_us)).isoformat() + "Z"


def _from_text(text: str) -> int:
    match = _TEXT.fullmatch(text)
    if match is None:
        if _NUMBER.fullmatch(text):
            return _from_number(Decimal(text))
        raise ValueError("expected a date and time such as 2021-07-01T00:00:00Z")
    days = date.fromisoformat(match["date"]).toordinal() - _EPOCH.toordinal()
    seconds = (
        days * 86_400
        + int(match["hour"] or 0) * 3600
        + int(match["minute"] or 0) * 60
        + int(match["second"] or 0)
        - _offset_s(match["offset"])
    )
    return seconds * SECOND_US + int((match["fraction"] or "").ljust(6, "0")[:6])


def _offset_s(text: str | None) -> int:
    if text is None or text in "Zz":
        return 0
    seconds = int(text[1:3]) * 3600 + int(text[-2:]) * 60
    return -seconds if text[0] == "-" else seconds


def _from_number(number: int | float | Decimal) -> int:
    if isinstance(number, int):
        return number * (1000 if abs(number) > _MILLISECONDS_ABOVE else SECOND_US)
    # The shortest text of a double is what the client wrote; its binary value may lie a µs beside it.
    exact = Decimal(repr(number)) if isinstance(number, float) else number
    if not exact.is_finite() or abs(exact) > LAST_INSTANT_US:
        raise ValueError("outside the years 1 to 9999 in UTC")
    return int(exact * (1000 if abs(exact) > _MILLISECONDS_ABOVE else SECOND_US))

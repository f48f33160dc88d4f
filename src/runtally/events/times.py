"""Times and durations of events as integer µs.

A time is RFC 3339 with an offset. Digits beyond the µs are cut off, never rounded, so that a time is never later
than what its producer saw.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from .contract import bad

Time = Annotated[datetime, Meta(tz=True)]
"""What msgspec takes for a time; it *rounds* digits beyond the µs, so `FINER` must not match what it is given."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
LAST_US: Final = 7_258_118_400_000_000
"""1 January 2200; times before 1970 and from here on cannot be meant."""
MAX_DURATION_US: Final = 100 * 31_557_600 * 1_000_000
FINER: Final = re.compile(rb"\.\d{7}")
_FINER_TEXT: Final = re.compile(r"(\.\d{6})\d+", re.ASCII)


def micros(text: str, path: str) -> int:
    """A time as µs since the epoch. Raises `BadEventError` that names `path`."""
    try:
        moment: datetime = msgspec.convert(_FINER_TEXT.sub(r"\1", text), Time)
    except msgspec.ValidationError:
        raise bad("wrong value", f"{path} is no time with an offset, such as 2026-11-24T10:01:33.118006Z") from None
    us = (moment - EPOCH) // MICROSECOND
    if 0 <= us < LAST_US:
        return us
    raise bad("impossible time", f"{path} lies outside 1970…2200")


def duration_us(seconds: float, path: str) -> int:
    """Seconds as µs. Raises `BadEventError` past 100 years either way."""
    if -MAX_DURATION_US <= seconds * 1_000_000 <= MAX_DURATION_US:
        return round(seconds * 1_000_000)
    raise bad("impossible time", f"{path} is longer than 100 years")

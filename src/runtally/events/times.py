"""Times and durations of events as integer µs.

A time is RFC 3339 with an offset. Digits beyond the µs are cut off, never rounded, so that a time is never later
than what its producer saw.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt

from ..errors import BadEventError
from .contract import bad

Ints = npt.NDArray[np.int64]

LAST_US: Final = 7_258_118_400_000_000
"""1 January 2200; times before 1970 and from here on cannot be meant."""
MAX_DURATION_US: Final = 100 * 31_557_600 * 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_OF_DAY: Final = r"(?:[01]\d|2[0-3]):[0-5]\d"
_RFC_3339: Final = re.compile(
    rf"(?P<date>\d{{4}}-\d\d-\d\d)[Tt ](?P<minute>{_OF_DAY}):(?P<second>[0-5]\d)(?:\.(?P<fraction>\d+))?"
    rf"(?P<offset>[Zz]|[+-]{_OF_DAY})",
    re.ASCII,
)

# A time in UTC with six or three digits is put together from four look-ups, in a third of the time that parsing takes:
# "2026-11-24T10:01:" "33." "118" "006Z". Minutes are those that were parsed lately.
_MINUTES_KEPT: Final = 50_000
_minutes: dict[str, int] = {}
_SECONDS: Final = {f"{second:02}.": second * 1_000_000 for second in range(60)}
_THOUSANDTHS: Final = {f"{ms:03}": ms * 1000 for ms in range(1000)}
_ENDS: Final = {
    digits + offset: int(digits or 0)
    for digits in ("", *(f"{us:03}" for us in range(1000)))
    for offset in ("Z", "+00:00")
}

# The spelling that many times are read in at once: "2026-11-24T10:01:33.118006" and an offset of zero.
NULL: Final = -1
BAD: Final = -2
"""What stands for no time, and for one that is refused, in an array of times."""
_FORM: Final = np.frombuffer(b"0000-00-00T00:00:00.000000", np.uint8)
_IS_DIGIT: Final = np.equal(_FORM, ord("0"))
_DIGITS_AT: Final = np.flatnonzero(_IS_DIGIT)
_MARKS_AT: Final = np.flatnonzero(~_IS_DIGIT)
_MARKS: Final = _FORM[_MARKS_AT][:, None]
_ENDINGS: Final = {len(_FORM) + len(end): np.frombuffer(end, np.uint8)[:, None] for end in (b"Z", b"+00:00")}
"""By the length of the whole."""
_DAY_S: Final = 86_400
_FIRST_YEAR: Final = 1970
_MONTHS: Final = np.arange("1970-01", "2200-02", dtype="M8[M]").astype("M8[D]").astype(np.int64)
"""Days from the epoch to the first of each month, up to the one after the last."""


def micros_of(texts: Sequence[str | None]) -> Ints:
    """Many times at once, as an array: NULL for None, BAD for what `micros` refuses."""
    given = [text for text in texts if text is not None]
    us = _usual(given)
    for at in np.flatnonzero(us == BAD).tolist():
        with suppress(BadEventError):
            us[at] = micros(given[at], "")
    if len(given) == len(texts):
        return us
    all_us = np.full(len(texts), NULL, np.int64)
    all_us[[text is not None for text in texts]] = us
    return all_us


def _usual(texts: Sequence[str]) -> Ints:
    """The same for times of the usual spelling alone; BAD is all else."""
    lengths = [*map(len, texts)]
    if len({*lengths}) == 1:
        return _of_length(texts, lengths[0])
    us = np.full(len(texts), BAD, np.int64)
    for length in _ENDINGS:
        at = [place for place, one in enumerate(lengths) if one == length]
        if at:
            us[at] = _of_length([texts[place] for place in at], length)
    return us


def _of_length(texts: Sequence[str], length: int) -> Ints:
    """The same for texts of one length."""
    joined = "".join(texts)
    if length not in _ENDINGS or not joined.isascii():
        return np.full(len(texts), BAD, np.int64)
    chars = np.ascontiguousarray(np.frombuffer(joined.encode(), np.uint8).reshape(-1, length).T)
    digits = chars[_DIGITS_AT] - np.uint8(ord("0"))
    good = (digits.max(axis=0) <= 9) & (chars[_MARKS_AT] == _MARKS).all(axis=0)
    good &= (chars[len(_FORM) :] == _ENDINGS[length]).all(axis=0)
    digits *= good
    century, year, month, day, hour, minute, second, *fraction = digits[::2] * np.uint8(10) + digits[1::2]
    good &= (hour < 24) & (minute < 60) & (second < 60) & (month > 0) & (month <= 12) & (day > 0)
    at = ((century * np.int32(100) + year - _FIRST_YEAR) * 12 + month) - 1
    good &= (at >= 0) & (at < len(_MONTHS) - 1)
    at[~good] = 0
    good &= day <= _MONTHS[at + 1] - _MONTHS[at]
    second_of_day = (hour * np.int32(60) + minute) * 60 + second
    micro = (fraction[0] * np.int32(100) + fraction[1]) * 100 + fraction[2]
    us: Ints = ((_MONTHS[at] + day - 1) * _DAY_S + second_of_day) * 1_000_000 + micro
    us[~good] = BAD
    return us


def micros(text: str, path: str) -> int:
    """A time as µs since the epoch. Raises `BadEventError` that names `path`."""
    try:
        return _minutes[text[:17]] + _SECONDS[text[17:20]] + _THOUSANDTHS[text[20:23]] + _ENDS[text[23:]]
    except KeyError:
        return _parsed(text, path)


def duration_us(seconds: float, path: str) -> int:
    """Seconds as µs. Raises `BadEventError` past 100 years either way."""
    us = seconds * 1_000_000
    if -MAX_DURATION_US <= us <= MAX_DURATION_US:
        return round(us)
    raise bad("impossible time", f"{path} is longer than 100 years")


def _parsed(text: str, path: str) -> int:
    found = _RFC_3339.fullmatch(text)
    if found is None:
        raise _no_time(path)
    offset = "+00:00" if found["offset"] in "Zz" else found["offset"]
    try:
        whole = datetime.fromisoformat(f"{found['date']}T{found['minute']}:{found['second']}{offset}")
    except ValueError:
        raise _no_time(path) from None
    second_us = (whole - _EPOCH) // _MICROSECOND
    us = second_us + int((found["fraction"] or "")[:6].ljust(6, "0"))
    if not 0 <= us < LAST_US:
        raise bad("impossible time", f"{path} lies outside 1970…2200")
    if offset == "+00:00":
        if len(_minutes) >= _MINUTES_KEPT:
            _minutes.clear()
        _minutes[text[:17]] = second_us - second_us % 60_000_000
    return us


def _no_time(path: str) -> Exception:
    return bad("wrong value", f"{path} is no time with an offset, such as 2026-11-24T10:01:33.118006Z")

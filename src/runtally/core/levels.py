"""The ladder of bucket widths.

A *bucket* is one stretch of expected start time, named by its number `µs // width`. Every width divides the
next, so a bucket of one level is exactly the union of its children one level down, and any span can be
covered with few buckets. Runs without an expected time live in the bucket `NONE` of the finest level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

_S: Final = 1_000_000
MINUTE_US: Final = 60 * _S
DAY_US: Final = 86_400 * _S

NONE: Final = -1
"""The bucket of runs that have no expected start time."""


@dataclass(frozen=True, slots=True)
class Level:
    """One rung: `number` counts from the finest, `width_us` is its bucket width in µs."""

    number: int
    name: str
    width_us: int


LEVELS: Final = (
    Level(0, "1m", MINUTE_US),
    Level(1, "10m", 10 * MINUTE_US),
    Level(2, "1h", 3600 * _S),
    Level(3, "6h", 6 * 3600 * _S),
    Level(4, "1d", DAY_US),
)
_LEVEL_BITS: Final = 3
PAGE: Final = tuple(
    coarse.width_us // fine.width_us for fine, coarse in zip(LEVELS, (*LEVELS[1:], LEVELS[-1]), strict=True)
)
"""By level, so many buckets share a *page*: those that make one bucket of the next coarser level. What cuts that one
asks for all of them, so they are stored and read together. NONE is in the page NONE."""
FINEST: Final = LEVELS[0]
COARSEST: Final = LEVELS[-1]


MINUTES: Final = np.array([level.width_us // MINUTE_US for level in LEVELS])
"""By level, the width of a bucket in minutes."""
PAGE_SIZES: Final = np.array(PAGE)
"""`PAGE`, for arrays of levels."""
_PAGE_MINUTES: Final = MINUTES * PAGE_SIZES


def page_of(level: int, bucket: int) -> int:
    """The page of a bucket of that level."""
    return bucket // PAGE[level]


def child_in(level: int, bucket: int) -> int:
    """Where in its page a bucket stands, below 10."""
    return bucket % PAGE[level]


def ancestors(minute: int) -> list[tuple[int, int]]:
    """All (level number, bucket) that hold the given minute, finest first; for `NONE` just that bucket."""
    if minute == NONE:
        return [(0, NONE)]
    return [(level.number, minute * MINUTE_US // level.width_us) for level in LEVELS]


def place_of(level: Any, bucket: Any) -> Any:
    """One number for a bucket of a level, or arrays of them: the minute at which it begins, and the level. NONE, which
    the finest level alone has, comes before all others."""
    return place_from(level, bucket * MINUTES[level])


def place_from(level: Any, minute: Any) -> Any:
    """The place of that level that begins at a minute, or arrays of them; of `NONE` that of `NONE`."""
    return minute + 1 << _LEVEL_BITS | level


def level_of(place: Any) -> Any:
    """The level of places."""
    return place & (1 << _LEVEL_BITS) - 1


def minute_of_place(place: Any) -> Any:
    """The minute at which a place begins, NONE for the bucket without expected times."""
    return (place >> _LEVEL_BITS) - 1


def bucket_of_place(place: Any, level: Any) -> Any:
    """The bucket of places of that level, or each of its own."""
    return minute_of_place(place) // MINUTES[level]


def pages_of(places: Any) -> tuple[Any, Any]:
    """The different pages of an array of places, as numbers that `level_and_page` takes apart, and which of them holds
    each place."""
    level = level_of(places)
    page = minute_of_place(places) // _PAGE_MINUTES[level]
    found: tuple[Any, Any] = np.unique(page << _LEVEL_BITS | level, return_inverse=True)
    return found


def level_and_page(numbers: Any) -> tuple[Any, Any]:
    """What `pages_of` packs."""
    return level_of(numbers), numbers >> _LEVEL_BITS


def bucket_in(level: Any, page: Any, child: Any) -> Any:
    """The bucket that stands in a page where `child_in` says; of arrays."""
    return page * PAGE_SIZES[level] + child

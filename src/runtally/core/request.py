"""A history request as the core sees it: integers, sets, and filters that hash.

Two requests that mean the same compare equal as far as their values are sets (order, duplicates and
spellings of ids are gone), so a `Filters` can be the key of a cache.

Units: instants and durations are integer µs, ids are 16 bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final, Literal

from ..errors import BadRequestError
from .bins import Bins

Value = bool | int | str | frozenset[str] | frozenset[bytes] | None
"""An attribute's value: a flag, µs or an integer, a `like_` pattern, or the set that a list names."""

FilterName = Literal["flows", "flow_runs", "task_runs", "deployments"]

LAST_INSTANT_US: Final = 253_402_300_799_999_999
"""9999-12-31T23:59:59.999999Z, the last instant that an answer can spell."""
FIRST_INSTANT_US: Final = -62_135_596_800_000_000
"""0001-01-01T00:00:00Z."""
SECOND_US: Final = 1_000_000


class Operator(StrEnum):
    """How the terms of a filter combine."""

    AND = "and_"
    OR = "or_"


class Now(Enum):
    """The instant at which the request is answered."""

    NOW = "now"


NOW: Final = Now.NOW


@dataclass(frozen=True, slots=True)
class BeforeEnd:
    """An instant so many µs before the end of the range."""

    duration_us: int


@dataclass(frozen=True, slots=True)
class SubFilter:
    """One given attribute object, such as `flow_runs.tags`.

    `values` holds the attributes that are not null, by their path below the sub-filter in the order of the
    table: `("any_", …)`, or `("type.any_", …)` inside `state`. One exception: `is_null_` of
    `task_runs.flow_run_id` is always there, also with None, because there null and absent differ.
    """

    name: str
    operator: Operator = Operator.AND
    values: tuple[tuple[str, Value], ...] = ()

    def get(self, attribute: str) -> Value:
        """The value of an attribute, None where it restricts nothing by being absent or null."""
        return dict(self.values).get(attribute)


@dataclass(frozen=True, slots=True)
class EntityFilter:
    """What is given for one entity: its sub-filters in the order of the table, and how they combine."""

    operator: Operator = Operator.AND
    parts: tuple[SubFilter, ...] = ()


@dataclass(frozen=True, slots=True)
class Filters:
    """The four entity filters; None is not given, which is not the same as given and empty."""

    flows: EntityFilter | None = None
    flow_runs: EntityFilter | None = None
    task_runs: EntityFilter | None = None
    deployments: EntityFilter | None = None

    def given(self) -> tuple[FilterName, ...]:
        """The names of the filters that are given, in the order of the request's body."""
        names: tuple[FilterName, ...] = ("flows", "flow_runs", "task_runs", "deployments")
        return tuple(name for name in names if getattr(self, name) is not None)


NO_FILTERS: Final = Filters()


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """Range, width of a bin and filters of one request; `resolve` fixes what is relative to `now`."""

    start_us: int | BeforeEnd
    end_us: int | Now
    width_us: int
    filters: Filters = NO_FILTERS

    def resolve(self, now_us: int) -> Bins:
        """The bins that are asked for (`.start`, `.width`, `.count`) when it is `now_us`.

        Raises `BadRequestError` where an edge of a bin falls outside the years 1…9999.
        """
        end = now_us if isinstance(self.end_us, Now) else self.end_us
        start = end - self.start_us.duration_us if isinstance(self.start_us, BeforeEnd) else self.start_us
        if start < FIRST_INSTANT_US:
            raise BadRequestError("history_start must not lie before year 1.")
        if end <= start:
            return Bins(start, SECOND_US, 0)  # a width of no bin may leave 64 bits
        bins = Bins.of(start, end, self.width_us)
        if bins.end > LAST_INSTANT_US:
            raise BadRequestError(
                "The last bin would end after year 9999; choose an earlier history_end or a smaller "
                "history_interval_seconds."
            )
        return bins


def width_of(seconds: float) -> int:
    """A bin's width in µs: whole seconds, and the fraction's double × 10⁶ rounded half to even.

    Raises `BadRequestError` for less than one second, after rounding.
    """
    fraction, whole = math.modf(seconds)
    width_us = int(whole) * SECOND_US + round(fraction * 1e6)
    if width_us < SECOND_US:
        raise BadRequestError("History interval must not be less than 1 second.")
    return width_us

"""Rows to cells: the change that a batch makes to every scope and level of a shard.

    Δ = fold(rows as they are now) − fold(rows as they were)

Counts and sums are subtracted; zone maps are widened by the new rows only, since a bound can not be taken
back without looking at all the rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from .cells import EARLIEST, LATEST, SUM_LIMIT, Kinds, Sums, lifted, rescoped, summed
from .groups import STARTED
from .levels import LEVELS, MINUTE_US, NONE
from .rows import NULL, Ints, Rows, concat
from .scopes import Scope


def fold(
    new: Rows, old: Rows, cohorts: Ints, scopes: Mapping[Scope, Ints], type_codes: npt.NDArray[np.uint8]
) -> list[Sums]:
    """The change to the cells of all scopes at each level, finest first.

    `cohorts` are the cohort numbers of the new rows, then of the old ones. `scopes` gives for each kind of scope the
    number of each cohort's scope (−1: none); numbers of different kinds must differ. `type_codes` comes from the
    shard's `States`.
    """
    fine = _minutes(new, old, cohorts, type_codes)
    levels = []
    for level in LEVELS:
        levels.append(
            rescoped(fine, [number[fine.scope] for kind, number in scopes.items() if level.number in kind.levels])
        )
        if level is not LEVELS[-1]:
            fine = lifted(fine, Kinds(fine.group, type_codes), level.number)
    return levels


def _minutes(new: Rows, old: Rows, cohorts: Ints, type_codes: npt.NDArray[np.uint8]) -> Sums:
    rows = concat([new, old])
    is_new = np.arange(len(rows)) < len(new)
    sign = np.where(is_new, 1, -1)
    timed = rows.expected != NULL
    expected = np.where(timed, rows.expected, 0)
    bucket = np.where(timed, expected // MINUTE_US, NONE)
    begin = np.where(timed, bucket * MINUTE_US, 0)
    kinds = Kinds(rows.group, type_codes)
    started = (rows.group & STARTED).astype(bool)
    start = np.where(started, rows.start, 0)
    turn = np.where(kinds.running, rows.state_time - rows.total, 0)
    a = np.where(kinds.running, turn - begin, np.maximum(0, rows.total))
    late = np.where(started & timed, np.maximum(0, start - expected), 0)
    b = np.where(kinds.open & timed, expected - begin, late)
    size = np.maximum(np.abs(a.astype(np.float64)), np.abs(b.astype(np.float64)))
    return summed(
        Sums(
            bucket,
            cohorts,
            rows.group,
            sign,
            a * sign,
            b * sign,
            size,
            np.where(is_new & timed, expected, LATEST),
            np.where(is_new & timed, expected, EARLIEST),
            np.where(is_new & started, start, LATEST),
            np.where(is_new & started, start, EARLIEST),
            np.where(is_new & kinds.running, turn, EARLIEST),
            ~kinds.believed | (size >= SUM_LIMIT),
        )
    )

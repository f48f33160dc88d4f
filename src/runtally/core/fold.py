"""Rows to cells: the change that a batch makes to every level of a shard.

    Δ = fold(rows as they are now) − fold(rows as they were)

Counts and sums are subtracted; zone maps are widened by the new rows only, since a bound can not be taken
back without looking at all the rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .cells import EARLIEST, LATEST, SUM_LIMIT, Kinds, Sums, lifted, summed
from .groups import STARTED
from .levels import LEVELS, MINUTE_US, NONE
from .rows import NULL, Rows, concat


def fold(new: Rows, old: Rows, type_codes: npt.NDArray[np.uint8]) -> list[Sums]:
    """The change to the cells of each level, finest first. `type_codes` comes from the shard's `States`."""
    finest = _minutes(new, old, type_codes)
    levels = [finest]
    for level in LEVELS[:-1]:
        fine = levels[-1]
        levels.append(lifted(fine, Kinds(fine.group, type_codes), level.number))
    return levels


def _minutes(new: Rows, old: Rows, type_codes: npt.NDArray[np.uint8]) -> Sums:
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

"""Rows to cells: the change that a batch makes to every scope and level of a shard.

    Δ = fold(rows as they are now) − fold(rows as they were)

Counts and sums are subtracted; zone maps are widened by the new rows only, since a bound can not be taken
back without looking at all the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from .cells import EARLIEST, LATEST, SUM_LIMIT, Kinds, Sums, blank, joined, selected, summed
from .levels import LEVELS, MINUTE_US, MINUTES, NONE, place_from
from .rows import NULL, Ints, Rows
from .scopes import Scope

_LEVELS: Final = tuple(level.number for level in LEVELS)
_STEPS: Final = (_LEVELS[:2], _LEVELS[2:])
"""Levels that are made of the same sums, those of the first of them: an hour's are far fewer than its minutes'."""
_FEW: Final = 64
"""Up to so many rows, the steps cost more than they save."""


def fold(rows: Rows, new: int, cohorts: Ints, scopes: Mapping[Scope, Ints], type_codes: npt.NDArray[np.uint8]) -> Sums:
    """The change to the cells of all scopes at all levels, by place (`levels.place_of`), scope and group; not yet added
    up, so that whoever brings it together with other cells does that once.

    `rows` are so many `new` ones, then those that they take the place of; `cohorts` are their cohort numbers. `scopes`
    gives for each kind of scope the number of each cohort's scope (−1: none); numbers of different kinds must differ.
    `type_codes` comes from the shard's `States`.
    """
    fine = _by_minute(rows, new, cohorts, type_codes)
    if len(fine) <= _FEW:
        return _spread(fine, _LEVELS, scopes, type_codes)
    fine = summed(fine)
    parts = []
    for levels in _STEPS:
        if levels[0] > 0:
            fine = selected(fine, fine.bucket != NONE)
            _lift(fine, MINUTES[levels[0]], type_codes)
            fine = summed(fine)
        parts.append(_spread(fine, levels, scopes, type_codes))
    return joined(parts)


def _by_minute(rows: Rows, new: int, cohorts: Ints, type_codes: npt.NDArray[np.uint8]) -> Sums:
    """An entry for each row, by minute and cohort."""
    is_new = np.arange(len(rows)) < new
    sign = np.where(is_new, 1, -1)
    timed = rows.expected != NULL
    expected = np.where(timed, rows.expected, 0)
    bucket = np.where(timed, expected // MINUTE_US, NONE)
    begin = np.where(timed, bucket * MINUTE_US, 0)
    kinds = Kinds(rows.group, type_codes)
    started = kinds.started
    start = np.where(started, rows.start, 0)
    turn = np.where(kinds.running, rows.state_time - rows.total, 0)
    a = np.where(kinds.running, turn - begin, np.maximum(0, rows.total))
    late = np.where(started & timed, np.maximum(0, start - expected), 0)
    b = np.where(kinds.open & timed, expected - begin, late)
    size = np.maximum(np.abs(a.astype(np.float64)), np.abs(b.astype(np.float64)))
    has_expected, has_start = is_new & timed, is_new & started
    sums = blank(len(rows))
    sums.bucket, sums.scope, sums.group = bucket, cohorts, rows.group
    sums.n, sums.a, sums.b, sums.size = sign, a * sign, b * sign, size
    sums.expected_lo = np.where(has_expected, expected, LATEST)
    sums.expected_hi = np.where(has_expected, expected, EARLIEST)
    sums.start_lo = np.where(has_start, start, LATEST)
    sums.start_hi = np.where(has_start, start, EARLIEST)
    sums.turn_hi = np.where(is_new & kinds.running, turn, EARLIEST)
    sums.wide = ~kinds.believed | (size >= SUM_LIMIT)
    return sums


def _spread(
    fine: Sums, levels: tuple[int, ...], scopes: Mapping[Scope, Ints], type_codes: npt.NDArray[np.uint8]
) -> Sums:
    """Sums by the minute at which their bucket begins and by cohort, at each of some levels in each scope there."""
    ways = [(number[fine.scope], level) for kind, number in scopes.items() for level in levels if level in kind.levels]
    scope = np.stack([number for number, _ in ways])
    level_of_way = np.array([level for _, level in ways])
    kept = (scope >= 0) & ((fine.bucket != NONE) | (level_of_way == 0)[:, None])
    way, entry = kept.nonzero()
    spread = selected(fine, entry)
    spread.scope = scope[kept]
    level = level_of_way[way]
    _lift(spread, MINUTES[level], type_codes)
    spread.bucket = place_from(level, spread.bucket)
    return spread


def _lift(sums: Sums, minutes: Ints, type_codes: npt.NDArray[np.uint8]) -> None:
    """Give sums the buckets of so many minutes that hold theirs, by the minute at which both begin: offsets to the
    bucket's start grow by n × the distance."""
    kinds = Kinds(sums.group, type_codes)
    bucket = sums.bucket // minutes * minutes
    shift = sums.n * ((sums.bucket - bucket) * MINUTE_US)
    np.add(sums.a, shift, out=sums.a, where=kinds.running)
    np.add(sums.b, shift, out=sums.b, where=kinds.open)
    sums.size += np.abs(shift.astype(np.float64))
    sums.bucket = bucket

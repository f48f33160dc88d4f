"""A cell: the sum over the runs of one group in one bucket, with bounds on what it hides.

Sums are exact integers in µs. With B the bucket's start, `now` unknown when the cell is written, and
turn = state_timestamp − total_run_time (the instant at which a RUNNING run's time becomes positive):

    n   runs
    a   RUNNING: Σ (turn − B)       run time at now = n·(now − B) − a     if every turn ≤ now
        else:    Σ max(0, total)    run time        = a
    b   started: Σ max(0, start − expected)                       lateness = b
        open (no start, not terminal): Σ (expected − B)           lateness = n·(now − B) − b   if expected < now
        else: 0

The zone map decides, for a filter's bound, a bin's edge or `now`, whether it holds for all runs of the cell,
for none, or for some. Bounds are stored coarser than they are, rounded outwards, and are only widened while
the cell lives: loose, never wrong. A cell whose sums could leave ±2⁶² is *wide*: its `n` and zones hold, its
sums mean nothing and the bucket is answered from finer ones, in the end from raw runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .groups import FLAG_BITS, OTHER, RUNNING, STARTED, is_open
from .levels import LEVELS, NONE
from .rows import Ints

CELL: Final = np.dtype(
    [
        ("group", "<u2"),
        ("wide", "u1"),
        ("spare", "u1"),
        ("n", "<u4"),
        ("a", "<i8"),
        ("b", "<i8"),
        ("expected_lo", "<u2"),
        ("expected_hi", "<u2"),
        ("start_lo", "<i4"),
        ("start_hi", "<i4"),
        ("turn_hi", "<i4"),
    ]
)
"""The stored form, 40 bytes. Expected bounds are in 1/65536 of the bucket; start and turn bounds in 2²⁰ µs
(about a second) from the bucket's start, ±2³¹ standing for unbounded."""

CellArray = npt.NDArray[np.void]
Table = npt.NDArray[np.int64]
"""`Sums` as one array of 64-bit words, a row a column."""

SUM_LIMIT: Final = 2.0**62
_SCOPE_BITS: Final = 17
_GROUP_BITS: Final = 14
"""What usually suffices; with 30 for buckets they make one number to sort by."""
_STEPS: Final = 65536
_GRAIN_BITS: Final = 20
_WIDTHS_US: Final = np.array([level.width_us for level in LEVELS], np.int64)
_COARSE_MIN: Final = -(1 << 31)
_COARSE_MAX: Final = (1 << 31) - 1
EARLIEST: Final = -(1 << 62)
"""A bound that says nothing: every time is later."""
LATEST: Final = 1 << 62
"""A bound that says nothing: every time is earlier."""


class Kinds:
    """What a group's sums mean, by group number: three boolean arrays."""

    __slots__ = ("believed", "open", "running", "started")

    def __init__(self, group: npt.NDArray[np.uint32], type_codes: npt.NDArray[np.uint8]) -> None:
        state = group >> FLAG_BITS
        types = type_codes[state]
        self.started = (group & STARTED).astype(bool)
        self.running = types == RUNNING
        self.open = is_open(types, self.started)
        self.believed = state != OTHER


class Sums:
    """Cells as exact columns, one per (bucket, scope, group), before they are stored or after they are read.

    `scope` is a number that the caller chose. `a` and `b` are relative to the start of the bucket as above; zone
    bounds are µs. `size` bounds |a| and |b| in floating point, so that a sum about to leave 64 bits is noticed.
    `n`, `a` and `b` may be negative: a change to a cell has the same form.
    """

    __slots__ = (
        "a",
        "b",
        "bucket",
        "expected_hi",
        "expected_lo",
        "group",
        "n",
        "scope",
        "size",
        "start_hi",
        "start_lo",
        "turn_hi",
        "wide",
    )

    def __init__(
        self,
        bucket: Ints,
        scope: Ints,
        group: npt.NDArray[np.uint32],
        n: Ints,
        a: Ints,
        b: Ints,
        size: npt.NDArray[np.float64],
        expected_lo: Ints,
        expected_hi: Ints,
        start_lo: Ints,
        start_hi: Ints,
        turn_hi: Ints,
        wide: npt.NDArray[np.bool_],
    ) -> None:
        self.bucket = bucket
        self.scope = scope
        self.group = group
        self.n = n
        self.a = a
        self.b = b
        self.size = size
        self.expected_lo = expected_lo
        self.expected_hi = expected_hi
        self.start_lo = start_lo
        self.start_hi = start_hi
        self.turn_hi = turn_hi
        self.wide = wide

    def __len__(self) -> int:
        return len(self.bucket)


def summed(sums: Sums) -> Sums:
    """One entry per (bucket, scope, group), in that order: counts and sums added, zones united."""
    order, first = _runs_of_equals(sums)
    lead = order[first]

    def add(column: Any) -> Any:
        return np.add.reduceat(column[order], first) if len(first) else column

    def least(column: Ints) -> Ints:
        return np.minimum.reduceat(column[order], first) if len(first) else column

    def most(column: Ints) -> Ints:
        return np.maximum.reduceat(column[order], first) if len(first) else column

    size = add(sums.size)
    wide = np.logical_or.reduceat(sums.wide[order], first) if len(first) else sums.wide
    return Sums(
        sums.bucket[lead],
        sums.scope[lead],
        sums.group[lead],
        add(sums.n),
        add(sums.a),
        add(sums.b),
        size,
        least(sums.expected_lo),
        most(sums.expected_hi),
        least(sums.start_lo),
        most(sums.start_hi),
        most(sums.turn_hi),
        wide | (size >= SUM_LIMIT),
    )


def _runs_of_equals(sums: Sums) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The order that brings equal (bucket, scope, group) together, and where in it each begins."""
    if not len(sums):
        nothing = np.empty(0, np.intp)
        return nothing, nothing
    if int(sums.scope.max()) >> _SCOPE_BITS == 0 and int(sums.group.max()) >> _GROUP_BITS == 0:
        key = ((sums.bucket + 1) << _SCOPE_BITS + _GROUP_BITS) | (sums.scope << _GROUP_BITS) | sums.group
        order = np.argsort(key, kind="stable")
        key = key[order]
        differs = key[1:] != key[:-1]
    else:
        columns = (sums.group, sums.scope, sums.bucket)
        order = np.lexsort(columns)
        differs = np.logical_or.reduce([c[order][1:] != c[order][:-1] for c in columns])
    return order, np.flatnonzero(np.concatenate(([True], differs)))


def rescoped(sums: Sums, ways: Sequence[Ints]) -> Sums:
    """The same sums by other scopes, once in each way: a way gives every entry's scope, −1 leaves it out."""
    parts = [np.flatnonzero(way >= 0) for way in ways]
    which = np.concatenate(parts)
    moved = selected(sums, which)
    moved.scope = np.concatenate([way[part] for way, part in zip(ways, parts, strict=True)])
    return summed(moved)


def lifted(sums: Sums, kinds: Kinds, level: int) -> Sums:
    """The same sums by the buckets of `level + 1`: offsets to the bucket's start grow by n × the distance."""
    fine, coarse = LEVELS[level], LEVELS[level + 1]
    keep = sums.bucket != NONE
    bucket = np.where(keep, sums.bucket * fine.width_us // coarse.width_us, NONE)
    shift = sums.n * (sums.bucket * fine.width_us - bucket * coarse.width_us)
    moved = Sums(
        bucket,
        sums.scope,
        sums.group,
        sums.n,
        np.where(kinds.running, sums.a + shift, sums.a),
        np.where(kinds.open, sums.b + shift, sums.b),
        sums.size + np.abs(shift.astype(np.float64)),
        sums.expected_lo,
        sums.expected_hi,
        sums.start_lo,
        sums.start_hi,
        sums.turn_hi,
        sums.wide,
    )
    return summed(selected(moved, keep))


def pack(sums: Sums, level: int | Ints) -> CellArray:
    """The stored form of cells, all of one level or each of its own; zone bounds are rounded outwards, within the
    bucket for expected times."""
    width = _WIDTHS_US[level]
    begin = np.where(sums.bucket == NONE, 0, sums.bucket * width)
    cells = np.zeros(len(sums), CELL)
    cells["group"] = sums.group
    cells["wide"] = sums.wide
    cells["n"] = sums.n
    cells["a"] = np.where(sums.wide, 0, sums.a)
    cells["b"] = np.where(sums.wide, 0, sums.b)
    scaled = sums.bucket != NONE
    cells["expected_lo"] = np.where(scaled, (sums.expected_lo - begin) * _STEPS // width, 0)
    cells["expected_hi"] = np.where(scaled, (sums.expected_hi - begin) * _STEPS // width, 0)
    cells["start_lo"] = _coarse(sums.start_lo, begin, up=False)
    cells["start_hi"] = _coarse(sums.start_hi, begin, up=True)
    cells["turn_hi"] = _coarse(sums.turn_hi, begin, up=True)
    return cells


def unpack(cells: CellArray, bucket: Ints, scope: Ints, level: int | Ints) -> Sums:
    """Cells as columns; `bucket` and `scope` are each one's, and `level` may be. Bounds are the outer ones, in µs."""
    width = _WIDTHS_US[level]
    begin = np.where(bucket == NONE, 0, bucket * width)
    a = cells["a"].astype(np.int64)
    b = cells["b"].astype(np.int64)
    lo = cells["expected_lo"].astype(np.int64)
    hi = cells["expected_hi"].astype(np.int64)
    return Sums(
        bucket,
        scope,
        cells["group"].astype(np.uint32),
        cells["n"].astype(np.int64),
        a,
        b,
        np.maximum(np.abs(a.astype(np.float64)), np.abs(b.astype(np.float64))),
        np.where(bucket == NONE, EARLIEST, begin - (-lo * width) // _STEPS),
        np.where(bucket == NONE, LATEST, begin + ((hi + 1) * width - 1) // _STEPS),
        _fine(cells["start_lo"], begin, up=False),
        _fine(cells["start_hi"], begin, up=True),
        _fine(cells["turn_hi"], begin, up=True),
        cells["wide"].astype(bool),
    )


def as_table(sums: Sums) -> Table:
    """The columns as rows of one array, which is cheap to cut and to join along its second axis."""
    table = np.empty((len(_COLUMNS), len(sums)), np.int64)
    for number, name in enumerate(_COLUMNS):
        column = getattr(sums, name)
        table[number] = column.view(np.int64) if name == "size" else column
    return table


def of_table(table: Table) -> Sums:
    """The columns of such an array."""
    columns = dict(zip(_COLUMNS, table, strict=True))
    columns["group"] = columns["group"].astype(np.uint32)
    columns["size"] = columns["size"].view(np.float64)
    columns["wide"] = columns["wide"].astype(bool)
    return Sums(**columns)


def joined(parts: Sequence[Sums]) -> Sums:
    """All entries of several, which may name the same cells; at least one part."""
    return Sums(*(np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS))


def selected(sums: Sums, which: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Sums:
    """Some of the entries."""
    return Sums(*(getattr(sums, name)[which] for name in _COLUMNS))


def merged(old: Sums, change: Sums) -> Sums:
    """Cells after a change; emptied ones are dropped, and with them the width of their bounds."""
    return _living(summed(joined([old, change])))


def _living(sums: Sums) -> Sums:
    return selected(sums, sums.n != 0)


_COLUMNS: Final = (
    "bucket",
    "scope",
    "group",
    "n",
    "a",
    "b",
    "size",
    "expected_lo",
    "expected_hi",
    "start_lo",
    "start_hi",
    "turn_hi",
    "wide",
)


def _coarse(bound: Ints, begin: Ints, *, up: bool) -> Ints:
    far = (bound <= EARLIEST) | (bound >= LATEST)
    offset = np.where(far, 0, bound) - np.where(far, 0, begin)
    grains = -((-offset) >> _GRAIN_BITS) if up else offset >> _GRAIN_BITS
    clipped = np.clip(grains, _COARSE_MIN + 1, _COARSE_MAX - 1)
    # A clipped bound must not pretend to be one: beyond the range it says nothing, on the side that is safe.
    clipped = np.where(clipped == grains, clipped, _COARSE_MAX if up else _COARSE_MIN)
    return np.where(far, np.where(bound > 0, _COARSE_MAX, _COARSE_MIN), clipped)


def _fine(grains: npt.NDArray[np.int32], begin: Ints, *, up: bool) -> Ints:
    wide = grains.astype(np.int64)
    bound = begin + (wide << _GRAIN_BITS)
    return np.where(wide == _COARSE_MIN, EARLIEST, np.where(wide == _COARSE_MAX, LATEST, bound))

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
from .levels import LEVELS, NONE, bucket_of_place, level_of
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
_BLOCKS: Final = np.dtype(
    [
        ("group", "<u2"),
        ("wide", "u1"),
        ("spare", "u1"),
        ("n", "<u4"),
        ("sums", "<i8", 2),
        ("expected", "<u2", 2),
        ("times", "<i4", 3),
    ]
)
"""The same, with what is treated alike together."""

CellArray = npt.NDArray[np.void]
Table = npt.NDArray[np.int64]
"""`Sums` as one array of 64-bit words, a row a column."""

SUM_LIMIT: Final = 2.0**62
_SCOPE_BITS: Final = 17
_GROUP_BITS: Final = 14
"""What usually suffices; with 30 for buckets they make one number to sort by."""
_STEP_BITS: Final = 16
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


class _Column:
    """One row of a `Sums.table`."""

    __slots__ = ("_row",)

    def __init__(self, row: int) -> None:
        self._row = row

    def __get__(self, sums: Sums, _: type[Sums] | None = None) -> Ints:
        column: Ints = sums.table[self._row]
        return column

    def __set__(self, sums: Sums, values: npt.NDArray[Any]) -> None:
        sums.table[self._row] = values


class Sums:
    """Cells as exact columns, one per (bucket, scope, group), before they are stored or after they are read.

    `scope` is a number that the caller chose. `a` and `b` are relative to the start of the bucket as above; zone
    bounds are µs. `size` bounds |a| and |b| in floating point, so that a sum about to leave 64 bits is noticed.
    `n`, `a` and `b` may be negative: a change to a cell has the same form.

    All columns are rows of one `table`, so that they are cut, joined and added up together.
    """

    __slots__ = ("table",)

    bucket = _Column(0)
    scope = _Column(1)
    n = _Column(3)
    a = _Column(4)
    b = _Column(5)
    expected_lo = _Column(7)
    start_lo = _Column(8)
    start_hi = _Column(9)
    turn_hi = _Column(10)
    expected_hi = _Column(11)

    def __init__(self, table: Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return int(self.table.shape[1])

    @property
    def group(self) -> npt.NDArray[np.uint32]:
        """The group's number."""
        column: npt.NDArray[np.uint32] = self.table[_GROUP].astype(np.uint32)
        return column

    @group.setter
    def group(self, values: npt.NDArray[np.uint32]) -> None:
        self.table[_GROUP] = values

    @property
    def size(self) -> npt.NDArray[np.float64]:
        """A bound of |a| and |b|."""
        column: npt.NDArray[np.float64] = self.table[_SIZE].view(np.float64)
        return column

    @size.setter
    def size(self, values: npt.NDArray[np.float64]) -> None:
        self.size[:] = values

    @property
    def wide(self) -> npt.NDArray[np.bool_]:
        """Whether the sums mean nothing."""
        column: npt.NDArray[np.bool_] = self.table[_WIDE] != 0
        return column

    @wide.setter
    def wide(self, values: npt.NDArray[np.bool_]) -> None:
        self.table[_WIDE] = values


_NAMES: Final = slice(0, 3)
_GROUP: Final = 2
_SUMMED: Final = slice(3, 6)
_A_AND_B: Final = slice(4, 6)
_SIZE: Final = 6
_LOWS: Final = slice(7, 9)
_STARTS_AND_TURN: Final = slice(8, 11)
_HIGHS: Final = slice(9, 13)
_WIDE: Final = 12
_COLUMNS: Final = 13
"""Where in a table the columns are that are treated alike."""


def blank(count: int) -> Sums:
    """So many entries, to be filled."""
    return Sums(np.empty((_COLUMNS, count), np.int64))


def summed(sums: Sums) -> Sums:
    """One entry per (bucket, scope, group), in that order: counts and sums added, zones united."""
    order, first = _runs_of_equals(sums)
    table = sums.table.take(order, axis=1)
    if len(first) < len(order):
        parts, table = table, table.take(first, axis=1)
        np.add.reduceat(parts[_SUMMED], first, axis=1, out=table[_SUMMED])
        np.add.reduceat(parts[_SIZE].view(np.float64), first, out=table[_SIZE].view(np.float64))
        np.minimum.reduceat(parts[_LOWS], first, axis=1, out=table[_LOWS])
        np.maximum.reduceat(parts[_HIGHS], first, axis=1, out=table[_HIGHS])
    table[_WIDE] |= table[_SIZE].view(np.float64) >= SUM_LIMIT
    return Sums(table)


def _runs_of_equals(sums: Sums) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The order that brings equal (bucket, scope, group) together, and where in it each begins."""
    if not len(sums):
        nothing = np.empty(0, np.intp)
        return nothing, nothing
    bucket, scope, group = names = sums.table[_NAMES]
    _, most_scope, most_group = names.max(axis=1).tolist()
    if most_scope >> _SCOPE_BITS == 0 and most_group >> _GROUP_BITS == 0:
        key = ((bucket + 1) << _SCOPE_BITS + _GROUP_BITS) | (scope << _GROUP_BITS) | group
        order = key.argsort()
        key = key[order]
        differs = key[1:] != key[:-1]
    else:
        order = np.lexsort(names[::-1])
        names = names[:, order]
        differs = (names[:, 1:] != names[:, :-1]).any(axis=0)
    return order, np.concatenate(([True], differs)).nonzero()[0]


def pack(sums: Sums, level: int | Ints) -> CellArray:
    """The stored form of cells, all of one level or each of its own; zone bounds are rounded outwards, within the
    bucket for expected times."""
    width = _WIDTHS_US[level]
    timed = sums.bucket != NONE
    begin = np.where(timed, sums.bucket * width, 0)
    cells = np.zeros(len(sums), _BLOCKS)
    cells["group"] = sums.group
    cells["wide"] = sums.wide
    cells["n"] = sums.n
    cells["sums"] = np.where(sums.wide, 0, sums.table[_A_AND_B]).T
    expected = np.stack([sums.expected_lo, sums.expected_hi]) - begin
    cells["expected"] = np.where(timed, (expected << _STEP_BITS) // width, 0).T
    cells["times"] = _coarse(sums.table[_STARTS_AND_TURN], begin).T
    return cells.view(CELL)


def unpack(cells: CellArray, bucket: Ints, scope: Ints, level: int | Ints) -> Sums:
    """Cells as columns; `bucket` and `scope` are each one's, and `level` may be. Bounds are the outer ones, in µs."""
    blocks = cells.view(_BLOCKS)
    width = _WIDTHS_US[level]
    timed = bucket != NONE
    begin = np.where(timed, bucket * width, 0)
    sums = blank(len(cells))
    sums.bucket, sums.scope, sums.group = bucket, scope, blocks["group"]
    sums.n, sums.wide = blocks["n"], blocks["wide"]
    sums.table[_A_AND_B] = blocks["sums"].T
    sums.size = np.abs(sums.table[_A_AND_B].astype(np.float64)).max(axis=0)
    lo, hi = blocks["expected"].T.astype(np.int64)
    sums.expected_lo = np.where(timed, begin - ((-lo * width) >> _STEP_BITS), EARLIEST)
    sums.expected_hi = np.where(timed, begin + (((hi + 1) * width - 1) >> _STEP_BITS), LATEST)
    sums.table[_STARTS_AND_TURN] = _fine(blocks["times"].T.astype(np.int64), begin)
    return sums


def joined(parts: Sequence[Sums]) -> Sums:
    """All entries of several, which may name the same cells; at least one part."""
    return Sums(np.concatenate([part.table for part in parts], axis=1))


def selected(sums: Sums, which: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Sums:
    """Some of the entries."""
    return Sums(sums.table.compress(which, axis=1) if which.dtype == np.bool_ else sums.table.take(which, axis=1))


def of_level(sums: Sums, level: int) -> Sums:
    """Those of one level, by its buckets, of sums by places (`levels.place_of`)."""
    found = selected(sums, level_of(sums.bucket) == level)
    found.bucket = bucket_of_place(found.bucket, level)
    return found


def merged(old: Sums, change: Sums) -> Sums:
    """Cells after a change; emptied ones are dropped, and with them the width of their bounds."""
    result = summed(joined([old, change]))
    return selected(result, result.n != 0)


_ROUND: Final = np.array([[0], [(1 << _GRAIN_BITS) - 1], [(1 << _GRAIN_BITS) - 1]])
_NOTHING_SAID: Final = np.array([[_COARSE_MIN], [_COARSE_MAX], [_COARSE_MAX]])
"""Of bounds below, above, above: what makes them outer ones, and what stands for those that are too far away."""


def _coarse(bounds: Table, begin: Ints) -> Table:
    grains = (bounds - begin + _ROUND) >> _GRAIN_BITS
    # A clipped bound must not pretend to be one: beyond the range it says nothing, on the side that is safe.
    kept = np.where((grains > _COARSE_MIN) & (grains < _COARSE_MAX), grains, _NOTHING_SAID)
    # Two that are none, whatever their side.
    kept = np.where(bounds >= LATEST, _COARSE_MAX, kept)
    return np.where(bounds <= EARLIEST, _COARSE_MIN, kept)


def _fine(grains: Table, begin: Ints) -> Table:
    bounds = begin + (grains << _GRAIN_BITS)
    bounds[grains == _COARSE_MIN] = EARLIEST
    bounds[grains == _COARSE_MAX] = LATEST
    return bounds

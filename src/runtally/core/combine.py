"""From cells and raw runs to the sums of an answer, exactly.

Both sums of an answer are linear in `now`; each cell or run gives (constant, slope, slope·B) and the answer is

    constant + slope·now − Σ slope·B

Single numbers fit 64 bits, their sums need not: constants are added as two halves of 32 bits, B in whole
minutes, and only the last step, a few hundred entries, is done in Python's integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .bins import Bins
from .cells import Kinds, Sums
from .groups import FLAG_BITS, State
from .levels import MINUTE_US
from .rows import NULL, Ints, Rows

Mask = npt.NDArray[np.bool_]

_LOW: Final = (1 << 32) - 1
_FITS: Final = 2.0**62
"""Whatever is less than this in floating point fits 64 bits."""


class Entry(NamedTuple):
    """One state of one bin: runs, and the two sums in µs."""

    state: State
    count: int  # type: ignore[assignment]  # an entry is never asked for how often it holds something
    run_time_us: int
    lateness_us: int


def ranked(states: Iterable[State]) -> list[State]:
    """States as an answer orders them: by type and then name in byte order."""
    return sorted(states, key=lambda state: (state[0], state[1].encode("utf-8", "surrogatepass")))


class Tally:
    """Adds up parts of an answer by (bin, state); `states` is the answer's own numbering of states, `ranked`."""

    def __init__(self, bins: Bins, now: int, states: Sequence[State]) -> None:
        self._bins = bins
        self._now = now
        self._states = states
        shape = bins.count * len(states)
        self._count = np.zeros(shape, np.int64)
        self._run = _Linear(shape)
        self._late = _Linear(shape)

    def add_cells(self, sums: Sums, kinds: Kinds, which: Mask, minutes: Ints, state_map: Ints) -> None:
        """Decided cells, of those given; `minutes` is when each one's bucket begins, `state_map` turns state numbers
        into those of the answer (−1: none)."""
        state = state_map[sums.group >> FLAG_BITS]
        bin_ = self._bins.index(sums.expected_lo)
        use = (which & (state >= 0) & (bin_ >= 0) & (bin_ < self._bins.count)).nonzero()[0]
        slot = bin_[use] * len(self._states) + state[use]
        n, a, b = sums.n[use], sums.a[use], sums.b[use]
        minutes = minutes[use]
        running = kinds.running[use]
        open_ = kinds.open[use] & (sums.expected_hi[use] < self._now)
        never_late = kinds.open[use] & ~open_
        np.add.at(self._count, slot, n)
        self._run.add(slot, np.where(running, -a, a), running, n, minutes)
        self._late.add(slot, np.where(open_, -b, np.where(never_late, 0, b)), open_, n, minutes)

    def add_rows(self, rows: Rows, kinds: Kinds, state_map: Ints) -> None:
        """Raw runs of one shard."""
        state = state_map[rows.group >> FLAG_BITS]
        bin_ = self._bins.index(np.where(rows.expected == NULL, -1, rows.expected))
        use = (state >= 0) & (rows.expected != NULL) & (bin_ >= 0) & (bin_ < self._bins.count)
        slot = (bin_ * len(self._states) + state)[use]
        rows = rows.take(use)
        running, started, open_ = kinds.running[use], kinds.started[use], kinds.open[use]
        now = self._now
        run_time = np.maximum(0, rows.total + np.where(running, now - rows.state_time, 0))
        waited = np.where(open_, now - rows.expected, 0)
        late = np.maximum(0, np.where(started, rows.start - rows.expected, waited))
        np.add.at(self._count, slot, 1)
        self._run.add_constant(slot, run_time)
        self._late.add_constant(slot, late)

    def entries(self) -> list[list[Entry]]:
        """Per bin its entries, in the order of states; never one with count 0."""
        slots = self._count.nonzero()[0]
        run, late = self._run.at(slots, self._now), self._late.at(slots, self._now)
        states = map(self._states.__getitem__, (slots % max(1, len(self._states))).tolist())
        found = [*map(Entry._make, zip(states, self._count[slots].tolist(), run, late, strict=True))]
        edges = slots.searchsorted(np.arange(self._bins.count + 1) * len(self._states)).tolist()
        return [found[begin:end] for begin, end in pairwise(edges)]


class _Linear:
    """Σ (constant + slope·(now − B)) by slot; B in whole minutes."""

    def __init__(self, slots: int) -> None:
        self._high = np.zeros(slots, np.int64)
        self._low = np.zeros(slots, np.int64)
        self._slope = np.zeros(slots, np.int64)
        self._minutes = np.zeros(slots, np.int64)

    def add(self, slot: Ints, constant: Ints, moves: Mask, slope: Ints, minutes: Ints) -> None:
        """Add constants, and where it `moves` the slopes as well."""
        self.add_constant(slot, constant)
        moving = moves.nonzero()[0]
        slot, slope = slot[moving], slope[moving]
        np.add.at(self._slope, slot, slope)
        np.add.at(self._minutes, slot, slope * minutes[moving])

    def add_constant(self, slot: Ints, constant: Ints) -> None:
        """Add what `now` does not change."""
        np.add.at(self._high, slot, constant >> 32)
        np.add.at(self._low, slot, constant & _LOW)

    def at(self, slots: npt.NDArray[np.intp], now: int) -> list[int]:
        """The exact sums of some slots: Python's integers from here on."""
        columns = [column[slots] for column in (self._high, self._low, self._slope, self._minutes)]
        about = _sums([column.astype(np.float64) for column in columns], now)
        if not (np.abs(about) < _FITS).all():
            columns = [column.astype(object) for column in columns]
        # What leaves 64 bits on the way comes back where the sum itself fits.
        found: list[int] = _sums(columns, now).tolist()
        return found


def _sums(columns: Sequence[npt.NDArray[Any]], now: int) -> npt.NDArray[Any]:
    high, low, slope, minutes = columns
    found: npt.NDArray[Any] = high * (_LOW + 1) + low + slope * now - minutes * MINUTE_US
    return found

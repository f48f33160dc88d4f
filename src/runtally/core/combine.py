"""From cells and raw runs to the sums of an answer, exactly.

Both sums of an answer are linear in `now`; each cell or run gives (constant, slope, slope·B) and the answer is

    constant + slope·now − Σ slope·B

Single numbers fit 64 bits, their sums need not: constants are added as two halves of 32 bits, B in whole
minutes, and only the last step, a few hundred entries, is done in Python's integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .bins import Bins
from .cells import Kinds, Sums
from .groups import FLAG_BITS, State
from .levels import MINUTE_US
from .rows import NULL, Ints, Rows

_LOW = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One state of one bin: runs, and the two sums in µs."""

    state: State
    count: int
    run_time_us: int
    lateness_us: int


class Tally:
    """Adds up parts of an answer by (bin, state); `states` is the answer's own numbering of states."""

    def __init__(self, bins: Bins, now: int, states: Sequence[State]) -> None:
        self._bins = bins
        self._now = now
        self._states = states
        shape = bins.count * len(states)
        self._count = np.zeros(shape, np.int64)
        self._run = _Linear(shape)
        self._late = _Linear(shape)

    def add_cells(self, sums: Sums, kinds: Kinds, minutes: Ints, state_map: Ints) -> None:
        """Decided cells; `minutes` is when each one's bucket begins, `state_map` turns state numbers into those of the
        answer (−1: none)."""
        state = state_map[sums.group >> FLAG_BITS]
        bin_ = self._bins.index(sums.expected_lo)
        use = (state >= 0) & (bin_ >= 0) & (bin_ < self._bins.count)
        slot = (bin_ * len(self._states) + state)[use]
        n, a, b = sums.n[use], sums.a[use], sums.b[use]
        minutes = minutes[use]
        running = kinds.running[use]
        open_ = kinds.open[use] & (sums.expected_hi[use] < self._now)
        never_late = kinds.open[use] & ~open_
        np.add.at(self._count, slot, n)
        self._run.add(slot, np.where(running, -a, a), np.where(running, n, 0), minutes)
        constant = np.where(open_, -b, np.where(never_late, 0, b))
        self._late.add(slot, constant, np.where(open_, n, 0), minutes)

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
        nothing = np.zeros(len(slot), np.int64)
        self._run.add(slot, run_time, nothing, nothing)
        self._late.add(slot, late, nothing, nothing)

    def entries(self) -> list[list[Entry]]:
        """Per bin its entries, by state type and then name in byte order; never one with count 0."""
        answer: list[list[Entry]] = [[] for _ in range(self._bins.count)]
        slots = np.flatnonzero(self._count)
        run, late = self._run.at(slots, self._now), self._late.at(slots, self._now)
        bins, states = np.divmod(slots, max(1, len(self._states)))
        found = zip(bins.tolist(), states.tolist(), self._count[slots].tolist(), run, late, strict=True)
        for bin_, state, count, run_us, late_us in found:
            answer[bin_].append(Entry(self._states[state], count, run_us, late_us))
        for entries in answer:
            entries.sort(key=lambda e: (e.state[0], e.state[1].encode("utf-8", "surrogatepass")))
        return answer


class _Linear:
    """Σ (constant + slope·(now − B)) by slot; B in whole minutes."""

    def __init__(self, slots: int) -> None:
        self._high = np.zeros(slots, np.int64)
        self._low = np.zeros(slots, np.int64)
        self._slope = np.zeros(slots, np.int64)
        self._minutes = np.zeros(slots, np.int64)

    def add(self, slot: npt.NDArray[np.int64], constant: Ints, slope: Ints, minutes: Ints) -> None:
        np.add.at(self._high, slot, constant >> 32)
        np.add.at(self._low, slot, constant & _LOW)
        np.add.at(self._slope, slot, slope)
        np.add.at(self._minutes, slot, slope * minutes)

    def at(self, slots: npt.NDArray[np.intp], now: int) -> list[int]:
        """The exact sums of some slots: Python's integers from here on."""
        high, low, slope, minutes = (
            column[slots].astype(object) for column in (self._high, self._low, self._slope, self._minutes)
        )
        found: list[int] = ((high << 32) + low + slope * now - minutes * MINUTE_US).tolist()
        return found

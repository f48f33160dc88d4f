"""Rows: task runs joined with what the rollups need of their flow runs, as columns.

Times are µs; NULL is the sentinel below, which no valid time or duration can be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .groups import FLAG_BITS, STARTED

NULL: Final = -(1 << 63)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rows:
    """Columns of equal length, one entry a run.

    `total` is the effective total run time: as stored, else end − start where both are known, else 0.
    `group` is the group number (see `groups`).
    """

    expected: Ints
    start: Ints
    state_time: Ints
    total: Ints
    group: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.expected)

    def take(self, which: npt.NDArray[np.bool_] | npt.NDArray[np.intp] | slice) -> Rows:
        """The rows that a mask, an index array or a slice selects."""
        return Rows(
            self.expected[which],
            self.start[which],
            self.state_time[which],
            self.total[which],
            self.group[which],
        )


def effective_total(total: Ints, start: Ints, end: Ints) -> Ints:
    """The stored total, else end − start where both are known, else 0."""
    spanned = np.where((start != NULL) & (end != NULL), end - np.where(start == NULL, 0, start), 0)
    return np.where(total != NULL, total, spanned)


def pack_groups(state: Ints, flags: npt.NDArray[Any], start: Ints) -> npt.NDArray[np.uint32]:
    """Group numbers from state numbers and the flags other than STARTED, which follows from `start`."""
    started = np.where(start != NULL, STARTED, 0)
    packed: npt.NDArray[np.uint32] = ((state << FLAG_BITS) | flags | started).astype(np.uint32)
    return packed


def concat(parts: list[Rows]) -> Rows:
    """All rows of several parts, in order."""
    if not parts:
        nothing = np.empty(0, np.int64)
        return Rows(nothing, nothing, nothing, nothing, np.empty(0, np.uint32))
    if len(parts) == 1:
        return parts[0]
    return Rows(
        np.concatenate([p.expected for p in parts]),
        np.concatenate([p.start for p in parts]),
        np.concatenate([p.state_time for p in parts]),
        np.concatenate([p.total for p in parts]),
        np.concatenate([p.group for p in parts]),
    )

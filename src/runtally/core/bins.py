"""The bins of a history answer (spec: integer µs, half-open, at most 500, the last one not clipped).

bin k = [start + k·width, start + (k + 1)·width)    for start + k·width < end, k ≤ 499
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from .rows import Ints

MAX_BINS: Final = 500


@dataclass(frozen=True, slots=True)
class Bins:
    """`count` bins of `width` µs from `start`."""

    start: int
    width: int
    count: int

    @classmethod
    def of(cls, start: int, end: int, width: int) -> Bins:
        """The bins of a request; none when `end` ≤ `start`."""
        return cls(start, width, max(0, min(MAX_BINS, -((start - end) // width))))

    @property
    def end(self) -> int:
        """End of the last bin, which may lie after the asked end."""
        return self.start + self.count * self.width

    def edges(self) -> Ints:
        """The count + 1 instants at which bins begin or end."""
        return self.start + np.arange(self.count + 1, dtype=np.int64) * self.width

    def index(self, times: Ints) -> Ints:
        """The bin of each time; below 0 or at least `count` where it is in none."""
        return (times - self.start) // self.width

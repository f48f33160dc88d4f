"""What is old: the horizons, and which runs lie behind them.

Time is a shard's watermark, the newest record timestamp that it applied, and never a clock: so the same log gives the
same state whenever it is read. Horizons are whole days:

    horizon = day of the watermark − retention in days, rounded up

Runs behind the *raw* horizon whose last instant is behind it too are *frozen*: their records go, their share of the
cells stays. Behind the *rollup* horizon everything goes but runs that have not ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .changes import STATE_TYPES, TERMINAL_STATE_TYPES
from .levels import DAY_US
from .rows import NULL, Ints

_ENDED: Final = np.array([name in TERMINAL_STATE_TYPES for name in STATE_TYPES] + [False])
_LONGEST_US: Final = 1 << 61


@dataclass(frozen=True, slots=True)
class Horizons:
    """The oldest instants, µs, of which everything is kept: `raw` for records, `cells` for sums and the index."""

    raw: int
    cells: int

    def reached(self, other: Horizons) -> bool:
        """Whether these are nowhere before others."""
        return self.raw >= other.raw and self.cells >= other.cells

    def later(self, other: Horizons) -> Horizons:
        """The later of each: horizons never move back, since what is gone is gone."""
        return Horizons(max(self.raw, other.raw), max(self.cells, other.cells))


def horizons(watermark_us: int, raw_retention_us: int, rollup_retention_us: int) -> Horizons:
    """Where the horizons are at a watermark."""
    return Horizons(_horizon(watermark_us, raw_retention_us), _horizon(watermark_us, rollup_retention_us))


def day_of(instant_us: int) -> int:
    """The day of an instant."""
    return instant_us // DAY_US


def last_instants(*times: Ints) -> Ints:
    """The latest of several times of each run; NULL is before all others."""
    last: Ints = np.maximum.reduce(times)
    return last


def ended(type_codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which state types are terminal; one that is not known is not."""
    found: npt.NDArray[np.bool_] = _ENDED[type_codes]
    return found


def last_instant(*times: int | None) -> int:
    """The latest of one run's times, NULL without any."""
    return max((time for time in times if time is not None), default=NULL)


def is_ended(state: tuple[Any, ...] | None) -> bool:
    """Whether a state is terminal; none at all is not."""
    return state is not None and state[0] in TERMINAL_STATE_TYPES


def _horizon(watermark_us: int, retention_us: int) -> int:
    if retention_us >= _LONGEST_US:
        return 0
    return max(0, day_of(watermark_us) - -(-retention_us // DAY_US)) * DAY_US

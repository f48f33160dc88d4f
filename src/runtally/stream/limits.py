"""How many bad events a partition may have: in a row, and as a share of about the last ten thousand.

A misconfigured producer must not drain the topic into dead letters. A share alone would stop a quiet partition for its
first bad event, so it counts only from as many bad events on as may follow each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WINDOW: Final = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    """So many bad events in a row, or so many of which more than this share of the last `WINDOW` are bad, are too
    many."""

    in_a_row: int
    share: float


@dataclass(frozen=True, slots=True)
class TooMany:
    """The position from which on events may not be passed, and what is wrong in words."""

    position: int
    words: str


@dataclass(frozen=True, slots=True)
class Tally:
    """What a partition has been like up to some record: bad events in a row at the end, and of about the last `WINDOW`
    events how many there were and how many were bad."""

    in_a_row: int = 0
    seen: int = 0
    bad: int = 0

    def after(self, count: int, bad: Sequence[int], limits: Limits) -> Tally | TooMany:
        """The tally after `count` more events, of which those at the positions `bad`, in order, are bad."""
        run, begin, last = self.in_a_row, 0, -1
        for position in bad:
            if position != last + 1:
                run, begin = 0, position
            run, last = run + 1, position
            if run >= limits.in_a_row:
                return TooMany(begin, f"{run:,} events in a row")
        seen, amount = self.seen + count, self.bad + len(bad)
        if bad and amount >= limits.in_a_row and amount > limits.share * seen:
            return TooMany(bad[0], f"{amount:,} of the last {seen:,} events")
        if seen > WINDOW:
            seen, amount = WINDOW, amount * WINDOW // seen
        return Tally(run if last == count - 1 else 0, seen, amount)

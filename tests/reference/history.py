"""The reference: bins, groups and estimates over the rows that exist."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from .entities import Estate, Row
from .events import BadEventError, Fact, IgnoredEventError, parse
from .filters import selection
from .times import SECOND_US, answer_text, body_time_us

MAX_BINS = 500
TERMINAL = ("COMPLETED", "CANCELLED", "FAILED", "CRASHED")

Sums = dict[tuple[str, str], tuple[int, int, int]]


class Reference:
    """An estate told by events and asked by request bodies. Bodies are taken to be valid, but for the width."""

    def __init__(self, max_clock_skew_us: int = 86_400 * SECOND_US) -> None:
        self._max_clock_skew_us = max_clock_skew_us
        self._estate = Estate()
        self._rows: list[dict[str, Row | None]] | None = None

    def apply(self, event: dict[str, Any] | bytes | str, record_us: int | None = None) -> str:
        """Take in an event; says `applied`, `ignored` or `bad: reason`. Without `record_us` no clock is checked."""
        latest_us = None if record_us is None else record_us + self._max_clock_skew_us
        try:
            fact = parse(event, latest_us)
        except BadEventError as bad:
            return f"bad: {bad}"
        except IgnoredEventError:
            return "ignored"
        self.take(fact)
        return "applied"

    def take(self, fact: Fact) -> None:
        """Take in an event that has been parsed."""
        self._estate.apply(fact)
        self._rows = None

    def task_runs(self) -> list[dict[str, Row | None]]:
        """The rows that exist, by id: task_run, flow_run, flow and deployment, each a dict of columns or None."""
        if self._rows is None:
            self._rows = self._estate.rows()
        return self._rows

    def count(self, body: dict[str, Any]) -> int:
        """The answer of POST /task_runs/count: no bins, and runs without state or expected start count too."""
        selected = selection(body, short_cut=False)
        return sum(selected(row) for row in self.task_runs())

    def history_us(self, body: dict[str, Any], now_us: int) -> list[tuple[int, int, Sums]]:
        """The bins as (start, end, {(state_type, state_name): (count, run time, lateness)}), all integer µs."""
        bins: list[tuple[int, int, Sums]] = [(start, end, {}) for start, end in bins_of(body)]
        if not bins:
            return []
        first, width = bins[0][0], bins[0][1] - bins[0][0]
        selected = selection(body, short_cut=True)
        for row in self.task_runs():
            run = row["task_run"]
            if run["state_type"] is None or run["expected_start_time"] is None:
                continue
            number = (run["expected_start_time"] - first) // width
            if 0 <= number < len(bins) and selected(row):
                sums = bins[number][2]
                state = (run["state_type"], run["state_name"])
                count, run_time, lateness = sums.get(state, (0, 0, 0))
                sums[state] = (count + 1, run_time + run_time_us(run, now_us), lateness + lateness_us(run, now_us))
        return bins

    def history(self, body: dict[str, Any], now_us: int) -> list[dict[str, Any]]:
        """The answer of POST /task_runs/history, as its JSON would be read back."""
        return [
            {
                "interval_start": answer_text(start),
                "interval_end": answer_text(end),
                "states": [
                    {
                        "state_type": state_type,
                        "state_name": state_name,
                        "count_runs": count,
                        "sum_estimated_run_time": run_time / SECOND_US,
                        "sum_estimated_lateness": lateness / SECOND_US,
                    }
                    for (state_type, state_name), (count, run_time, lateness) in sorted(
                        sums.items(), key=lambda entry: tuple(part.encode() for part in entry[0])
                    )
                ],
            }
            for start, end, sums in self.history_us(body, now_us)
        ]


def bins_of(body: dict[str, Any]) -> Iterator[tuple[int, int]]:
    """The bins of a request as (start, end), the oldest 500; the last one is not clipped."""
    start, end = body_time_us(body["history_start"]), body_time_us(body["history_end"])
    width = width_us(body["history_interval_seconds"])
    for number in range(MAX_BINS):
        if start + number * width >= end:
            return
        yield start + number * width, start + (number + 1) * width


def width_us(seconds: float | str | bool) -> int:
    """The width of a bin: whole seconds, and the fraction rounded half to even; ValueError below 1 s."""
    fraction, whole = math.modf(float(seconds))
    width = int(whole) * SECOND_US + round(fraction * 1e6)
    if width < SECOND_US:
        raise ValueError("History interval must not be less than 1 second.")
    return width


def run_time_us(run: Row, now_us: int) -> int:
    """Estimated run time of one run; a total that no event gave is end − start, or 0."""
    total = run["total_run_time"]
    if total is None:
        known = run["start_time"] is not None and run["end_time"] is not None
        total = run["end_time"] - run["start_time"] if known else 0
    if run["state_type"] == "RUNNING":
        total += now_us - run["state_timestamp"]
    return max(0, total)


def lateness_us(run: Row, now_us: int) -> int:
    """Estimated lateness of one run: of its start, or of now if it may still start."""
    start, expected = run["start_time"], run["expected_start_time"]
    if start is not None:
        return max(0, start - expected)
    if run["state_type"] not in TERMINAL and expected < now_us:
        return now_us - expected
    return 0

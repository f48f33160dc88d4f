"""Bins: Prefect's own tests on task runs, edges, widths and spellings of times."""

from __future__ import annotations

from typing import Any

from .told import COMPLETED, DT_US, FAILED, RUNNING, Told, Vectors, at, body


def _task_run_bins() -> Vectors:
    told = Told("bins")
    told.tell("flow", "f-1", name="f-1", tags=["db", "blue"])
    told.flow_run("owner", "f-1", RUNNING, tags=["running"], expected_start_time=at())
    for number in range(10):
        for state, first in ((COMPLETED, 0), (FAILED, 7), (RUNNING, 14)):
            then = at(minutes=first + number)
            told.task_run(
                f"{state[1]}-{number}", "owner", state, name="run", expected_start_time=then, state_timestamp=then
            )
    span = body("2021-06-30 23:55:00+00:00", "2021-07-01 00:15:00+00:00", 300)
    two = {"task_runs": {"state": {"type": {"any_": ["COMPLETED", "RUNNING"]}}}}
    return Vectors(
        told.events,
        told.ids,
        span,
        [
            ({}, [{}, {COMPLETED: 5}, {COMPLETED: 5, FAILED: 3}, {FAILED: 5, RUNNING: 1}]),
            (two, [{}, {COMPLETED: 5}, {COMPLETED: 5}, {RUNNING: 1}]),
        ],
    )


TASK_RUN_BINS = _task_run_bins()
"""Prefect's own bin tests on task runs; an answer is a list of bins, each {(state type, name): count}."""


def _hours(number: float) -> float:
    return number * 3600


BIN_COUNTS: list[tuple[float, float, int]] = [
    (14 * _hours(24), _hours(24), 14),
    (10 * _hours(24), _hours(25), 10),
    (10 * _hours(24), _hours(6), 40),
    (10 * _hours(24), _hours(1), 240),
    (_hours(24), 66 * 60, 22),
    (_hours(5), 60, 300),
    (_hours(29), 15 * 60, 116),
    (10 * _hours(24), 60, 500),
]
"""(seconds from start to end, width in seconds, bins)."""

BIN_EDGES: list[tuple[float, float, list[float]]] = [
    (3, 1.5, [0, 1.5, 3]),
    (3, 2.5, [0, 2.5, 5]),
    (5, 1.1, [0, 1.1, 2.2, 3.3, 4.4, 5.5]),
    (5, 1.123456, [0, 1.123456, 2.246912, 3.370368, 4.493824, 5.61728]),
    (0.5, 1, [0, 1]),
    (1.000001, 1, [0, 1, 2]),
    (3, 86400, [0, 86400]),
    (0, 1, []),
    (-10, 1, []),
    (_hours(24.5), _hours(24), [0, _hours(24), _hours(48)]),
]
"""(seconds from start to end, width in seconds, the edges of the bins in seconds after start)."""

WIDTHS_US: list[tuple[Any, int | None]] = [
    (4319.99995, 4_319_999_950),
    (1.0000005, 1_000_001),
    (1.0000015, 1_000_001),
    (3.0000025, 3_000_002),
    (0.9999999, 1_000_000),
    ("1.5", 1_500_000),
    (True, 1_000_000),
    (0.9999994, None),
    (0.9, None),
    (0, None),
    (False, None),
    (-1, None),
]
"""(history_interval_seconds, width in µs; None = less than a second, which is refused)."""

TIMES_US: list[tuple[Any, int]] = [
    ("2021-07-01T00:00:00Z", DT_US),
    ("2021-07-01t00:00:00z", DT_US),
    ("2021-07-01 00:00:00+00:00", DT_US),
    ("2021-07-01T00:00:00", DT_US),
    ("2021-07-01 00:00:00", DT_US),
    ("2021-07-01", DT_US),
    ("2021-07-01T00:00Z", DT_US),
    ("2021-07-01T02:00:00+02:00", DT_US),
    ("2021-06-30T18:30:00-0530", DT_US),
    ("2021-07-01T00:00:00.1239999Z", DT_US + 123_999),
    ("2021-07-01T00:00:00,5Z", DT_US + 500_000),
    ("2021-07-01T00:00:00.123456789Z", DT_US + 123_456),
    (1_625_097_600, DT_US),
    (1_625_097_600.25, DT_US + 250_000),
    ("1625097600", DT_US),
    (1_625_097_600_000, DT_US),
]
"""(a time in a body, µs)."""

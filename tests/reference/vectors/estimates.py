"""Estimated run time and lateness, one state name for each rule."""

from __future__ import annotations

from typing import Any

from .told import DT_US, RUNNING, Told, Vectors, at, body


def _estimates() -> Vectors:
    told = Told("estimates")
    now_us = DT_US + 60_000_000
    told.tell("flow", "f", name="f")
    told.flow_run("r", "f", RUNNING)
    expected: dict[tuple[str, str], tuple[int, int, int]] = {}

    def run(kind: str, name: str, run_time_s: float, lateness_s: float, **data: Any) -> None:
        """One run, and what it adds to the entry of its state."""
        number = len(told.events)
        told.task_run(f"{name}-{number}", "r", (kind, name), **{"name": name, "expected_start_time": at(), **data})
        count, run_time_us, lateness_us = expected.get((kind, name), (0, 0, 0))
        expected[kind, name] = (
            count + 1,
            run_time_us + round(run_time_s * 1_000_000),
            lateness_us + round(lateness_s * 1_000_000),
        )

    second = {number: at(seconds=number) for number in range(-5, 300)}
    # Pending at 0, Running at 1, Completed at 4; then the same without a total: end − start.
    run("COMPLETED", "Completed", 3, 1, start_time=second[1], end_time=second[4], total_run_time=3)
    run("COMPLETED", "Subtracted", 3, 1, start_time=second[1], end_time=second[4])
    run("COMPLETED", "Neither", 0, 0)
    run("RUNNING", "Running", 59, 1, start_time=second[1], state_timestamp=second[1], total_run_time=0)
    run("RUNNING", "Retrying", 22, 1, start_time=second[1], state_timestamp=second[40], total_run_time=2)
    run("RUNNING", "NotStarted", 60, 60, total_run_time=0)
    run("RUNNING", "InTheFuture", 0, 0, start_time=second[0], state_timestamp=second[70], total_run_time=9.5)
    run("RUNNING", "InTheFuture", 2, 0, start_time=second[0], state_timestamp=second[70], total_run_time=12)
    run("SCHEDULED", "Scheduled", 0, 60)
    run("PENDING", "Pending", 0, 60)
    run("PAUSED", "Paused", 4, 60, total_run_time=4)
    run("CANCELLING", "Cancelling", 4, 60, total_run_time=4)
    run("SCHEDULED", "NotYet", 0, 0, expected_start_time=second[60])
    run("SCHEDULED", "NotYet", 0, 0, expected_start_time=second[299])
    run("SCHEDULED", "NotYet", 0, 0.000001, expected_start_time=at(seconds=59, microseconds=999_999))
    run("CANCELLED", "Cancelled", 0, 0)
    run("CRASHED", "Crashed", 0, 0)
    run("FAILED", "Negative", 0, 0, total_run_time=-7.5)
    run("COMPLETED", "StraightToCompleted", 0, 5, start_time=second[5], end_time=second[5])
    run("COMPLETED", "Early", 1, 0, expected_start_time=second[299], start_time=second[0], total_run_time=1)
    run("COMPLETED", "TenAndFive", 10, 5, start_time=second[5], total_run_time=10)
    run("COMPLETED", "OneRun", 1.9, 2.7, start_time=at(seconds=2.7), total_run_time=1.9)
    for _ in range(3):
        run("COMPLETED", "ThreeRuns", 1.1, 0.1, start_time=at(seconds=0.1), total_run_time=1.1)
    run("COMPLETED", "TwoHalves", 0.5, 0, start_time=at(), total_run_time=0.5)
    run("COMPLETED", "TwoHalves", 0.7, 0, start_time=at(), total_run_time=0.7)
    return Vectors(told.events, told.ids, body(at(), at(seconds=300), 300), [({}, expected)], now_us)


ESTIMATES = _estimates()
"""One bin at `now_us`; the answer is {(state type, name): (count, run time µs, lateness µs)}."""

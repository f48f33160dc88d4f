"""The bodies that Prefect's two dashboards send, by the range, tags and ids that their user chose.

Both pages refresh every 30 s: one history and four counts. The Vue page sends no operators, and a width of span / 20
as a double; the React one sends operators and whole seconds. Times are JavaScript's `toISOString()`: three digits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

Body = dict[str, Any]

HISTORY = "/api/task_runs/history"
COUNT = "/api/task_runs/count"
_SECOND_US = 1_000_000
_MINUTE_US = 60 * _SECOND_US
_HOUR_US = 3600 * _SECOND_US
_DAY_US = 86_400 * _SECOND_US
_BINS = 20

_COUNTED = {
    "finished and running": ["COMPLETED", "FAILED", "CRASHED", "RUNNING"],
    "completed": ["COMPLETED"],
    "failed": ["FAILED", "CRASHED"],
    "running": ["RUNNING"],
}
"""The four numbers beside the chart, by the state types that each counts."""


class Sent(NamedTuple):
    """One request of a page."""

    name: str
    path: str
    body: Body


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a user can choose besides the range. `tags`: any of them; `flow`: the id of a flow's own page."""

    tags: Sequence[str] = ()
    hide_subflows: bool = False
    flow: str | None = None


def sent(start_us: int, end_us: int, chosen: Chosen) -> Iterator[Sent]:
    """All requests of both pages for a range in µs, of which JavaScript keeps the milliseconds."""
    start_ms, end_ms = start_us // 1000, end_us // 1000
    yield from _vue(start_ms, end_ms, chosen)
    yield from _react(start_ms, end_ms, chosen)


def ranges(now_us: int) -> dict[str, tuple[int, int]]:
    """The ranges that the pages offer at a moment, and ones that a user may choose, as (start, end) in µs."""
    minute = now_us // _MINUTE_US * _MINUTE_US
    hour = now_us // _HOUR_US * _HOUR_US
    midnight = now_us // _DAY_US * _DAY_US
    today_end = midnight + _DAY_US - 1000
    return {
        "last hour": (minute - _HOUR_US, minute),
        "last day": (minute - _DAY_US, minute),
        "last day, to the millisecond": (now_us - _DAY_US, now_us),
        "last week": (minute - 7 * _DAY_US, minute),
        "last week, to the millisecond": (now_us - 7 * _DAY_US, now_us),
        "flow page": (hour - 7 * _DAY_US, hour),
        "today": (midnight, today_end),
        "three days until tonight": (midnight - 2 * _DAY_US, today_end),
        "3601 seconds": (minute - 3601 * _SECOND_US, minute),
        "39 seconds": (now_us - 39 * _SECOND_US, now_us),
        "a whole month": (midnight - 29 * _DAY_US, midnight + _DAY_US),
    }


def _vue(start_ms: int, end_ms: int, chosen: Chosen) -> Iterator[Sent]:
    started = {"start_time": {"before_": _text(end_ms), "after_": _text(start_ms)}}
    around: Body
    if chosen.flow is not None:
        around = {"flows": {"id": {"any_": [chosen.flow]}}}
    else:
        # Always an object, also when nothing is chosen.
        around = {"flow_runs": {}}
        if chosen.tags:
            around["flow_runs"]["tags"] = {"any_": [*chosen.tags]}
        if chosen.hide_subflows:
            around["flow_runs"]["parent_task_run_id"] = {"is_null_": True}
    yield _history("vue", start_ms, end_ms, (end_ms - start_ms) / _BINS / 1000, {**around, "task_runs": started})
    for name, types in _COUNTED.items():
        own = {"subflow_runs": {"exists_": False}, "state": {"type": {"any_": types}}}
        yield Sent(f"vue count {name}", COUNT, {**around, "task_runs": {**started, **own}})
        yield Sent(f"vue count {name}, ever", COUNT, {**around, "task_runs": own})


def _react(start_ms: int, end_ms: int, chosen: Chosen) -> Iterator[Sent]:
    started = {"start_time": {"after_": _text(start_ms), "before_": _text(end_ms)}}
    around: Body
    if chosen.flow is not None:
        around = {"flows": {"operator": "and_", "id": {"any_": [chosen.flow]}}}
    else:
        around = {"flow_runs": {"operator": "and_"}}
        if chosen.tags:
            around["flow_runs"]["tags"] = {"operator": "and_", "any_": [*chosen.tags]}
        if chosen.hide_subflows:
            around["flow_runs"]["parent_task_run_id"] = {"operator": "and_", "is_null_": True}
    width = max(1, (end_ms - start_ms) // 1000 // _BINS)
    yield _history("react", start_ms, end_ms, width, {**around, "task_runs": {"operator": "and_", **started}})
    for name, types in _COUNTED.items():
        own = {
            "operator": "and_",
            "subflow_runs": {"exists_": False},
            "state": {"operator": "and_", "type": {"any_": types}},
        }
        yield Sent(f"react count {name}", COUNT, {**around, "task_runs": {**own, **started}})
        yield Sent(f"react count {name}, ever", COUNT, {**around, "task_runs": own})


def _history(page: str, start_ms: int, end_ms: int, width_s: float, filters: Body) -> Sent:
    body = {"history_start": _text(start_ms), "history_end": _text(end_ms), "history_interval_seconds": width_s}
    return Sent(f"{page} history", HISTORY, {**body, **filters})


def _text(moment_ms: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=moment_ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

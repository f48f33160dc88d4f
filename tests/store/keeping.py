"""The reference with retentions: a shard's log with its record timestamps, and what is left of it."""

from __future__ import annotations

from typing import Any

from tests.reference.entities import Row
from tests.reference.events import parse
from tests.reference.history import TERMINAL, Reference

DAY_US = 86_400_000_000


class Keeping(Reference):
    """Frozen runs are rows that stay as they were; of what is forgotten, nothing is known."""

    def __init__(self, raw_days: int, rollup_days: int) -> None:
        super().__init__()
        self._days = raw_days, rollup_days
        self._today = 0
        self._old: dict[str, dict[str, Row | None]] = {}
        self._old_flow_runs: dict[str, int] = {}
        self._deleted: dict[tuple[str, str], int] = {}
        self.dropped = 0

    @property
    def horizons_us(self) -> tuple[int, int]:
        """The oldest instants of which records and cells are complete."""
        raw, cells = (max(0, self._today - days) * DAY_US for days in self._days)
        return raw, cells

    def tell(self, event: dict[str, Any], record_us: int) -> None:
        """Take in an event of the log."""
        if record_us // DAY_US > self._today:
            self._today = record_us // DAY_US
            self._expire()
        fact = parse(event, None)
        known, deleted = self._estate.known, self._estate.deleted
        if fact.id in deleted[fact.entity]:
            return
        if fact.entity == "task_run":
            if fact.flow_run_id in deleted["flow_run"]:
                return
            if fact.id in self._old:
                self.dropped += 1
                return
            if fact.id not in known["task_run"] and fact.action != "delete":
                fields = {name: value for name, (_, value) in fact.fields.items()}
                state = fields.get("state")
                last = _last(fields.get("start_time"), state and state[2])
                when = fields.get("expected_start_time") or last
                if when is not None and when < self.horizons_us[1]:
                    self.dropped += 1
                    return
            self._estate.flow_run_of[fact.id] = fact.flow_run_id
        elif fact.id in self._old_flow_runs:
            self.dropped += 1
            return
        if fact.action == "delete":
            self._deleted[fact.entity, fact.id] = self._today
            known[fact.entity].pop(fact.id, None)
            if fact.entity == "flow_run":
                for run, owner in self._estate.flow_run_of.items():
                    if owner == fact.id:
                        known["task_run"].pop(run, None)
                        deleted["task_run"].discard(run)
        self._estate.apply(fact)
        self._rows = None

    def task_runs(self) -> list[dict[str, Row | None]]:
        return [*super().task_runs(), *self._old.values()]

    def _expire(self) -> None:
        raw, cells = self.horizons_us
        known = self._estate.known
        for row in self._estate.rows():
            run = row["task_run"]
            assert run is not None
            expected = run["expected_start_time"]
            last = _last(expected, run["start_time"], run["state_timestamp"])
            if run["state_type"] not in TERMINAL or last is None or last >= (cells if expected is None else raw):
                continue
            if expected is not None and expected >= cells:
                self._old[run["id"]] = row
            del known["task_run"][run["id"]]
        with_runs = {self._estate.flow_run_of[run] for run in known["task_run"]}
        for own_id in known["flow_run"].keys() - with_runs:
            flow_run = self._estate._values("flow_run", own_id)
            times = [flow_run[name] for name in ("state_timestamp", "start_time", "end_time", "expected_start_time")]
            last = _last(*times)
            if flow_run["state_type"] in TERMINAL and last is not None and last < raw:
                del known["flow_run"][own_id]
                if last >= cells:
                    self._old_flow_runs[own_id] = last
        self._old = {
            run: row for run, row in self._old.items() if (row["task_run"] or {})["expected_start_time"] >= cells
        }
        self._old_flow_runs = {
            run: last for run, last in self._old_flow_runs.items() if last // DAY_US * DAY_US >= cells
        }
        for (entity, own_id), day in [*self._deleted.items()]:
            if day * DAY_US < cells:
                del self._deleted[entity, own_id]
                self._estate.deleted[entity].discard(own_id)
        self._rows = None


def _last(*times: int | None) -> int | None:
    return max((time for time in times if time is not None), default=None)

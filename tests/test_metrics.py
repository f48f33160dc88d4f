"""The catalogue of metrics is what the processes show, and each row says what it means."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from runtally.metrics import METRICS, PREFIX, Metric, Metrics

SOURCE = Path(__file__).parents[1] / "src" / "runtally"


@pytest.mark.parametrize("row", METRICS, ids=lambda row: row.name)
def test_a_row_is_counted_somewhere_and_named_as_prometheus_wants(row: Metric) -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py") if path.name != "metrics.py")
    assert f'"{row.name}"' in code
    assert row.name.endswith("_total") == (row.kind == "counter")
    assert bool(row.buckets) == (row.kind == "histogram")
    assert re.search(r"[.:]", row.meaning)


@pytest.mark.parametrize("process", ["worker", "api"])
def test_a_process_shows_its_own_rows(process: str) -> None:
    metrics = Metrics(process)  # type: ignore[arg-type]
    for row in METRICS:
        if process in row.shown_by:
            live = metrics[row.name].labels(*["x" for _ in row.labels]) if row.labels else metrics[row.name]
            live.observe(1) if row.kind == "histogram" else live.inc()
    families = {family.name: family for family in text_string_to_metric_families(metrics.text().decode())}
    assert {name for name in families if name.startswith(PREFIX) and not name.endswith("_created")} == {
        PREFIX + row.name.removesuffix("_total") for row in METRICS if process in row.shown_by
    }
    assert "process_resident_memory_bytes" in families


def test_a_shard_that_is_given_up_leaves_its_counters_and_no_gauges() -> None:
    metrics = Metrics("worker")
    for shard in ("1", "2"):
        metrics["events_applied_total"].labels(shard).inc()
        metrics["shard_state"].labels(shard, "live").set(1)
        metrics["behind_records"].labels(shard).set(7)
    metrics.forget("1")
    text = metrics.text().decode()
    assert 'events_applied_total{shard="1"}' in text
    assert 'shard_state{shard="1"' not in text
    assert 'behind_records{shard="1"}' not in text
    assert 'shard_state{shard="2",state="live"} 1' in text

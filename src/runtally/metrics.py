"""Every number that runtally shows at `/metrics`, and what each one means to the operator.

A row of `METRICS` is a metric; whoever counts takes the live object by the row's name. The table in the docs is made
from the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

Kind = Literal["counter", "gauge", "histogram"]
PREFIX: Final = "runtally_"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name without the prefix `runtally_`, its labels, and what it tells. `buckets` are upper bounds
    in the metric's own unit, for histograms only."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()


METRICS: Final = (
    Metric(
        "events_applied_total",
        "counter",
        ("shard",),
        "Events that changed something. Its rate is the worker's throughput.",
    ),
    Metric(
        "events_stale_total",
        "counter",
        ("shard",),
        "Events that said nothing newer than what is known: duplicates, replays, late arrivals. Harmless; a steady "
        "high share means that a producer sends everything twice.",
    ),
    Metric(
        "events_ignored_total",
        "counter",
        ("shard",),
        "Events that are understood and of no interest, such as Prefect's heartbeats.",
    ),
    Metric(
        "events_bad_total",
        "counter",
        ("shard", "reason"),
        "Events that break the contract and went to the dead letters. Anything but 0 asks for a look at a producer.",
    ),
    Metric(
        "events_forwarded_total",
        "counter",
        ("shard",),
        "Events that sat in the wrong partition and were sent on to their own. They cost twice: set "
        "partitioner=murmur2_random in producers that use librdkafka.",
    ),
    Metric("batches_total", "counter", ("shard",), "Commits to Redis; events divided by batches is the batch size."),
    Metric(
        "batch_seconds",
        "histogram",
        ("shard",),
        "From the first look at a batch to its commit in Redis. Rising: Redis or the machine is the bottleneck.",
        (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
    ),
    Metric(
        "delay_seconds",
        "gauge",
        ("shard",),
        "Age of the newest record of the last batch when it was committed: how far answers are behind events.",
    ),
    Metric(
        "behind_records",
        "gauge",
        ("shard",),
        "Records of the log that are not applied yet. Rising: add workers, up to one a partition.",
    ),
    Metric(
        "reopened_total",
        "counter",
        ("shard", "reason"),
        "How often a shard's ledger had to be read again: `assigned` is ordinary, `fenced` means that another worker "
        "wrote, `lost` that a server went away, `moved` that Redis was emptied, restored or failed over or that an "
        "operator moved the ledger, `repaired` that a stopped shard goes on.",
    ),
    Metric(
        "shard_state",
        "gauge",
        ("shard", "state"),
        "1 for the state that each of this worker's shards is in: `live`, `waiting` to be opened or for a server, or "
        "`stopped`, which needs a decision: /health says which.",
    ),
)


class Metrics:
    """The live metrics of one process, in a registry of their own."""

    def __init__(self, rows: Sequence[Metric] = METRICS) -> None:
        self.registry = CollectorRegistry()
        self._live = {row.name: _make(row, self.registry) for row in rows}

    def __getitem__(self, name: str) -> Any:
        """The live metric; label it with `.labels(...)`, in the order of its row."""
        return self._live[name]

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)


def _make(row: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    name = PREFIX + row.name
    if row.kind == "histogram":
        return Histogram(name, row.meaning, row.labels, registry=registry, buckets=row.buckets)
    kind = Counter if row.kind == "counter" else Gauge
    return kind(name, row.meaning, row.labels, registry=registry)

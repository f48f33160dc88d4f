"""Every number that runtally shows at `/metrics`, and what each one means to the operator.

A row of `METRICS` is a metric; whoever counts takes the live object by the row's name. The table in the docs is made
from the same rows. Whatever is counted is counted once a batch or once an answer, never once an event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

Kind = Literal["counter", "gauge", "histogram"]
Process = Literal["worker", "api"]
PREFIX: Final = "runtally_"
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_SHARD: Final = "shard"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name without the prefix `runtally_`, its labels, the processes that show it, and what it tells.
    `buckets` are upper bounds in the metric's own unit, for histograms only."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()
    shown_by: tuple[Process, ...] = ("worker",)


_SECONDS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_API: Final[tuple[Process, ...]] = ("api",)
_BOTH: Final[tuple[Process, ...]] = ("worker", "api")

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
        "Events that are older than what is known: late arrivals, replays, runs that are deleted. Harmless.",
    ),
    Metric(
        "events_frozen_total",
        "counter",
        ("shard",),
        "Events of runs that are too old to change, beyond the raw retention, and were dropped. Many of them: a replay "
        "of old history, or RUNTALLY_RAW_RETENTION is shorter than producers take.",
    ),
    Metric(
        "events_duplicate_total",
        "counter",
        ("shard",),
        "Events that say once more, with the same times, what is known. Harmless; a steady high share means that a "
        "producer sends everything twice.",
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
    Metric(
        "batch_events",
        "histogram",
        ("shard",),
        "Records of a batch; its count is the number of commits. Small on a quiet log, thousands while catching up.",
        (1, 10, 100, 500, 1000, 2000, 4000, 8000, 16_000, 32_000),
    ),
    Metric(
        "batch_seconds",
        "histogram",
        ("shard",),
        "From the first look at a batch to its commit in Redis. Rising: Redis or the machine is the bottleneck.",
        _SECONDS,
    ),
    Metric(
        "commit_seconds",
        "histogram",
        ("shard",),
        "The part of it after parsing: reading what the batch touches, folding it, and the commit. Nearly all of the "
        "batch's time: Redis is slow or far away. A small part of it: the events are large.",
        _SECONDS,
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
        "Records of the log that are not applied yet. Rising: add workers, up to one a partition. A worker shows its "
        "own shards, the API all of them, also those that no worker has.",
        shown_by=_BOTH,
    ),
    Metric(
        "load_bytes",
        "gauge",
        (),
        "About the memory of events on their way from Kafka to Redis. Close to three eighths of RUNTALLY_WORKER_MEMORY "
        "while Redis is slow, and never more: what has no room stays in Kafka. All the memory of the worker is "
        "`process_resident_memory_bytes`.",
    ),
    Metric(
        "fenced_total",
        "counter",
        ("shard",),
        "Commits that the ledger refused because somebody else had written. Some at a rebalance are ordinary; a steady "
        "rate means that two groups of workers write to the same RUNTALLY_REDIS_PREFIX.",
    ),
    Metric(
        "seeks_total",
        "counter",
        ("shard", "reason"),
        "How often a shard's ledger was read again and the consumer sent to where it says: `assigned` is ordinary, "
        "`fenced` means that another worker wrote, `lost` that a server went away, `moved` that Redis was emptied, "
        "restored or failed over or that an operator moved the ledger, `repaired` that a stopped shard goes on, "
        "`rebuilt` that its cells were of another version and are not any more.",
    ),
    Metric(
        "shard_state",
        "gauge",
        ("shard", "state"),
        "1 for the state that each of this worker's shards is in: `live`, `waiting` to be opened or for a server, or "
        "`stopped`, which needs a decision: /health says which.",
    ),
    Metric(
        "numbered",
        "gauge",
        ("shard", "what"),
        "`states` and `cohorts` that the shard counts apart. At RUNTALLY_MAX_STATES or RUNTALLY_MAX_COHORTS: new "
        "names, and new sets of tags, are answered from raw runs from then on.",
    ),
    Metric(
        "verified_cells_total",
        "counter",
        ("shard",),
        "Cells that the running check (RUNTALLY_VERIFY_EVERY) held against raw runs.",
    ),
    Metric(
        "verify_age_seconds",
        "gauge",
        ("shard",),
        "How long ago a day of the shard was checked. Much more than RUNTALLY_VERIFY_EVERY: the check does not get "
        "through. Not there before the first one.",
    ),
    Metric(
        "wrong_cells",
        "gauge",
        ("shard",),
        "Cells that the running check found to be wrong, and that are so still. Anything but 0 is a defect of runtally "
        "or means that something else writes to its keys: the log names them once.",
    ),
    Metric(
        "answers_total",
        "counter",
        ("route", "plan"),
        "Answers by how they were found: `cells` alone, `edges` with raw runs of some minutes, or a `scan` of raw "
        "runs. Many scans: look at what is asked with `runtally history --explain`.",
        shown_by=_API,
    ),
    Metric(
        "answer_seconds",
        "histogram",
        ("route", "plan"),
        "How long an answer took, from the body to its bytes.",
        (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
        shown_by=_API,
    ),
    Metric(
        "refusals_total",
        "counter",
        ("status",),
        "Requests that were not answered, by HTTP status. 503: not ready, a server is away, or too much at once. "
        "500: a defect, the log has it.",
        shown_by=_API,
    ),
    Metric(
        "raw_rows_total",
        "counter",
        ("plan",),
        "Raw runs that answers looked at: by `scan`, and at the `edges` of answers from cells.",
        shown_by=_API,
    ),
    Metric(
        "cache_sums_total",
        "counter",
        ("outcome",),
        "Buckets that answers needed: `hit` when their sum was here, else `miss`. Mostly misses: RUNTALLY_API_CACHE is "
        "too small, or everybody asks something else.",
        shown_by=_API,
    ),
    Metric(
        "cache_bytes",
        "gauge",
        ("part",),
        "About the memory of what is kept from Redis: `cells` of each shard and decoded `runs`, and `sums` over the "
        "shards. Bounded by RUNTALLY_API_CACHE.",
        shown_by=_API,
    ),
    Metric(
        "runs",
        "gauge",
        ("state_type",),
        "Task runs there are, by the type of their state; `OTHER` are those without a state and those whose state "
        "names are past RUNTALLY_MAX_STATES.",
        shown_by=_API,
    ),
)


class Metrics:
    """The live metrics of one process, in a registry of their own, with memory and CPU of the process."""

    def __init__(self, process: Process, rows: Sequence[Metric] = METRICS) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._rows = [row for row in rows if process in row.shown_by]
        self._live = {row.name: _make(row, self._registry) for row in self._rows}

    def __getitem__(self, name: str) -> Any:
        """The live metric; label it with `.labels(...)`, in the order of its row."""
        return self._live[name]

    def of_shard(self, shard: str) -> Mapping[str, Any]:
        """The live counters and histograms that have no label but this shard: looked up once, they cost a batch little
        when it counts. They are shown from now on, as 0."""
        return {
            row.name: self._live[row.name].labels(shard)
            for row in self._rows
            if row.kind != "gauge" and row.labels == (_SHARD,)
        }

    def forget(self, shard: str) -> None:
        """Show no gauges of a shard any more, which is another worker's now: they would stand still."""
        for row in self._rows:
            if row.kind == "gauge" and _SHARD in row.labels:
                self._live[row.name].remove_by_labels({_SHARD: shard})

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry)


def _make(row: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    name = PREFIX + row.name
    if row.kind == "histogram":
        return Histogram(name, row.meaning, row.labels, registry=registry, buckets=row.buckets)
    kind = Counter if row.kind == "counter" else Gauge
    return kind(name, row.meaning, row.labels, registry=registry)

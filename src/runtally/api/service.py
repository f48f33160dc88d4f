"""What the HTTP layer asks of whoever computes answers, and what an answer says.

The HTTP layer knows nothing of shards, cells and scans; the service knows nothing of JSON and status codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ..core.bins import Bins
from ..core.combine import Entry
from ..core.request import Filters, HistoryRequest

Found = Literal["cells", "edges", "scan"]
"""How an answer was found: from cells alone, with raw runs of some minutes, or by a scan of raw runs."""


@dataclass(frozen=True, slots=True)
class Stand:
    """Of what an answer is true.

    `ledger`: the next offset of each shard by its name (`c` is the catalog), `epochs` likewise. `exact` is
    False where runs that no longer have raw records were decided by whole minutes; `frozen_before_us` is then
    the instant up to which that is so. `plan` is one line of ASCII on how the answer was found, `spent_s` the
    seconds that its steps took; `found` the same in a word, and `raw_rows` how many raw runs were looked at for it.
    """

    now_us: int
    ledger: Mapping[str, int]
    epochs: Mapping[str, str]
    exact: bool = True
    frozen_before_us: int | None = None
    plan: str = ""
    spent_s: Mapping[str, float] = field(default_factory=dict)
    found: Found = "cells"
    raw_rows: int = 0


@dataclass(frozen=True, slots=True)
class HistoryAnswer:
    """`entries[k]` are the states of bin k, by state type and then name in byte order."""

    bins: Bins
    entries: Sequence[Sequence[Entry]]
    stand: Stand


@dataclass(frozen=True, slots=True)
class CountAnswer:
    """The number of runs that the filters select, with or without an expected start time."""

    count: int
    stand: Stand


@dataclass(frozen=True, slots=True)
class Share:
    """What of an answer came from the cells of one kind of scope at one level."""

    scope: str
    level: str
    buckets: int
    cells: int


@dataclass(frozen=True, slots=True)
class Work:
    """What an answer reads: buckets of cells, and runs of raw minutes (a minute counts once a shard)."""

    buckets: int
    minutes: int
    rows: int


@dataclass(frozen=True, slots=True)
class Way:
    """A way in which the question could be answered, by the kind of scope whose cells it reads or `scan`, and about
    what it costs: `values`, packed cells of one scope and bucket to read from Redis when none is here, and raw runs."""

    name: str
    buckets: int
    values: int
    rows: int
    taken: bool


@dataclass(frozen=True, slots=True)
class Reason:
    """Why raw runs were needed. `about`: the filter as it was written, or an edge; `minutes`: how many minutes of
    raw runs that took, None for all; `instead`: what would avoid it."""

    about: str
    minutes: int | None
    why: str
    instead: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """How the answer to a history request is found. `estimated` is what could be told before anything was read for it,
    `real` what it took; `shares` are in the order in which they were used."""

    bins: Bins
    scan: bool
    shares: Sequence[Share]
    estimated: Work
    real: Work
    ways: Sequence[Way]
    reasons: Sequence[Reason]
    stand: Stand


@dataclass(frozen=True, slots=True)
class Figures:
    """What there is to watch: task runs by state type (`OTHER`: of none that is known), next offsets by shard, about
    the bytes that are kept by kind; sums of buckets that answers since the last figures found here, and did not."""

    runs: Mapping[str, int]
    ledger: Mapping[str, int]
    kept_bytes: Mapping[str, int]
    hits: int
    misses: int


class HistoryService(Protocol):
    """Answers requests from `start()` to `stop()`."""

    async def start(self) -> None:
        """Begin to follow the shards; returns at once, also while servers are away."""

    async def stop(self) -> None:
        """Let go of connections and threads."""

    async def ready(self) -> Mapping[str, int]:
        """The next offset of each shard if an answer would be complete now, else raise `NotReadyError` with the
        reason."""

    async def history(self, request: HistoryRequest, now_us: int) -> HistoryAnswer:
        """Answer a history request as of `now_us`.

        Raises `BadRequestError`, `TooLargeError`, `NotReadyError`, `BusyError` or
        `ServerLostError`.
        """

    async def count(self, filters: Filters, now_us: int) -> CountAnswer:
        """Count the runs that the filters select; raises as `history` does."""

    async def explain(self, request: HistoryRequest, now_us: int) -> Explanation:
        """Find the answer as `history` does, and say how it was found; raises as `history` does."""

    async def figures(self) -> Figures:
        """What there is to watch. Raises `NotReadyError`, `BusyError` or `ServerLostError`."""

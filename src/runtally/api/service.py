"""What the HTTP layer asks of whoever computes answers, and what an answer says.

The HTTP layer knows nothing of shards, cells and scans; the service knows nothing of JSON and status codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..core.bins import Bins
from ..core.combine import Entry
from ..core.request import Filters, HistoryRequest


@dataclass(frozen=True, slots=True)
class Stand:
    """Of what an answer is true.

    `ledger`: the next offset of each shard by its name (`c` is the catalog), `epochs` likewise. `exact` is
    False where runs that no longer have raw records were decided by whole minutes; `frozen_before_us` is then
    the instant up to which that is so. `plan` is one line on how the answer was found.
    """

    now_us: int
    ledger: Mapping[str, int]
    epochs: Mapping[str, str]
    exact: bool = True
    frozen_before_us: int | None = None
    plan: str = ""


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


class HistoryService(Protocol):
    """Answers requests from `start()` to `stop()`."""

    async def start(self) -> None:
        """Begin to follow the shards; returns at once, also while servers are away."""

    async def stop(self) -> None:
        """Let go of connections and threads."""

    async def ready(self) -> None:
        """Return if an answer would be complete now, else raise `NotReadyError` with the reason."""

    async def history(self, request: HistoryRequest, now_us: int) -> HistoryAnswer:
        """Answer a history request as of `now_us`.

        Raises `BadRequestError`, `TooLargeError`, `NotReadyError`, `BusyError` or
        `ServerLostError`.
        """

    async def count(self, filters: Filters, now_us: int) -> CountAnswer:
        """Count the runs that the filters select; raises as `history` does."""

"""What the API counts of its answers, and `/metrics`, for which the rest is looked up when it is asked for."""

from __future__ import annotations

from ..errors import SystemError_
from ..metrics import Metrics
from .lag import Lag
from .service import HistoryService, Stand

_LOOKED_UP = ("behind_records", "cache_bytes", "runs")


class Watching:
    """Counts for one application."""

    def __init__(self, history: HistoryService, lag: Lag) -> None:
        self._metrics = Metrics("api")
        self._history = history
        self._lag = lag

    def answered(self, route: str, stand: Stand, spent_s: float) -> None:
        """Count an answer."""
        count = self._metrics
        count["answers_total"].labels(route, stand.found).inc()
        count["answer_seconds"].labels(route, stand.found).observe(spent_s)
        if stand.raw_rows:
            count["raw_rows_total"].labels(stand.found).inc(stand.raw_rows)

    def refused(self, status: int) -> None:
        """Count a request that gets no answer."""
        self._metrics["refusals_total"].labels(status).inc()

    async def text(self) -> bytes:
        """Everything, in Prometheus' text format. What cannot be told now is not there."""
        show = self._metrics
        for name in _LOOKED_UP:
            show[name].clear()
        try:
            figures = await self._history.figures()
        except SystemError_:
            return show.text()
        for state_type, runs in figures.runs.items():
            show["runs"].labels(state_type).set(runs)
        for part, kept in figures.kept_bytes.items():
            show["cache_bytes"].labels(part).set(kept)
        for shard, behind in (self._lag.by_shard(figures.ledger) or {}).items():
            show["behind_records"].labels(shard).set(behind)
        show["cache_sums_total"].labels("hit").inc(figures.hits)
        show["cache_sums_total"].labels("miss").inc(figures.misses)
        return show.text()

"""What dashboards ask, as `runtally bench query` measures it: answered from cells.

cold      every copy that the API held is dropped, the code is warm and the connections are open
warm      the same kind of question was asked before, with other ends
writes    warm, while 1,000 events a second of the newest ten minutes are applied
clients10 warm, ten clients at once

200 questions of each, fewer where that would take more than 20 s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any, Final

import numpy as np

from ..core.levels import DAY_US, MINUTE_US
from .bench_client import Client, Question
from .bench_estate import DAYS, Estate
from .bench_servers import Say, Watched

_COLD: Final = 5
_UNWATCHED_S: Final = 0.5
"""So long after the last question the API does not look by itself any more: what was dropped, the next one finds."""
_WARM: Final = 200
_WARMING: Final = 60
_FEW_RUNS: Final = 50_000
_FEW: Final = 10
"""Below so many runs there is nothing to measure but that it works: so few questions."""
_TEN: Final = 10
_HOUR_US: Final = 60 * MINUTE_US
_WEEK_US: Final = 7 * DAY_US

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """Milliseconds of one shape of question in one mode, and the API's CPU time an answer."""

    shape: str
    runs: int
    mode: str
    p50_ms: float
    p99_ms: float
    api_cpu_ms: float


@dataclass(frozen=True, slots=True)
class _Dashboard:
    """Builds bodies: ends at a random µs of the last ten minutes, unless `aligned`."""

    estate: Estate
    random: Random

    def body(self, span_us: int, width_us: int, **filters: Any) -> Body:
        end_us = self.estate.end_us - self.random.randrange(10 * MINUTE_US)
        return _body(end_us - span_us, end_us, width_us, filters)

    def week(self, flow_runs: Body | None = None, task_runs: Body | None = None, **filters: Any) -> Body:
        end_us = self.estate.end_us - self.random.randrange(10 * MINUTE_US)
        begin_us = end_us - _WEEK_US
        between = {"after_": _text(begin_us), "before_": _text(end_us)}
        tasks = {"operator": "and_", "start_time": between, **(task_runs or {})}
        more = {"task_runs": tasks, **filters}
        if flow_runs is not None:
            more["flow_runs"] = {"operator": "and_", **flow_runs}
        return _body(begin_us, end_us, _WEEK_US // 20, more)

    def daily(self) -> Body:
        end_us = self.estate.end_us
        return _body(end_us - DAYS * DAY_US, end_us, DAY_US, {})

    def flow(self) -> Body:
        flow = self.random.choice(self.estate.flows)
        return self.week(flows={"operator": "and_", "id": {"any_": [flow.hex()]}})

    def two_tags(self) -> Body:
        return self.week({"tags": {"operator": "and_", "any_": ["etl", "team-3"]}})

    def deployment(self) -> Body:
        deployment = self.random.choice(self.estate.deployments)
        return self.week({"deployment_id": {"operator": "and_", "any_": [deployment.hex()]}})

    def no_subflows(self) -> Body:
        return self.week({"parent_task_run_id": {"operator": "and_", "is_null_": True}})


_SHAPES: Final[tuple[tuple[str, Callable[[_Dashboard], Body]], ...]] = (
    ("a: 1 h by minute", lambda d: d.body(_HOUR_US, MINUTE_US)),
    ("b: 24 h by 5 min", lambda d: d.body(DAY_US, 5 * MINUTE_US)),
    ("c: 7 d dashboard", lambda d: d.week({})),
    ("d: flow page", _Dashboard.flow),
    ("e: 30 d daily", _Dashboard.daily),
    ("f: c + two tags", _Dashboard.two_tags),
    ("g: c + name like", lambda d: d.week({}, {"name": {"like_": f"orders-{d.random.randrange(256):02x}"}})),
    ("h: c + deployment", _Dashboard.deployment),
    ("i: c + hide subflows", _Dashboard.no_subflows),
)
_DASHBOARD: Final = _SHAPES[2]
_PATH: Final = "/api/task_runs/history"


async def dashboards(estate: Estate, api: Watched, where: tuple[str, int], runs: int, say: Say) -> list[Query]:
    """Ask every shape in every mode. Raises `SystemError_` when the API answers with another status than 200."""
    client = Client(*where)
    asked = _Asked(client, api, _Dashboard(estate, Random(7)), runs, say)
    try:
        found = [await asked.cold(shape) for shape in _SHAPES]
        found += [await asked.warm(shape) for shape in _SHAPES]
        found.append(await asked.measured(_DASHBOARD, "clients10", _WARM, _TEN))
        writing = asyncio.create_task(_write(estate))
        try:
            found += [await asked.warm(shape, "writes") for shape in _SHAPES]
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
    finally:
        client.close()
    return found


class _Asked:
    def __init__(self, client: Client, api: Watched, dashboard: _Dashboard, runs: int, say: Say) -> None:
        self._client = client
        self._api = api
        self._dashboard = dashboard
        self._runs = runs
        self._say = say

    async def cold(self, shape: tuple[str, Callable[[_Dashboard], Body]]) -> Query:
        await self._ask(self._questions(shape, 2))
        found: list[float] = []
        spent = 0.0
        for _ in range(_COLD):
            await asyncio.sleep(_UNWATCHED_S)
            await self._dashboard.estate.forget()
            before = self._api.cpu_s()
            found += await self._ask(self._questions(shape, 1))
            spent += self._api.cpu_s() - before
        return self._query(shape[0], "cold", found, spent)

    async def warm(self, shape: tuple[str, Callable[[_Dashboard], Body]], mode: str = "warm") -> Query:
        few = self._runs < _FEW_RUNS
        await self._ask(self._questions(shape, _FEW if few else _WARMING))
        return await self.measured(shape, mode, _FEW if few else _WARM)

    async def measured(
        self, shape: tuple[str, Callable[[_Dashboard], Body]], mode: str, times: int, clients: int = 1
    ) -> Query:
        before = self._api.cpu_s()
        found = await self._ask(self._questions(shape, times), clients)
        return self._query(shape[0], mode, found, self._api.cpu_s() - before)

    def _questions(self, shape: tuple[str, Callable[[_Dashboard], Body]], times: int) -> list[Question]:
        return [(_PATH, shape[1](self._dashboard)) for _ in range(times)]

    async def _ask(self, questions: Sequence[Question], clients: int = 1) -> list[float]:
        return await asyncio.to_thread(self._client.ask, questions, clients)

    def _query(self, shape: str, mode: str, found: list[float], cpu: float) -> Query:
        p50_ms, p99_ms = (round(float(ms), 2) for ms in np.percentile(found, (50, 99)))
        mean_ms = round(cpu * 1000 / len(found), 2)
        self._say(f"{shape} {mode}: {p50_ms} ms median, {p99_ms} ms p99; {mean_ms} ms of the API's CPU")
        return Query(shape, self._runs, mode, p50_ms, p99_ms, mean_ms)


async def _write(estate: Estate) -> None:
    """1,000 events a second, a hundred at a time, until it is cancelled."""
    begin = time.monotonic()
    step = 0
    while True:
        await estate.happen(step % 10, 10)
        step += 1
        await asyncio.sleep(max(0.0, begin + step * 0.1 - time.monotonic()))


def _body(begin_us: int, end_us: int, width_us: int, filters: Body) -> Body:
    return {
        "history_start": _text(begin_us),
        "history_end": _text(end_us),
        "history_interval_seconds": width_us / 1_000_000,
        **filters,
    }


def _text(moment_us: int) -> str:
    return datetime.fromtimestamp(moment_us / 1e6, UTC).isoformat(timespec="microseconds")

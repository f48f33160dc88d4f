"""`runtally bench query`: how fast the API answers what dashboards ask, and filters that have to scan raw runs.

The API is a process of its own, asked over one connection that stays open. No two questions are the same, so that no
answer can come from anywhere but the runs.

    cold            every copy that the API held is dropped, the code is warm and the connections are open
    warm            the runs are in its memory as columns
    after_events    1,000 events of the newest ten minutes came since the last question
    idle            what answers at once, while nothing else is asked
    beside_scan     the same beside one `like_256` after the other

What dashboards ask has modes of its own, see `bench_dashboards`.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final

import httpx
import numpy as np

from ..core.levels import DAY_US
from ..embedded.child import Child
from ..errors import SystemError_, UserError
from .bench_bytes import say_bytes
from .bench_dashboards import Query, dashboards
from .bench_estate import DAYS, Estate
from .bench_servers import Bench, Cost, Say, Watched, bench_of_redis, need

_STARTS_S: Final = 60.0
_LOST_S: Final = 120.0
_COLD: Final = 3
_WARM: Final = 30
_AFTER: Final = 15
_LIKE_256: Final = 10
_IDLE: Final = 200
_PAUSE_S: Final = 0.01
_LONG: Final = ("%a" * 128)[:256]

Body = dict[str, Any]
Ask = Callable[[int], Awaitable[None]]


async def query(
    runs: int, only: str | None, redis_url: str | None, say: Say, *, newest_hour: bool = False
) -> list[Query]:
    """Put that many task runs into Redis, with `newest_hour` a tenth of them into the last hour, and ask for them;
    `only`: "dashboards" or "scans".

    Raises `UserError` for a size that says nothing, `SystemError_` when the API ends or does not answer.
    """
    if runs < 1:
        raise UserError(f"--runs {runs}: at least one run has to be asked for")
    async with bench_of_redis(redis_url) as run:
        end_us = (time.time_ns() // 1000) // DAY_US * DAY_US
        estate = Estate(run.redis, run.settings, end_us, newest_hour)
        if redis_url is None:
            # Ten million runs would write tens of gigabytes to a log that nobody reads.
            await run.redis.config_set("appendonly", "no")
        api = run.child("api", "runtally", "api")
        watched = Watched(api)
        try:
            began = time.monotonic()
            await estate.load(runs)
            # As a worker does: what stays is not looked through for garbage again and again.
            gc.freeze()
            say(f"{runs:,} runs in Redis after {time.monotonic() - began:.0f} s")
            await say_bytes(run, runs, say)
            api.start()
            url = f"http://{run.settings.api_host}:{run.settings.api_port}"
            async with httpx.AsyncClient(base_url=url, timeout=_LOST_S, trust_env=False) as http:
                await _ready(http, api)
                asked = _Asked(http, watched, end_us, runs, say)
                found: list[Query] = []
                if only != "scans":
                    where = run.settings.api_host, run.settings.api_port
                    found += await dashboards(estate, watched, where, runs, say)
                if only != "dashboards":
                    found += [entry for shape in _SHAPES for entry in await _scan(asked, estate, shape)]
                    found += await _beside(asked)
        finally:
            api.stop()
            await estate.close()
        _say_memory(run, watched, say)
        return found


class _Asked:
    """The API as it is asked."""

    def __init__(self, http: httpx.AsyncClient, api: Watched, end_us: int, runs: int, say: Say) -> None:
        self._http = http
        self._api = api
        self._end_us = end_us
        self._runs = runs
        self._say = say

    async def measured(
        self, shape: str, mode: str, numbers: Iterable[int], ask: Ask, before: Ask | None = None
    ) -> Query:
        """Ask once a number; `before` is not measured."""
        found = []
        api_s = 0.0
        for number in numbers:
            if before:
                await before(number)
            spent = Cost(time.perf_counter(), self._api.cpu_s())
            await ask(number)
            spent = Cost(time.perf_counter(), self._api.cpu_s()).since(spent)
            found.append(spent.wall_s * 1000)
            api_s += spent.cpu_s
        p50_ms, p99_ms = (round(float(ms), 1) for ms in np.percentile(found, (50, 99)))
        mean_ms = round(api_s * 1000 / len(found), 2)
        self._say(f"{shape} {mode}: {p50_ms} ms median, {p99_ms} ms p99; {mean_ms:.0f} ms of the API's CPU")
        return Query(shape, self._runs, mode, p50_ms, p99_ms, mean_ms)

    async def history(self, filters: Body, days: int = DAYS) -> None:
        """One question over the newest days, a bin a day."""
        body = {
            "history_start": _text(self._end_us - days * DAY_US),
            "history_end": _text(self._end_us),
            "history_interval_seconds": 86_400,
            **filters,
        }
        answer = await self._http.post("/api/task_runs/history", json=body)
        if answer.status_code != 200 or len(answer.json()) != days:
            need(self._api.child)
            raise SystemError_(f"the API answered {answer.status_code}: {answer.text[:500]}")

    async def health(self, _: int) -> None:
        """One question that needs nothing."""
        (await self._http.get("/api/health")).raise_for_status()

    async def small(self, _: int) -> None:
        """The newest day without filters: from rollups."""
        await self.history({}, days=1)

    def text(self, us_before_end: int) -> str:
        """A time so long before the newest runs."""
        return _text(self._end_us - us_before_end)


Shape = tuple[str, Callable[[_Asked, int], Body]]


def _name_like(_: _Asked, number: int) -> Body:
    return {"task_runs": {"name": {"like_": f"orders-{number & 15:x}%{number >> 4 & 15:x}"}}}


def _mix(asked: _Asked, number: int) -> Body:
    return {
        "task_runs": {
            "operator": "or_",
            "name": {"like_": f"load%{number & 255:02x}"},
            "tags": {"all_": [f"team-{number % 8}"]},
            "end_time": {"before_": asked.text(25 * DAY_US + number * 1_000_000)},
        },
        "flow_runs": {
            "state": {"type": {"any_": ["COMPLETED", "FAILED"]}},
            "start_time": {"after_": asked.text(29 * DAY_US + number * 1_000_000)},
        },
        "deployments": {"tags": {"any_": ["etl", "nightly", f"team-{number % 5}"]}},
    }


_SHAPES: Final[tuple[Shape, ...]] = (("name_like", _name_like), ("mix", _mix))


async def _scan(asked: _Asked, estate: Estate, shape: Shape) -> list[Query]:
    name, filters = shape
    numbers = count(1)

    async def ask(_: int) -> None:
        await asked.history(filters(asked, next(numbers)))

    async def emptied(_: int) -> None:
        await estate.forget()

    await ask(0)
    cold = await asked.measured(name, "cold", range(_COLD), ask, emptied)
    await ask(0)
    warm = await asked.measured(name, "warm", range(_WARM), ask)
    await estate.happen()
    await ask(0)

    async def happened(_: int) -> None:
        await estate.happen()

    return [cold, warm, await asked.measured(name, "after_events", range(_AFTER), ask, happened)]


async def _beside(asked: _Asked) -> list[Query]:
    """Questions that need no scan, alone and beside patterns that a search tries everywhere."""
    quick: tuple[tuple[str, Ask], ...] = (("health", asked.health), ("small_history", asked.small))
    found = [await asked.measured(name, "idle", range(_IDLE), ask, _pause) for name, ask in quick]

    async def like_256(number: int) -> None:
        await asked.history({"task_runs": {"name": {"like_": f"{_LONG[:-2]}{number % 10}%"}}})

    scans = asyncio.create_task(asked.measured("like_256", "warm", range(_LIKE_256), like_256))
    beside = [asked.measured(name, "beside_scan", _until(scans), ask, _pause) for name, ask in quick]
    found += await asyncio.gather(*beside)
    found.append(await scans)
    return found


def _until(task: asyncio.Task[Any]) -> Iterable[int]:
    numbers = count()
    while not task.done():
        yield next(numbers)


async def _pause(_: int) -> None:
    await asyncio.sleep(_PAUSE_S)


async def _ready(http: httpx.AsyncClient, api: Child) -> None:
    deadline = time.monotonic() + _STARTS_S
    while time.monotonic() < deadline:
        need(api)
        try:
            if (await http.get("/api/ready")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)
    raise SystemError_(f"the API was not ready within {_STARTS_S:g} s; {api.obituary()}")


def _say_memory(run: Bench, api: Watched, say: Say) -> None:
    budget = run.settings.api_cache
    say(f"the API held at most {api.peak_bytes >> 20:,} MiB; its budget is {budget >> 20:,} MiB")


def _text(moment_us: int) -> str:
    return datetime.fromtimestamp(moment_us / 1e6, UTC).isoformat(timespec="microseconds")

"""Overload and oversize end in a clear refusal, never in a partial answer, and disturb nobody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from runtally.api import create_app, scanning
from runtally.settings import Settings
from tests.conftest import SettingsFactory
from tests.store.estate import Estate

DAY = {
    "history_start": "2026-11-24T00:00:00Z",
    "history_end": "2026-11-25T00:00:00Z",
    "history_interval_seconds": 3600,
}
FILTERED = {**DAY, "task_runs": {"name": {"like_": "task"}}}
URL = "/api/task_runs/history"


def run(number: int) -> dict[str, Any]:
    time = f"2026-11-24T10:00:{number % 60:02}Z"
    data = {
        "id": f"run-{number}",
        "flow_run_id": f"flow-run-{number // 10}",
        "name": f"task-{number}",
        "state_type": "COMPLETED",
        "state_name": "Completed",
        "state_timestamp": time,
        "expected_start_time": time,
    }
    return {"entity": "task_run", "action": "upsert", "occurred": time, "data": data}


@pytest.fixture
async def api(settings: SettingsFactory, request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    own: Settings = settings(kafka="127.0.0.1:1", **getattr(request, "param", {}))
    async with Redis.from_url(own.redis_url, protocol=2) as redis:
        estate = Estate(redis, own)
        await estate.open()
        await estate.apply([run(number) for number in range(100)], 50)
        await estate.close()
    app = create_app(own)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=30) as client:
            for _ in range(200):
                if (await client.get("/api/ready")).status_code == 200:
                    break
                await asyncio.sleep(0.01)
            yield client


def runs_of(answer: httpx.Response) -> int:
    assert answer.status_code == 200, answer.text
    return sum(state["count_runs"] for bin_ in answer.json() for state in bin_["states"])


async def test_filters_select_and_the_count_agrees(api: httpx.AsyncClient) -> None:
    body = {**DAY, "task_runs": {"name": {"like_": "task-1"}}}
    assert runs_of(await api.post(URL, json=body)) == 11
    assert (await api.post("/task_runs/count", json={"task_runs": {"name": {"like_": "task-1"}}})).json() == 11
    assert (await api.post("/task_runs/count", json={})).json() == 100


@pytest.mark.parametrize("api", [{"max_body": 1024}], indirect=True)
async def test_a_body_over_the_limit_is_413(api: httpx.AsyncClient) -> None:
    body = {**DAY, "flows": {"name": {"any_": ["x" * 2000]}}}
    assert (await api.post(URL, json=body)).status_code == 413
    assert (await api.post("/api/task_runs/count", json={"flows": {"name": {"any_": ["x" * 2000]}}})).status_code == 413


@pytest.mark.parametrize("api", [{"max_scan_rows": 50}], indirect=True)
async def test_a_scan_over_its_budget_is_422_and_names_the_filter(api: httpx.AsyncClient) -> None:
    answer = await api.post(URL, json=FILTERED)
    assert answer.status_code == 422
    detail = answer.json()["detail"]
    assert "task_runs.name.like_" in detail
    assert "RUNTALLY_MAX_SCAN_ROWS" in detail
    assert runs_of(await api.post(URL, json=DAY)) == 100


class Gate:
    """Holds every scan until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        real = scanning.history_of

        def held(*arguments: Any) -> Any:
            self.entered.set()
            self.open.wait(20)
            return real(*arguments)

        monkeypatch.setattr(scanning, "history_of", held)


async def test_others_are_answered_at_once_while_a_scan_runs(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    scan = asyncio.create_task(api.post(URL, json=FILTERED))
    await asyncio.to_thread(gate.entered.wait, 10)
    assert (await api.get("/api/health")).json() is True
    assert runs_of(await api.post(URL, json=DAY)) == 100
    assert not scan.done()
    gate.open.set()
    assert runs_of(await scan) == 100


@pytest.mark.parametrize("api", [{"max_scans": 1, "scan_wait": 200_000}], indirect=True)
async def test_a_scan_that_waits_too_long_is_503_with_retry_after(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    first = asyncio.create_task(api.post(URL, json=FILTERED))
    await asyncio.to_thread(gate.entered.wait, 10)
    second = await api.post(URL, json=FILTERED)
    assert second.status_code == 503
    assert int(second.headers["Retry-After"]) >= 1
    gate.open.set()
    assert runs_of(await first) == 100


async def test_a_pattern_too_large_for_the_engine_is_422(api: httpx.AsyncClient) -> None:
    body = {**DAY, "task_runs": {"name": {"like_": "_" * 200_000}}}
    answer = await api.post(URL, json=body)
    assert answer.status_code in (200, 422)
    if answer.status_code == 422:
        assert "like_" in answer.json()["detail"]

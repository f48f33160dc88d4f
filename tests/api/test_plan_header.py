"""Every answer says how it was found; what dashboards ask is found in cells."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from runtally.settings import Settings
from tests.asking import Asking, asking
from tests.reference.vectors import DT_US, TASK_RUN_BINS, at, body
from tests.store.estate import Estate

RANGE = {"after_": at(seconds=-100_000), "before_": at(seconds=100_000)}
WIDE: dict[str, Any] = body(at(seconds=-100_000), at(seconds=100_000), 4320.5)
ID = "11111111-1111-1111-1111-111111111111"
FROM_CELLS: tuple[dict[str, Any], ...] = (
    {},
    {"flow_runs": {}, "task_runs": {"start_time": RANGE}},
    {"flow_runs": {"operator": "and_"}, "task_runs": {"operator": "and_", "start_time": RANGE}},
    {"flow_runs": {"tags": {"any_": ["a", "b"]}, "parent_task_run_id": {"is_null_": True}}},
    {"flows": {"operator": "and_", "id": {"any_": [ID]}}, "task_runs": {"start_time": RANGE}},
    {"flows": {"name": {"like_": "etl"}}, "deployments": {"tags": {"all_": ["a"]}}},
    {"task_runs": {"state": {"type": {"any_": ["FAILED", "CRASHED"]}}, "subflow_runs": {"exists_": False}}},
)
SCANNED: tuple[dict[str, Any], ...] = (
    {"task_runs": {"name": {"like_": "a"}}},
    {"flow_runs": {"name": {"any_": ["a"]}}},
)


@pytest.fixture
async def api(settings: Callable[..., Settings]) -> AsyncIterator[Asking]:
    own = settings()
    async with Redis.from_url(own.redis_url, protocol=2) as redis:
        estate = Estate(redis, own)
        await estate.open()
        await estate.apply(TASK_RUN_BINS.events, 100)
        await estate.close()
    async with asking(own, DT_US) as found:
        await found.until_ready()
        yield found


async def test_what_dashboards_ask_is_answered_from_cells(api: Asking) -> None:
    for filters in FROM_CELLS:
        answer = await api.history({**WIDE, **filters})
        assert answer.status_code == 200
        assert not answer.headers["x-runtally-plan"].startswith("scan"), filters
        assert answer.headers["server-timing"].startswith("total;dur=")


async def test_what_cells_cannot_tell_is_scanned(api: Asking) -> None:
    for filters in SCANNED:
        answer = await api.history({**WIDE, **filters})
        assert answer.headers["x-runtally-plan"].startswith("scan"), filters

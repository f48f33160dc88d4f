"""`/metrics` of the API: how answers were found, what is kept, and how many runs there are."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from runtally.errors import NotReadyError
from tests.asking import asking
from tests.conftest import SettingsFactory
from tests.reference.history import Reference
from tests.reference.vectors import DT_US, TASK_RUN_BINS
from tests.store.estate import Estate

from .fakes import Service

SCAN = {"task_runs": {"name": {"like_": "a"}}}


async def shown(client: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    """Every number by its metric's name and the values of its labels, by the labels' names."""
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name.removeprefix("runtally_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_answers_are_counted_by_how_they_were_found(settings: SettingsFactory) -> None:
    own = settings()
    async with Redis.from_url(own.redis_url, protocol=2) as redis, asking(own, DT_US) as api:
        estate = Estate(redis, own)
        await estate.open()
        await estate.apply(TASK_RUN_BINS.events, 100)
        await api.until_ready()
        for _ in range(3):
            await api.history(TASK_RUN_BINS.range)
        await api.history(TASK_RUN_BINS.range | SCAN)
        await api.history({"history_start": "no"})
        count = (await api.client.post("/api/task_runs/count")).json()
        found = await shown(api.client)
        assert sum(found.get(("answers_total", plan, "history"), 0) for plan in ("cells", "edges")) == 3
        assert found["answers_total", "scan", "history"] == 1
        assert found["answer_seconds_count", "scan", "history"] == 1
        assert found["raw_rows_total", "scan"] > 0
        assert found["answers_total", "cells", "count"] == 1
        assert found["refusals_total", "422"] == 1
        assert found["cache_sums_total", "hit"] > 0
        assert found["cache_bytes", "sums"] > 0

        reference = Reference()
        for event in TASK_RUN_BINS.events:
            reference.apply(event)
        runs = {name[1]: value for name, value in found.items() if name[0] == "runs"}
        assert sum(runs.values()) == count > runs.pop("OTHER")
        for state_type, number in runs.items():
            assert number == reference.count({"task_runs": {"state": {"type": {"any_": [state_type]}}}}), state_type
        await estate.close()


async def test_what_cannot_be_told_now_is_not_shown(client: httpx.AsyncClient, service: Service) -> None:
    found = await shown(client)
    assert found["runs", "RUNNING"] == 3
    service.trouble = NotReadyError("no worker has started yet")
    assert (await client.post("/api/task_runs/count")).status_code == 503
    found = await shown(client)
    assert not [name for name in found if name[0] in ("runs", "cache_bytes")]
    assert found["refusals_total", "503"] == 1

"""Every answer says how it was found; what dashboards ask is found in cells."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from redis.asyncio import Redis

from runtally.api.explain import MAX_LINE, UNKNOWN, line_of_scan
from runtally.core.attributes import By
from runtally.core.filters import FILTERS
from runtally.settings import Settings
from tests.asking import Asking, asking
from tests.dashboards import HISTORY, Chosen, ranges, sent
from tests.reference.vectors import DT_US, TASK_RUN_BINS, at, body
from tests.store.estate import Estate

EXPLAIN = "/runtally/api/task_runs/history/explain"
COUNT = "/api/task_runs/count"
RANGE = {"after_": at(seconds=-100_000), "before_": at(seconds=100_000)}
WIDE: dict[str, Any] = body(at(seconds=-100_000), at(seconds=100_000), 4320.5)
ALIGNED: dict[str, Any] = body(at(days=-1), at(days=1), 3600)
DAY_US = 86_400_000_000
SHARDS = 2
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
SCANNED: tuple[tuple[dict[str, Any], list[str]], ...] = (
    ({"task_runs": {"name": {"like_": "a"}}}, ["task_runs.name.like_"]),
    ({"flow_runs": {"name": {"any_": ["a"]}, "tags": {"any_": ["b"]}}}, ["flow_runs.name.any_"]),
    ({"flow_runs": {"id": {"any_": [ID]}}}, ["flow_runs.id.any_"]),
    (
        {"flow_runs": {"state": {"type": {"not_any_": ["FAILED"]}}}, "task_runs": {"end_time": {"is_null_": True}}},
        ["flow_runs.state.type.not_any_", "task_runs.end_time.is_null_"],
    ),
)
CELLS_LINE = re.compile(r"cells=\d+( scopes=[a-z]+:\d+[mhd](,[a-z]+:\d+[mhd])*)?( raw=\d+m/\d+r)?")
SCAN_LINE = re.compile(r"scan rows=\d+ because=([a-z_.,]+)")
CELLS_TIMING = re.compile(r"read;dur=\d+\.\d, plan;dur=\d+\.\d, total;dur=\d+\.\d")
SCAN_TIMING = re.compile(r"read;dur=\d+\.\d, scan;dur=\d+\.\d, total;dur=\d+\.\d")


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


async def explained(api: Asking, question: dict[str, Any]) -> dict[str, Any]:
    """An explanation, which is as the schema says."""
    answer = await api.client.post(EXPLAIN, json=question)
    assert answer.status_code == 200, answer.text
    schemas = (await api.client.get("/api/openapi.json")).json()["components"]["schemas"]
    found: dict[str, Any] = answer.json()
    Draft202012Validator(schemas["Explanation"]).validate(found)
    assert answer.headers["x-runtally-plan"] == found["plan"]
    assert [way["taken"] for way in found["ways"]] == [True] + [False] * (len(found["ways"]) - 1)
    return found


@pytest.mark.parametrize("filters", FROM_CELLS)
async def test_what_dashboards_ask_is_answered_from_cells(api: Asking, filters: dict[str, Any]) -> None:
    for answer in (await api.history({**WIDE, **filters}), await api.client.post(COUNT, json=filters)):
        assert answer.status_code == 200
        assert CELLS_LINE.fullmatch(answer.headers["x-runtally-plan"])
        assert CELLS_TIMING.fullmatch(answer.headers["server-timing"])
        assert "x-runtally-at" in answer.headers
    found = await explained(api, {**WIDE, **filters})
    assert found["answered_by"] == "cells"
    assert sum(part["buckets"] for part in found["parts"]) == found["real"]["buckets"]
    assert sum(reason["raw_minutes"] for reason in found["because"]) == found["real"]["raw_minutes"]


@pytest.mark.parametrize("chosen", [Chosen(), Chosen(hide_subflows=True)])
async def test_of_what_dashboards_send_raw_runs_answer_only_what_an_edge_divides(
    settings: Callable[..., Settings], chosen: Chosen
) -> None:
    divides = {"edges of bins", "now", "task_runs.start_time.after_", "task_runs.start_time.before_"}
    async with twenty_runs_in_a_minute(settings()) as api:
        divided = 0
        for offset_us in (5_000_001, 60_000_000):
            for range_ in ranges(DT_US + offset_us).values():
                for question in (one.body for one in sent(*range_, chosen) if one.path == HISTORY):
                    found = await explained(api, question)
                    assert found["answered_by"] == "cells"
                    minutes = {reason["about"]: reason["raw_minutes"] for reason in found["because"]}
                    assert {word for about in minutes for word in about.split(", ")} <= divides
                    # All runs are expected in one minute.
                    assert sum(minutes.values()) <= SHARDS
                    divided += sum(minutes.values())
        assert divided > 0


@pytest.mark.parametrize(("filters", "because"), SCANNED)
async def test_a_scan_names_the_filters_that_need_it(api: Asking, filters: dict[str, Any], because: list[str]) -> None:
    for answer in (await api.history({**WIDE, **filters}), await api.client.post(COUNT, json=filters)):
        assert answer.status_code == 200
        line = SCAN_LINE.fullmatch(answer.headers["x-runtally-plan"])
        assert line is not None
        assert line[1].split(",") == because
        assert SCAN_TIMING.fullmatch(answer.headers["server-timing"])
    found = await explained(api, {**WIDE, **filters})
    assert found["answered_by"] == "scan"
    assert [reason["about"] for reason in found["because"]] == because
    assert found["estimated"]["raw_rows"] == found["real"]["raw_rows"] == 30
    assert 0 < found["real"]["raw_minutes"] <= found["estimated"]["raw_minutes"]


async def test_aligned_bins_need_no_raw_runs(api: Asking) -> None:
    found = await explained(api, ALIGNED)
    # Its running runs began after the now of these answers.
    assert [reason["about"] for reason in found["because"]] == ["runs"]
    api.now_us += DAY_US
    found = await explained(api, ALIGNED)
    assert found["because"] == []
    assert (found["real"]["raw_minutes"], found["estimated"]["raw_rows"]) == (0, 0)
    assert [way["way"] for way in found["ways"]] == ["all", "cohort", "scan"]
    assert found["ways"][2]["raw_rows"] == 30
    edges = [at(days=days).replace("+00:00", "Z") for days in (-1, 1)]
    assert found["bins"] == {"start": edges[0], "end": edges[1], "count": 48, "seconds": 3600}


async def test_an_edge_that_divides_a_minute_is_named(settings: Callable[..., Settings]) -> None:
    async with twenty_runs_in_a_minute(settings()) as api:
        found = await explained(api, body(at(seconds=-50), at(seconds=10), 60))
        assert [(reason["about"], reason["raw_minutes"]) for reason in found["because"]] == [("edges of bins", 2)]
        assert found["because"][0]["why"].startswith("2 minutes at bin edges")
        assert found["real"]["raw_rows"] == 20
        in_range = {"task_runs": {"start_time": {"after_": at(seconds=5)}}}
        found = await explained(api, {**body(at(), at(minutes=1), 60), **in_range})
        assert [reason["about"] for reason in found["because"]] == ["task_runs.start_time.after_"]


@asynccontextmanager
async def twenty_runs_in_a_minute(own: Settings) -> AsyncIterator[Asking]:
    """An API over runs that begin, one a second, when they are expected, and have all ended."""
    async with Redis.from_url(own.redis_url, protocol=2) as redis:
        estate = Estate(redis, own)
        await estate.open()
        await estate.apply([_run(number) for number in range(20)], 100)
        await estate.close()
    async with asking(own, DT_US + DAY_US) as api:
        await api.until_ready()
        yield api


def _run(number: int) -> dict[str, Any]:
    state = {"state_type": "COMPLETED", "state_name": "Completed", "state_timestamp": at(seconds=60)}
    times = {"expected_start_time": at(seconds=number), "start_time": at(seconds=number), "end_time": at(seconds=50)}
    data = {"id": f"run-{number}", "flow_run_id": f"flow-run-{number % 10}", "name": "a", "tags": [], **state, **times}
    return {"entity": "task_run", "action": "upsert", "occurred": at(seconds=60), "data": data}


async def test_one_flow_has_cells_of_its_own(api: Asking) -> None:
    api.now_us += DAY_US
    found = await explained(api, {**ALIGNED, "flows": {"id": {"any_": [TASK_RUN_BINS.ids["f-1"]]}}})
    assert [way["way"] for way in found["ways"]] == ["flow", "cohort", "scan"]
    assert {part["scope"] for part in found["parts"]} == {"flow"}
    assert found["ways"][0]["values"] <= found["ways"][1]["values"]


async def test_an_explanation_is_refused_as_the_history_is(api: Asking) -> None:
    for wrong in ({}, {**WIDE, "history_interval_seconds": 0.5}, {**WIDE, "task_runs": {"bogus": 1}}):
        answer, refused = await api.client.post(EXPLAIN, json=wrong), await api.history(wrong)
        assert answer.status_code == refused.status_code == 422
        assert answer.json() == refused.json()


async def test_nothing_in_range_is_explained_too(api: Asking) -> None:
    for filters in ({}, {"task_runs": {"name": {"like_": "a"}}}, {"flows": {"name": {"any_": ["nobody"]}}}):
        for span in (body(at(days=5), at(days=6), 3600), body(at(), at(), 3600)):
            found = await explained(api, {**span, **filters})
            assert (found["because"] != []) == (found["answered_by"] == "scan")
            assert found["real"]["raw_rows"] == 0


def test_a_line_stays_short_however_many_filters_there_are() -> None:
    for count in range(1, 40):
        line = line_of_scan(10**12, ["flow_runs.next_scheduled_start_time.before_"] * count)
        assert len(line) <= MAX_LINE
        named = line.partition("because=")[2].split(",")
        left = int(named[-1]) if named[-1].startswith("+") else 0
        assert len(named) - bool(left) + left == count


def test_everything_that_cells_do_not_know_is_told_with_what_they_do() -> None:
    rows = [
        (f"{entity.name}.{part.name}", attribute)
        for entity in FILTERS.values()
        for part in entity.parts
        for attribute in part.attributes
    ]
    raw = {column for _, attribute in rows if attribute.by is By.RAW for column in attribute.columns}
    assert raw == set(UNKNOWN)
    known = {name for name, _ in rows} - {name for name, attribute in rows if attribute.by is By.RAW}
    assert {name for unknown in UNKNOWN.values() for name in unknown.instead} <= known

"""Every filter over HTTP from a real Redis: Prefect's known selections, random ones, and estates that change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from runtally.settings import Settings
from tests import strategies
from tests.asking import Asking, Question, asking
from tests.conftest import SettingsFactory, examples
from tests.reference.history import Reference
from tests.reference.vectors import COUNTS, DT_US, SELECTIONS, Vectors, at, body
from tests.reference.vectors.told import COMPLETED, RUNNING, Told
from tests.store.estate import Estate

Body = dict[str, Any]
COUNT = "/api/task_runs/count"
HOUR_US = 3_600_000_000


class Living:
    """An estate that grows while the API is asked about it, and the reference that is told the same."""

    def __init__(self, api: Asking, estate: Estate) -> None:
        self.api = api
        self.told = Told("living")
        self._estate = estate
        self._reference = Reference()
        self._applied = 0

    async def tell(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            self._reference.apply(event)
        await self._estate.apply(events)

    async def happens(self) -> None:
        """Apply what was told since the last time, each later than all before."""
        fresh = self.told.events[self._applied :]
        for event in fresh:
            self._applied += 1
            event["occurred"] = at(hours=self._applied)
        await self.tell(fresh)

    async def asked(self, asked: Body, *, path: str = COUNT) -> int:
        """How many runs a history body selects: the history and the count are the reference's, exactly."""
        answer = await self.api.history(asked)
        assert answer.status_code == 200, answer.text
        assert answer.json() == self._reference.history(asked, self.api.now_us), asked
        count = await self.api.client.post(path, json=asked)
        assert count.status_code == 200, count.text
        assert count.json() == self._reference.count(asked), asked
        return int(count.json())

    async def selected(self, **filters: Body) -> int:
        """As `asked`, in the hour from DT on."""
        return await self.asked({**body(at(), at(hours=1), 600), **filters})


@asynccontextmanager
async def living(settings: Settings, now_us: int = DT_US + HOUR_US) -> AsyncIterator[Living]:
    async with Redis.from_url(settings.redis_url, protocol=2) as redis:
        estate = Estate(redis, settings)
        await estate.open()
        try:
            async with asking(settings, now_us) as api:
                await api.until_ready()
                yield Living(api, estate)
        finally:
            await estate.close()


# -- Prefect's known answers


@asynccontextmanager
async def holding(settings: Settings, vectors: Vectors) -> AsyncIterator[Living]:
    async with living(settings, vectors.now_us) as estate:
        await estate.tell(vectors.events)
        yield estate


@pytest.mark.parametrize("prefix", ["/api", ""])
async def test_counts_are_prefects(settings: SettingsFactory, prefix: str) -> None:
    async with holding(settings(), COUNTS) as estate:
        for filter_, expected in COUNTS.cases:
            found = await estate.asked({**COUNTS.range, **filter_}, path=f"{prefix}/task_runs/count")
            assert found == expected, filter_


async def test_selections_are_prefects(settings: SettingsFactory) -> None:
    async with holding(settings(), SELECTIONS) as estate:
        for filter_, labels in SELECTIONS.cases:
            asked = {**SELECTIONS.range, **filter_}
            assert await estate.asked(asked) == len(labels), filter_
            bins = (await estate.api.history(asked)).json()
            assert {f"t{number}" for number, bin_ in enumerate(bins) if bin_["states"]} == labels, filter_


# -- random estates and requests


async def check(settings: Settings, events: list[dict[str, Any]], questions: list[Question]) -> None:
    async with living(settings) as estate:
        await estate.tell(events[:20])
        (first, estate.api.now_us), *_ = questions
        await estate.asked(first)
        await estate.tell(events[20:])
        for asked, estate.api.now_us in questions:
            await estate.asked(asked)


@pytest.mark.property
@examples(10)
@given(strategies.estates().filter(bool), strategies.requests(50))  # the empty estate would be the only one when quick
def test_whatever_is_asked_over_http_is_answered_as_the_reference_does(
    valkey: str, events: list[dict[str, Any]], questions: list[Question]
) -> None:
    with SyncRedis.from_url(valkey) as redis:
        redis.flushall()
    asyncio.run(check(Settings(redis_url=valkey, redis_prefix="filters", max_staleness=0), events, questions))


# -- estates that change


async def test_a_task_run_may_come_before_its_flow_run_and_its_flow(settings: SettingsFactory) -> None:
    async with living(settings()) as estate:
        told = estate.told
        told.task_run("t", "R", COMPLETED, name="t", expected_start_time=at())
        await estate.happens()
        assert await estate.selected() == 1
        assert await estate.selected(flow_runs={}, flows={}) == 1
        assert await estate.selected(flow_runs={"id": {"any_": [told.ids["R"]]}}) == 1
        assert await estate.selected(flow_runs={"tags": {"is_null_": True}}) == 1
        assert await estate.selected(flow_runs={"name": {"like_": "happy"}}) == 0
        assert await estate.selected(deployments={}) == 0
        told.flow_run("R", "F", COMPLETED, name="happy", tags=["a"], flow_name="early", deployment_id="D")
        await estate.happens()
        assert await estate.selected(flow_runs={"name": {"like_": "happy"}}) == 1
        assert await estate.selected(flow_runs={"tags": {"is_null_": True}}) == 0
        assert await estate.selected(flows={"name": {"any_": ["early"]}}) == 1
        assert await estate.selected(deployments={}) == 0
        told.tell("flow", "F", name="late", tags=["f"])
        told.tell("deployment", "D", flow_id="F", name="d")
        await estate.happens()
        assert await estate.selected(flows={"name": {"any_": ["early"]}}) == 0
        assert await estate.selected(flows={"name": {"any_": ["late"]}, "tags": {"all_": ["f"]}}) == 1
        assert await estate.selected(deployments={"name": {"any_": ["d"]}}) == 1


async def test_a_task_run_without_a_flow_run_is_selected_by_its_own_fields_only(settings: SettingsFactory) -> None:
    async with living(settings()) as estate:
        estate.told.task_run("t", None, RUNNING, name="alone", expected_start_time=at())
        await estate.happens()
        assert await estate.selected(task_runs={"name": {"like_": "alone"}}) == 1
        assert await estate.selected(task_runs={"flow_run_id": {"operator": "or_", "is_null_": True}}) == 1
        for entity in ("flows", "flow_runs", "deployments"):
            assert await estate.selected(**{entity: {}}) == 0


async def test_a_deleted_flow_run_takes_its_task_runs_with_it(settings: SettingsFactory) -> None:
    async with living(settings()) as estate:
        told = estate.told
        for owner in ("R1", "R2"):
            told.flow_run(owner, "F", COMPLETED, tags=["a"])
            for number in range(3):
                told.task_run(f"{owner}-{number}", owner, COMPLETED, name="t", expected_start_time=at())
        await estate.happens()
        filters = {"task_runs": {"name": {"any_": ["t"]}}, "flow_runs": {"tags": {"all_": ["a"]}}}
        assert await estate.selected(**filters) == 6
        told.tell("flow_run", "R1", "delete")
        await estate.happens()
        assert await estate.selected(**filters) == 3
        told.task_run("R1-late", "R1", COMPLETED, name="t", expected_start_time=at())
        await estate.happens()
        assert await estate.selected(task_runs={"name": {"any_": ["t"]}}) == 3
        assert await estate.selected(flow_runs={"id": {"any_": [told.ids["R1"]]}}) == 0


async def test_a_deleted_deployment_leaves_its_id_behind(settings: SettingsFactory) -> None:
    async with living(settings()) as estate:
        told = estate.told
        told.tell("flow", "F", name="f")
        told.tell("deployment", "D", flow_id="F", name="d")
        told.flow_run("R", "F", COMPLETED, deployment_id="D")
        told.task_run("t", "R", COMPLETED, name="t", expected_start_time=at())
        await estate.happens()
        ids: Body = {"any_": [told.ids["D"]]}
        assert await estate.selected(deployments={"id": ids}) == 1
        told.tell("deployment", "D", "delete")
        await estate.happens()
        assert await estate.selected(deployments={"id": ids}) == 0
        assert await estate.selected(deployments={}) == 0
        assert await estate.selected(flow_runs={"deployment_id": ids}) == 1
        assert await estate.selected(flows={"deployment": {"is_null_": False}}) == 0
        assert await estate.selected(flows={"deployment": {"is_null_": True}}) == 1


async def test_names_and_tags_count_as_they_are_now_also_of_ended_runs(settings: SettingsFactory) -> None:
    async with living(settings()) as estate:
        told = estate.told
        told.tell("flow", "F", name="old-flow", tags=["old"])
        told.tell("deployment", "D", flow_id="F", name="old-deployment", tags=["old"])
        told.flow_run("R", "F", COMPLETED, name="old-run", tags=["old"], deployment_id="D")
        told.task_run("t", "R", COMPLETED, name="old-task", tags=["old"], expected_start_time=at(), end_time=at())
        await estate.happens()
        old = {
            entity: {"name": {"like_": "old-"}, "tags": {"all_": ["old"]}}
            for entity in ("flows", "flow_runs", "task_runs", "deployments")
        }
        new = {
            entity: {"name": {"like_": "new-"}, "tags": {"all_": ["new"]}}
            for entity in ("flows", "flow_runs", "task_runs", "deployments")
        }
        assert await estate.selected(**old) == 1
        for entity, label, event_entity in (
            ("flows", "F", "flow"),
            ("flow_runs", "R", "flow_run"),
            ("deployments", "D", "deployment"),
            ("task_runs", "t", "task_run"),
        ):
            owner = {"flow_run_id": "R"} if event_entity == "task_run" else {}
            told.tell(event_entity, label, "patch", name="new-name", tags=["new"], **owner)
            await estate.happens()
            assert await estate.selected(**{entity: old[entity]}) == 0, entity
            assert await estate.selected(**{entity: new[entity]}) == 1, entity
        assert await estate.selected(**new) == 1


async def test_a_flow_of_which_tags_and_parents_take_different_runs_is_not_taken_as_a_whole(
    settings: SettingsFactory,
) -> None:
    async with living(settings()) as estate:
        told = estate.told
        for flow in ("F", "G"):
            told.tell("flow", flow, name=flow)
        told.flow_run("parent", "G", COMPLETED)
        told.task_run("p", "parent", RUNNING, name="p", expected_start_time=at())
        for run, tags, parent in (("tagged", ["x"], None), ("plain", [], None), ("child", [], "p")):
            told.flow_run(run, "F", COMPLETED, tags=tags, parent_task_run_id=parent)
            told.task_run(f"t-{run}", run, COMPLETED, name=run, expected_start_time=at(), end_time=at())
        await estate.happens()
        either = {"operator": "or_", "tags": {"any_": ["x"]}, "parent_task_run_id": {"is_null_": False}}
        assert await estate.selected(flows={"name": {"any_": ["F"]}}, flow_runs=either) == 2
        assert await estate.selected(flows={"name": {"any_": ["G"]}}, flow_runs=either) == 0

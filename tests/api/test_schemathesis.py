"""Whatever the OpenAPI document allows, and much that it does not, gets an answer that the document promises."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from redis.asyncio import Redis
from schemathesis.generation.hypothesis.builder import HypothesisTestConfig, HypothesisTestMode, create_test
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from runtally.api import create_app
from runtally.api.versions import VERSION_HEADER
from runtally.embedded import ports
from runtally.ops import topics
from runtally.settings import Settings, load
from tests.conftest import LONG, environment, examples
from tests.reference.vectors import SELECTIONS, at
from tests.servers.forks import ForkedChild
from tests.store.estate import Estate

from .fakes import Service

PREFIX = "schemathesis"
PATHS = (
    *("/api/health", "/api/ready", "/api/version", "/runtally/api/version", "/metrics", "/runtally/api/events"),
    *("/api/task_runs/history", "/api/task_runs/count", "/runtally/api/task_runs/history/explain"),
)
schemathesis.serializer.alias("application/x-ndjson", "text/plain")


async def put(settings: Settings) -> None:
    await topics.create(settings)
    async with Redis.from_url(settings.redis_url, protocol=2) as redis:
        await redis.flushall()
        estate = Estate(redis, settings)
        await estate.open()
        await estate.apply(SELECTIONS.events, 100)
        await estate.close()


@pytest.fixture(scope="module")
def url(valkey: str, embedded_broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where an API process listens that has data to answer from and a broker to publish to."""
    settings = Settings(
        kafka=embedded_broker,
        redis_url=valkey,
        redis_prefix=PREFIX,
        topic_prefix=PREFIX,
        partitions=2,
        api_port=ports.any_free(),
    )
    asyncio.run(put(settings))
    url = f"http://127.0.0.1:{settings.api_port}"
    log = tmp_path_factory.mktemp("api") / "api.log"
    child = ForkedChild("api", ["api"], log, environment(settings))
    child.start()
    try:
        child.wait_ready(lambda: ready(url), 30)
        yield url
    finally:
        child.stop(3)


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/ready").status_code == 200
    except httpx.TransportError:
        return False


@functools.cache
def document(mode: str) -> Any:
    config = schemathesis.Config.from_dict({"generation": {"mode": mode}})
    return schemathesis.openapi.from_dict(create_app(load(), history=Service()).openapi(), config=config)


RANDOM = [HypothesisTestMode.EXAMPLES, HypothesisTestMode.FUZZING]
TABLE = [HypothesisTestMode.COVERAGE] if LONG else []
"""In a long run also schemathesis' own table of cases, some hundreds a body; explain's body is the history's."""


def cases(mode: str, path: str, ask: Callable[[schemathesis.Case], None]) -> None:
    """Ask with the cases of one path. They are made here and not where the tests are collected, which every process of
    tests does for itself."""
    whole = document(mode)
    modes = RANDOM if path.endswith("/explain") else [*TABLE, *RANDOM]
    config = HypothesisTestConfig(project=whole.config, modes=modes)
    (operation,) = whole.include(path=path).get_all_operations()
    create_test(operation=operation.ok(), test_func=examples(200)(ask), config=config)()


def test_no_path_of_the_document_is_left_out() -> None:
    assert {operation.ok().path for operation in document("all").get_all_operations()} == {*PATHS}


# Refused right or wrong: Prefect's coercions accept more than a schema can say, such as "yes" for true, and its limits,
# such as bins that end after the year 9999, are in no schema.
VERDICTS = [negative_data_rejection, positive_data_acceptance]
NOT_IN_CALENDAR = "outside the years 1 to 9999 in UTC"
RANGE = {"history_start": at(), "history_end": at(hours=1), "history_interval_seconds": 60}


@pytest.mark.property
@pytest.mark.parametrize("path", PATHS)
def test_every_answer_is_one_that_the_document_promises(path: str, url: str) -> None:
    def ask(case: schemathesis.Case) -> None:
        # A wrong version is refused before the body is looked at.
        case.headers.pop(VERSION_HEADER, None)
        case.call_and_validate(base_url=url, timeout=30, excluded_checks=VERDICTS)

    cases("all", path, ask)


@pytest.mark.property
@pytest.mark.parametrize("path", [path for path in PATHS if "/task_runs/" in path])
def test_all_filters_that_the_document_allows_are_answered(path: str, url: str) -> None:
    def ask(case: schemathesis.Case) -> None:
        case.headers.pop(VERSION_HEADER, None)
        if isinstance(case.body, dict):
            case.body = {**case.body, **RANGE}
        answer = case.call_and_validate(base_url=url, timeout=30, excluded_checks=VERDICTS)
        if answer.status_code != 200:
            # What no schema can say of a time with an offset.
            assert {error["msg"] for error in answer.json()["exception_detail"]} == {f"Value error, {NOT_IN_CALENDAR}"}

    cases("positive", path, ask)

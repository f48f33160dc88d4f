"""Servers and processes for all tests."""

from __future__ import annotations

import functools
import gc
import itertools
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from redis import Redis

from runtally.embedded.broker import Broker
from runtally.embedded.child import Child
from runtally.settings import NEVER_US, Settings, parse_duration_us
from runtally.store.keys import named

from .parent import end_with_parent
from .servers import found
from .servers.forks import ForkedChild
from .servers.shared import shared

_kafka = functools.cache(found.kafka)
_redis = functools.cache(found.redis)

SettingsFactory = Callable[..., Settings]
Starter = Callable[..., Child]


LONG = int(os.environ.get("RUNTALLY_TEST_LONG") or 0)
"""How many times all cases of a property are run; 0: a twentieth of them."""
HUGE = LONG >= 10
"""Whether single tests take the largest estates too, for minutes each."""

hypothesis.settings.register_profile("runtally", deadline=None, max_examples=100 * LONG or 25)
# For `tests.mutations`, which only asks whether an example fails.
hypothesis.settings.register_profile("unshrunk", deadline=None, phases=[hypothesis.Phase.generate])
hypothesis.settings.load_profile("runtally")

WORKER = os.environ.get("PYTEST_XDIST_WORKER")
"""The name of this process where the tests are shared out among several."""
if WORKER:
    # It would end the test in hand first, and start another one's servers.
    end_with_parent()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """All tests are run by several processes, since they mostly wait; named ones, and those with one Redis, by one."""
    alone = config.args != config.getini("testpaths") or "RUNTALLY_TEST_REDIS" in os.environ
    return 0 if alone else min((os.cpu_count() or 1) + 3, 8)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start processes come first, parts of long properties and the other properties next, so that at the end
    nobody waits for one."""
    for item in items:
        if getattr(getattr(item, "function", None), "is_hypothesis_test", False):
            item.add_marker(pytest.mark.property)
    items.sort(key=_place)


def pytest_collection_finish() -> None:
    """Modules and tests stay to the end: looking through them for garbage again and again takes a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _place(item: pytest.Item) -> int:
    names = getattr(item, "fixturenames", ())
    if not _PROCESSES.isdisjoint(names):
        return 0
    if "part" in names:
        return 1
    return 3 if item.get_closest_marker("property") is None else 2


_PROCESSES = {"processes", "start", "bench", "own_kafka"}


def examples(count: int, parts: int = 1) -> Callable[[Any], Any]:
    """So many cases of a property in a long run, in so many parts for several processes; a twentieth in an ordinary
    one."""
    limits = hypothesis.settings(
        max_examples=LONG * count // parts or max(1, count // 20),
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    return lambda test: in_parts(parts)(limits(test))


def in_parts(parts: int) -> Callable[[Any], Any]:
    """In a long run so many times the same test, for several processes."""
    if not LONG or parts == 1:
        return lambda test: test
    part = pytest.mark.parametrize("part", range(1, parts + 1))
    return lambda test: pytest.mark.usefixtures("part")(part(test))


def pytest_report_header() -> list[str]:
    return [f"Kafka: {_kafka().words}", f"Redis: {_redis().words}"]


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of a real Apache Kafka, shared by all processes of tests; its tests are marked `kafka`."""
    choice = _kafka()
    if choice.make is None:
        if os.environ.get("CI"):
            pytest.fail(f"no real Kafka on CI: {choice.words}")
        pytest.skip(f"needs a real Kafka; {choice.words}")
    folder = tmp_path_factory.getbasetemp()
    server = shared((folder.parent if WORKER else folder) / "kafka", choice.make)
    # To the end and not for a fixture's time: the first of several processes waits there for the others.
    request.config.add_cleanup(functools.partial(server.__exit__, None, None, None))
    return server.__enter__()


@pytest.fixture(scope="session")
def embedded_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the embedded broker."""
    broker = Broker(tmp_path_factory.mktemp("broker") / "broker.log")
    yield broker.start()
    broker.stop()


@pytest.fixture(params=[pytest.param("kafka", marks=pytest.mark.kafka), "embedded_broker"])
def broker(request: pytest.FixtureRequest) -> str:
    """Address of a broker: the test runs once with the real Kafka and once with the embedded one."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the session's Redis."""
    choice = _redis()
    assert choice.make is not None
    server = choice.make(tmp_path_factory.mktemp("valkey"))
    yield server.start()
    server.stop()


@pytest.fixture
def redis_url(valkey: str) -> Iterator[str]:
    """URL of the session's Redis, emptied; what the test leaves there has to be in the table of keys."""
    with Redis.from_url(valkey) as redis:
        redis.flushall()
        yield valkey
        strangers = strange_keys(redis)
    assert not strangers, "keys that `store.keys.KEYS` does not name"


def strange_keys(redis: Redis) -> list[tuple[bytes, str]]:
    """Keys, with their types, that the table does not name so."""
    keys = list(redis.scan_iter(count=10_000))
    with redis.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.type(key)
        types = ["sorted set" if found == b"zset" else found.decode() for found in pipe.execute()]
    rows = [named(key) for key in keys]
    # A key that expired meanwhile has no type.
    return [
        (key, type_)
        for key, type_, row in zip(keys, types, rows, strict=True)
        if type_ != "none" and (row is None or row.type != type_)
    ]


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> SettingsFactory:
    """`settings(kafka=…, **others)`: settings of which topics, group and keys are this test's own."""
    numbers = itertools.count()

    def make(**given: Any) -> Settings:
        unique = f"t{uuid.uuid4().hex[:12]}-{next(numbers)}"
        if "redis_url" not in given:
            given["redis_url"] = request.getfixturevalue("redis_url")
        own = {
            "topic_prefix": unique,
            "group_id": unique,
            "redis_prefix": unique,
            "worker_name": unique,
            "metrics_port": 0,
            "api_port": 0,
            "data_dir": tmp_path / "data",
            # What was written is asked for at once.
            "max_staleness": 0,
        }
        return Settings(**{**own, **given})

    return make


def environment(settings: Settings) -> dict[str, str]:
    """The variables that give a process these settings. Durations are whole seconds here."""
    durations = {
        name
        for name, field in Settings.model_fields.items()
        if any(getattr(each, "func", None) is parse_duration_us for each in field.metadata)
    }
    values = settings.model_dump()
    return {
        f"RUNTALLY_{name.upper()}": str(value) if name not in durations else duration_text(value)
        for name, value in values.items()
    }


def duration_text(duration_us: int) -> str:
    return "never" if duration_us == NEVER_US else f"{duration_us // 1_000_000}s"


@pytest.fixture
def processes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Starter]:
    """`processes("worker", settings, *more)`: a running `runtally worker`; stopped afterwards, its log shown when the
    test fails."""
    started: list[Child] = []

    def start(command: str, settings: Settings, *arguments: str, **variables: str) -> Child:
        name = f"{command}-{len(started)}"
        variables = {**environment(settings), **variables}
        child = ForkedChild(name, [command, *arguments], tmp_path / f"{name}.log", variables)
        started.append(child)
        child.start()
        return child

    request.node.stash[_started] = started
    yield start
    for child in started:
        child.stop(3)


_started = pytest.StashKey[list[Child]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.failed:
        for child in item.stash.get(_started, []):
            report.sections.append((f"log of {child.name} (exit code {child.returncode})", child.tail(80)))
    return report

"""What a benchmark runs on: servers of its own or given ones, topics and keys of its own, and what processes cost.

Nothing is left behind: own servers end with their data, on given ones the topics and keys are deleted.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from .. import settings as runtally_settings
from ..embedded import ports
from ..embedded.broker import Broker
from ..embedded.child import Child
from ..embedded.valkey import Valkey
from ..errors import SystemError_, UserError
from ..settings import Settings
from ..store.connect import client
from . import topics

_PARTITIONS: Final = 8
_SWEEP: Final = 1000

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Bench:
    """One run of a benchmark: settings of its own, a folder for logs, and a client of Redis."""

    settings: Settings
    folder: Path
    redis: Any
    _environment: dict[str, str]

    def child(self, name: str, *command: str) -> Child:
        """A process of runtally with the settings of this run: not started, and named by its module."""
        return Child(name, [sys.executable, "-m", *command], self.folder / f"{name}.log", self._environment)

    async def redis_cpu_s(self) -> float:
        """CPU time that Redis has used, user and system."""
        info = await self.redis.info("cpu")
        return float(info["used_cpu_user"] + info["used_cpu_sys"])

    async def redis_bytes(self) -> int:
        """Memory that Redis has allocated."""
        info = await self.redis.info("memory")
        return int(info["used_memory"])


@dataclass(frozen=True, slots=True)
class Cost:
    """Wall and CPU seconds of a process since some moment."""

    wall_s: float
    cpu_s: float

    def since(self, earlier: Cost) -> Cost:
        """What was spent between two moments."""
        return Cost(self.wall_s - earlier.wall_s, self.cpu_s - earlier.cpu_s)


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used, user and system, in all of its threads."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


class Watched:
    """A child's CPU time, and the most memory that it held when that was asked."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.peak_bytes = 0

    def cpu_s(self) -> float:
        """As `cpu_s` of the process."""
        self.peak_bytes = max(self.peak_bytes, int(psutil.Process(self.child.pid).memory_info().rss))
        return cpu_s(self.child.pid)


@asynccontextmanager
async def bench(kafka: str | None, redis_url: str | None, say: Say) -> AsyncIterator[Bench]:
    """Servers that are not given are started, topics are made; all is undone at the end.

    Raises what `topics.create` raises, and `ChildError` when a server does not start.
    """
    async with AsyncExitStack() as stack:
        if kafka is None:
            say("Kafka: the embedded broker; give Apache Kafka with --kafka host:port for numbers that mean production")
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runtally-bench-")))
            broker = Broker(folder / "broker.log")
            stack.callback(broker.stop)
            kafka = broker.start()
        run = await stack.enter_async_context(bench_of_redis(redis_url, kafka=kafka))
        await topics.create(run.settings, say=say)
        stack.push_async_callback(_delete_topics, run.settings)
        yield run


@asynccontextmanager
async def bench_of_redis(redis_url: str | None, **more: Any) -> AsyncIterator[Bench]:
    """A Redis, started unless it is given; `more` are further settings. All is undone at the end.

    Raises `ChildError` when the server does not start.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runtally-bench-")))
        own_redis = redis_url is None
        if redis_url is None:
            valkey = Valkey(folder / "valkey", folder / "valkey.log")
            stack.callback(valkey.stop, 0)
            redis_url = valkey.start()
        name = f"runtally-bench-{secrets.token_hex(4)}"
        overrides = {
            **{"redis_url": redis_url, "partitions": _PARTITIONS},
            **{"topic_prefix": name, "redis_prefix": name, "group_id": name, "worker_name": name},
            **{"metrics_host": ports.HOST, "metrics_port": ports.any_free()},
            **{"api_host": ports.HOST, "api_port": ports.any_free()},
            **more,
        }
        settings = runtally_settings.load(overrides)
        redis = client(settings)
        stack.push_async_callback(redis.aclose)
        if not own_redis:
            stack.push_async_callback(_delete_keys, redis, settings)
        environment = {f"RUNTALLY_{key.upper()}": str(value) for key, value in overrides.items()}
        yield Bench(settings, folder, redis, environment)


def check_events(events: int) -> None:
    """Refuse a size that says nothing. Raises `UserError`."""
    if events < 1:
        raise UserError(f"--events {events}: at least one event has to be measured")


def need(child: Child) -> None:
    """Raise `SystemError_` with the end of its log when the process is gone."""
    if not child.alive():
        raise SystemError_(child.obituary())


async def _delete_topics(settings: Settings) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    try:
        await admin.start()
        await admin.delete_topics([topic.name for topic in topics.wanted(settings)])
    except KafkaError as error:
        raise SystemError_(f"the benchmark's topics {settings.topic_prefix}.* are still in Kafka: {error}") from error
    finally:
        await admin.close()


async def _delete_keys(redis: Any, settings: Settings) -> None:
    found: list[bytes] = []
    async for key in redis.scan_iter(match=f"{settings.redis_prefix}:*", count=_SWEEP):
        found.append(key)
        if len(found) == _SWEEP:
            await redis.unlink(*found)
            found = []
    if found:
        await redis.unlink(*found)

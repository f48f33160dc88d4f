"""The world that things go wrong in: a broker, a Redis, an API, workers, and a Redis aside that nothing happens to."""

from __future__ import annotations

import asyncio
import functools
import signal
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis.asyncio import Redis

from runtally.embedded import ports
from runtally.embedded.child import Child
from runtally.embedded.valkey import Valkey
from runtally.ops import topics
from runtally.settings import Settings
from runtally.store.keys import live_key
from runtally.store.ledger import GENERATION

from ..servers.forks import ForkedChild
from ..servers.jars import JarKafka

NAME = "chaos"
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""One for all: to read the machine's certificates takes longer than most questions."""
_COMMAND_WITHIN_S = 150
_COMMANDS = 6
_PASSING = ("is away", "are no data", "Is another `runtally rebuild --from-log` running?", "has no topic")
"""What a command may fail with while things go wrong: the next one may succeed."""


class TroubleError(Exception):
    """What should not have been: the cycle's seed, history and logs tell the rest."""


class World:
    """All processes, with their data and logs in `folder`. Those of runtally are forked from one that has imported
    everything: to start a Python takes a core for two seconds.

    In one that `forgets` there are retentions, of days, and the time of the log is what its producers say.
    """

    def __init__(self, folder: Path, partitions: int, workers: int, *, forgets: bool) -> None:
        self.folder = folder
        self.forgets = forgets
        self.kafka = JarKafka(folder / "kafka")
        self.valkey = Valkey(folder / "valkey")
        self.aside = Valkey(folder / "aside")
        given = {
            **{"kafka": self.kafka.address, "redis_url": self.valkey.url, "partitions": partitions},
            **{"topic_prefix": NAME, "redis_prefix": NAME, "group_id": NAME},
            "api_port": ports.any_free(),
            # Where nothing is forgotten runs of any age take part, and all of them are asked for.
            **{"raw_retention": "10d" if forgets else "never", "rollup_retention": "40d" if forgets else "never"},
        }
        self._environment = {f"RUNTALLY_{name.upper()}": str(value) for name, value in given.items()}
        self.settings = Settings(**given)
        self.api = ForkedChild("api", ["api"], folder / "api.log", self._environment)
        self.workers: list[Child] = []
        self._made = 0
        self._wanted = workers

    @property
    def url(self) -> str:
        """Where the API answers."""
        return f"http://{ports.HOST}:{self.settings.api_port}"

    def client(self, timeout_s: float) -> httpx.AsyncClient:
        """A client of the API."""
        return httpx.AsyncClient(base_url=self.url, timeout=timeout_s, verify=_NO_TLS)

    async def start(self) -> None:
        """Start everything; returns when the API is ready."""
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in (self.kafka, self.valkey, self.aside)))
        if self.forgets:
            await self._create_with_producers_time()
        await topics.create(self.settings)
        self.api.start()
        self.put_right()
        await until(self.ready, 180, "the API is not ready after the start")

    def stop(self) -> None:
        """End everything; the folder stays."""
        for child in (self.api, *self.workers):
            child.stop(0)
        for server in (self.kafka, self.valkey, self.aside):
            server.stop(0)

    def add_worker(self) -> Child:
        """Start one more worker."""
        self._made += 1
        name = f"worker-{self._made}"
        environment = {
            **self._environment,
            **{"RUNTALLY_WORKER_NAME": name, "RUNTALLY_METRICS_PORT": str(ports.any_free())},
        }
        child = ForkedChild(name, ["worker"], self.folder / f"{name}.log", environment)
        child.start()
        self.workers.append(child)
        return child

    async def end_worker(self, worker: Child, grace_s: float) -> None:
        """End one: with no grace by SIGKILL."""
        self.workers.remove(worker)
        await asyncio.to_thread(worker.stop, grace_s)

    def start_rebuild(self) -> Child:
        """Start a `runtally rebuild --from-log`."""
        self._made += 1
        name = f"rebuild-{self._made}"
        child = ForkedChild(name, ["rebuild", "--from-log", "--json"], self.folder / f"{name}.log", self._environment)
        child.start()
        return child

    async def rebuilt(self, command: Child) -> int:
        """Wait for a rebuild from the log; start it anew while it fails for what goes wrong around it. How many it
        took."""
        for number in range(1, _COMMANDS):
            await until(functools.partial(_is_over, command), _COMMAND_WITHIN_S, f"{command.name} ends")
            if command.returncode == 0:
                return number
            if not any(words in command.tail() for words in _PASSING):
                raise TroubleError(command.obituary())
            await asyncio.sleep(1)
            command = self.start_rebuild()
        raise TroubleError(f"{_COMMANDS} rebuilds from the log failed; {command.obituary()}")

    async def generation(self) -> str:
        """The generation of the data that is live."""
        async with Redis.from_url(self.settings.redis_url, protocol=2, socket_timeout=2) as redis:
            found = await redis.hget(live_key(NAME), "generation")
        return GENERATION if found is None else found.decode()

    def put_right(self) -> None:
        """Let go on what was stopped, and have as many workers as there should be."""
        for worker in self.workers:
            worker.signal(signal.SIGCONT)
        while len(self.workers) < self._wanted:
            self.add_worker()

    async def _create_with_producers_time(self) -> None:
        config = {"message.timestamp.type": "CreateTime", "retention.ms": "-1", "cleanup.policy": "delete"}
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.kafka)
        await admin.start()
        try:
            topic = NewTopic(self.settings.runs_topic, self.settings.partitions, 1, topic_configs=config)
            await admin.create_topics([topic])
        finally:
            await admin.close()

    async def ready(self) -> bool:
        """Whether the API says that its answers are complete."""
        try:
            async with self.client(5) as client:
                return (await client.get("/api/ready")).status_code == 200
        except httpx.TransportError:
            return False

    def check_alive(self) -> None:
        """Raise when a process ended that nobody ended."""
        for child in (self.api, *self.workers, self.kafka.child, self.valkey.child, self.aside.child):
            if child.died():
                raise TroubleError(child.obituary())


async def _is_over(child: Child) -> bool:
    return not child.alive()


async def until(holds: Callable[[], Any], timeout_s: float, what: str) -> None:
    """Wait until the coroutine that `holds` gives says yes."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not await holds():
        if asyncio.get_running_loop().time() > deadline:
            raise TroubleError(f"not within {timeout_s:g} s: {what}")
        await asyncio.sleep(0.1)

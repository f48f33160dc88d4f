"""All processes of `runtally up`: Valkey, the broker, one worker and the API, started and stopped in order."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx

from .. import settings as runtally_settings
from ..errors import UserError
from ..settings import Settings
from . import ports
from .broker import Broker
from .child import Child, ChildError
from .datadir import DataDir
from .upfile import UpFile, own_start
from .valkey import Valkey

BROKER_PORT: Final = 4252
VALKEY_PORT: Final = 4253
_PYTHON_CHILDREN_END_S: Final = 1.7
_VALKEY_ENDS_S: Final = 0.8
_API_STARTS_S: Final = 30.0

Say = Callable[[str], None]


class Stack:
    """The processes of one `up`. `settings` are what its children are started with."""

    def __init__(self, data: DataDir, settings: Settings, kafka: str | None, redis_url: str | None, say: Say) -> None:
        self._data = data
        wanted = {
            "the API": settings.api_port,
            "the worker's metrics": settings.metrics_port,
            "the broker": BROKER_PORT,
            "Valkey": VALKEY_PORT,
        }
        if kafka:
            del wanted["the broker"]
        if redis_url:
            del wanted["Valkey"]
        chosen = _choose_ports(wanted, say)
        self.broker = None if kafka else Broker(data.log("broker"), chosen["the broker"])
        self.valkey = None if redis_url else Valkey(data.valkey, data.log("valkey"), chosen["Valkey"])
        overrides = {
            "kafka": kafka or (self.broker.address if self.broker else ""),
            "redis_url": redis_url or (self.valkey.url if self.valkey else ""),
            "api_host": ports.HOST,
            "api_port": chosen["the API"],
            "metrics_host": ports.HOST,
            "metrics_port": chosen["the worker's metrics"],
            "data_dir": data.path,
            "log_json": settings.log_json,
        }
        self.settings = runtally_settings.load(overrides)
        environment = {f"RUNTALLY_{name.upper()}": str(value) for name, value in overrides.items()}
        self.worker = Child("the worker", _command("worker"), data.log("worker"), environment)
        self.api = Child("the API", _command("api"), data.log("api"), environment)
        self._began = own_start()

    @property
    def api_url(self) -> str:
        """Where the API is."""
        return f"http://{ports.HOST}:{self.settings.api_port}"

    @property
    def data_dir(self) -> Path:
        """Where data and logs are."""
        return self._data.path

    @property
    def shown_redis(self) -> str:
        """Where Redis is, without a password."""
        from ..store.connect import shown

        return shown(self.settings.redis_url)

    @property
    def store(self) -> str:
        """Names the place where the data of this `up` is, without passwords."""
        return "embedded" if self.valkey else f"{self.shown_redis} {self.settings.redis_prefix}"

    def up_file(self, own_pid: int) -> UpFile:
        """What `up.json` says."""
        pids = {"up": own_pid, **{name: child.pid for name, child in self._children().items() if child.pid}}
        metrics_url = f"http://{ports.HOST}:{self.settings.metrics_port}/metrics"
        return UpFile(self.settings.kafka, self.settings.redis_url, self.api_url, metrics_url, pids, self._began)

    async def start_servers(self, say: Say) -> None:
        """Start Valkey and the broker, tell the data that the log is new where it is, and make the topics.

        Raises `ChildError`, `UserError` and what `topics.create` and `connect` raise.
        """
        from ..ops import topics
        from ..store.connect import connect
        from ..store.ledger import positions
        from ..store.repair import accept_new_log

        if self.valkey:
            await asyncio.to_thread(self.valkey.start)
        if self.broker:
            await asyncio.to_thread(self.broker.start)
            redis = await connect(self.settings)
            try:
                if self.store != self._data.known_store() and await positions(redis, self.settings):
                    raise UserError(
                        f"the data in Redis ({self.store}) follows another log: name its Kafka with --kafka, or choose "
                        "another RUNTALLY_REDIS_PREFIX"
                    )
                await accept_new_log(redis, self.settings)
                self._data.note_store(self.store)
            finally:
                await redis.aclose()
        for found in await topics.create(self.settings, say=say):
            if not self.broker:
                for warning in found.warnings:
                    say(f"warning: {found.name} {warning}")

    def start_processes(self) -> None:
        """Start the worker and the API."""
        self.worker.start()
        self.api.start()

    async def wait_for_api(self) -> None:
        """Until the API answers at all. Raises `ChildError`."""
        deadline = time.monotonic() + _API_STARTS_S
        while not await self._asks("/api/health"):
            self.check()
            if time.monotonic() > deadline:
                raise ChildError(f"the API did not answer within {_API_STARTS_S:g} s; {self.api.obituary()}")
            await asyncio.sleep(0.1)

    async def is_ready(self) -> bool:
        """Whether the API's answers are complete."""
        return await self._asks("/api/ready")

    def check(self) -> None:
        """Raise `ChildError` with the end of its log when a child is gone."""
        for child in self._children().values():
            if child.died():
                raise ChildError(child.obituary())

    def stop(self) -> None:
        """Stop everything, in order, within three seconds; no process is left."""
        # Workers and API end side by side: both have a bounded time to finish what they have in hand.
        deadline = time.monotonic() + _PYTHON_CHILDREN_END_S
        for child in (self.api, self.worker):
            child.terminate()
        for child in (self.api, self.worker):
            child.stop(max(0.0, deadline - time.monotonic()))
        if self.broker:
            self.broker.stop()
        if self.valkey:
            self.valkey.stop(_VALKEY_ENDS_S)

    async def _asks(self, path: str) -> bool:
        # Without `verify` no certificates are read, ten times a second while everything starts.
        async with httpx.AsyncClient(base_url=self.api_url, timeout=2, trust_env=False, verify=False) as client:
            try:
                return (await client.get(path)).status_code == 200
            except httpx.HTTPError:
                return False

    def _children(self) -> dict[str, Child]:
        children = {"worker": self.worker, "api": self.api}
        if self.broker:
            children["broker"] = self.broker.child
        if self.valkey:
            children["valkey"] = self.valkey.child
        return children


def _command(name: str) -> list[str]:
    return [sys.executable, "-m", "runtally", name]


def _choose_ports(wanted: dict[str, int], say: Say) -> dict[str, int]:
    chosen: dict[str, int] = {}
    for name, port in wanted.items():
        others = {*chosen.values(), *(other for other in wanted.values() if other != port)}
        chosen[name] = ports.next_free(port, others) if port else ports.any_free()
        if port and chosen[name] != port:
            say(f"port {port} is taken: {name} uses {chosen[name]}")
    return chosen

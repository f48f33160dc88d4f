"""The embedded servers start, stop, keep what they should, and never outlive their parent."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaProducer
from redis import Redis

from runtally.embedded.broker import Broker
from runtally.embedded.child import Child, ChildError
from runtally.embedded.valkey import Valkey

_PARENT = """
import os, sys, time
from pathlib import Path
from runtally.embedded.broker import Broker
from runtally.embedded.valkey import Valkey
folder = Path(sys.argv[1])
servers = Valkey(folder), Broker(folder / "broker.log")
for server in servers:
    server.start()
print(*(server.child.pid for server in servers), flush=True)
time.sleep(60)
"""


def _ends(pid: int, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.stop()


def test_servers_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        parent.kill()
        parent.wait()
    assert len(pids) == 2
    assert all(_ends(pid, 2) for pid in pids)


def test_valkey_keeps_what_was_written_when_it_is_killed(server: Valkey) -> None:
    with Redis.from_url(server.url) as redis:
        redis.set("word", "kept")
        server.child.signal(signal.SIGKILL)
        while server.alive():
            time.sleep(0.01)
        server.start()
        assert redis.get("word") == b"kept"


def test_valkey_keeps_cells_as_listpacks_and_never_evicts(server: Valkey) -> None:
    with Redis.from_url(server.url) as redis:
        redis.hset("cells", mapping={str(number): b"x" * 4000 for number in range(20)})
        assert redis.object("encoding", "cells") == b"listpack"
        assert redis.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


async def test_a_new_broker_process_has_an_empty_log(tmp_path: Path) -> None:
    server = Broker(tmp_path / "broker.log")
    offsets = []
    for _ in range(2):
        producer = AIOKafkaProducer(bootstrap_servers=server.start())
        await producer.start()
        offsets.append((await producer.send_and_wait("words", b"one", partition=0)).offset)
        await producer.stop()
        server.stop()
        assert not server.alive()
    assert offsets == [0, 0]


def test_a_child_that_dies_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    child = Child("the child", ["/bin/sh", "-c", "echo first; echo last words; exit 3"], tmp_path / "log")
    child.start()
    with pytest.raises(ChildError, match=r"(?s)the child ended with exit code 3.*last words"):
        child.wait_ready(lambda: False, 5)


def test_a_child_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    child = Child("stubborn", ["/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"], tmp_path / "log")
    child.start()
    child.wait_ready(lambda: "up" in child.tail(), 5)
    child.stop(0.1)
    assert child.returncode == -signal.SIGKILL

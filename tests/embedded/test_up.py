"""`runtally up`: one command, everything runs, answers come; nothing is left behind."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import httpx
import psutil
import pytest

from runtally.embedded import ports, turnover
from runtally.embedded.datadir import DataDir
from runtally.embedded.stack import Stack
from runtally.events.publish import Message, Publisher, checked
from runtally.settings import Settings
from runtally.store.keys import FORMAT
from tests.servers.forks import forkery, run

_DAY = {"history_start": "-PT24H", "history_end": "now", "history_interval_seconds": 3600}
AT_ONCE_S = 8
"""Until Ctrl-C has ended everything: a second or two, when the machine has nothing else to do."""


class Up:
    """A running `runtally up` and what it printed. `turn` is closed as soon as it has its ports."""

    def __init__(self, turn: IO[str], data_dir: Path, *arguments: str, **variables: str) -> None:
        self.turn = turn
        self.data_dir = data_dir
        self.output = data_dir.parent / f"up-{uuid.uuid4().hex}.txt"
        self.environment = {
            **os.environ,
            "RUNTALLY_API_PORT": "0",
            "RUNTALLY_METRICS_PORT": "0",
            "RUNTALLY_DATA_DIR": str(data_dir),
            "RUNTALLY_TOPIC_PREFIX": "runtally",
            **variables,
        }
        with self.output.open("wb") as output, open(os.devnull, "rb") as nothing:
            self.process = forkery().fork(["up", *arguments], self.environment, [nothing, output, output])

    def words(self) -> str:
        return self.output.read_text()

    def wait_for(self, words: str, within_s: float = 90) -> None:
        _until(lambda: words in self.words() or self.process.poll() is not None, within_s, self.words)
        self.turn.close()
        assert words in self.words(), self.words()

    def file(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.data_dir / "up.json").read_text())
        return content

    def children(self) -> list[psutil.Process]:
        """With those that only watch over others."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def history(self) -> list[Any]:
        answer = _history(self.file()["api_url"])
        assert answer.status_code == 200, answer.text
        bins: list[Any] = answer.json()
        return bins

    def runs(self) -> int:
        return sum(state["count_runs"] for each in self.history() for state in each["states"])

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        variables = {name: self.environment[name] for name in ("RUNTALLY_DATA_DIR", "RUNTALLY_TOPIC_PREFIX")}
        return run(*arguments, **variables)

    def stop(self) -> float:
        """Ctrl-C; how long it took."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)
        return time.monotonic() - begun


@pytest.fixture
def turn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], IO[str]]]:
    """A file to close once one's servers listen: two that look for free ports at once would find the same ones."""
    file = tmp_path_factory.getbasetemp().parent / "up.lock"
    with contextlib.ExitStack() as taken:

        def take() -> IO[str]:
            lock = taken.enter_context(file.open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            return lock

        yield take


@pytest.fixture
def start(tmp_path: Path, turn: Callable[[], IO[str]]) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def make(*arguments: str, **variables: str) -> Up:
        started.append(Up(turn(), tmp_path / "data", *arguments, **variables))
        return started[-1]

    yield make
    for up in started:
        up.process.kill()
        up.process.wait()


def _until(holds: Callable[[], bool], within_s: float, words: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, words()
        time.sleep(0.05)


def _history(url: str) -> httpx.Response:
    # Without `verify` no certificates are read, each time, by those who ask again and again.
    return httpx.post(f"{url}/api/task_runs/history", json=_DAY, timeout=30, verify=False, trust_env=False)


def _gone(processes: list[psutil.Process]) -> bool:
    return not [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def _event(name: str) -> bytes:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    data = {
        **{"id": name, "flow_run_id": None, "name": name, "state_type": "COMPLETED", "state_name": "Completed"},
        **{"state_timestamp": at, "expected_start_time": at, "start_time": at, "end_time": at},
    }
    return json.dumps({"entity": "task_run", "action": "upsert", "occurred": at, "data": data}).encode()


def _messages(name: str, count: int, settings: Settings) -> list[Message]:
    messages = [checked(_event(f"{name} {number}"), settings) for number in range(count)]
    return [message for message in messages if isinstance(message, Message)]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_from_nothing_to_moving_numbers_and_back(start: Callable[..., Up], tmp_path: Path) -> None:
    up = start("--demo")
    up.wait_for("Ready")
    _until(lambda: up.runs() > 220_000, 240, up.words)
    before = up.runs()
    _until(lambda: up.runs() != before, 10)
    shown = up.command("history", "--last", "24h")
    assert shown.returncode == 0, shown.stderr
    assert "Completed" in shown.stdout
    assert len(up.words().splitlines()) <= 13
    second = up.command("up")
    assert second.returncode == 2
    assert f"(process {up.process.pid})" in second.stderr
    (tmp_path / "events.ndjson").write_bytes(_event("one of mine") + b"\n")
    published = up.command("publish", str(tmp_path / "events.ndjson"))
    assert published.returncode == 0, published.stderr

    children = up.children()
    assert len(children) >= 4
    assert up.stop() < AT_ONCE_S
    assert up.process.returncode == 0
    assert _gone(children)
    assert not (up.data_dir / "up.json").exists()

    again = start("--demo")
    again.wait_for("Ready")
    again.wait_for("100%")
    assert "publishing the past 24 h" not in again.words()
    assert again.runs() > before - 2000
    assert again.stop() < AT_ONCE_S


def test_nothing_but_data_is_left_when_up_is_killed(start: Callable[..., Up], tmp_path: Path) -> None:
    up = start()
    up.wait_for("Ready")
    (tmp_path / "events.ndjson").write_bytes(_event("one that lasts"))
    published = up.command("publish", str(tmp_path / "events.ndjson"))
    assert published.returncode == 0, published.stderr
    _until(lambda: up.runs() == 1, 60)
    children = up.children()
    up.process.kill()
    up.process.wait()
    _until(lambda: _gone(children), 20)
    again = start("--log-json")
    again.wait_for('"message": "ready"')
    assert again.runs() == 1
    for line in again.words().splitlines():
        assert json.loads(line)["level"] == "info"
    for name in ("worker", "api"):
        log = again.data_dir / "logs" / f"{name}.log"
        _until(lambda: '"logger": ' in log.read_text(), 10)  # noqa: B023
    assert again.stop() < AT_ONCE_S


def test_a_child_that_dies_is_named_with_the_end_of_its_log(start: Callable[..., Up]) -> None:
    up = start()
    up.wait_for("Ready")
    children = up.children()
    os.kill(up.file()["pids"]["valkey"], signal.SIGKILL)
    assert up.process.wait(15) == 1
    assert "Valkey was ended by signal SIGKILL; the end of" in up.words()
    assert "Ready to accept connections" in up.words()
    assert _gone(children)


def test_a_port_that_is_taken_is_said_and_the_next_one_used(tmp_path: Path) -> None:
    said: list[str] = []
    with socket.socket() as other:
        other.bind((ports.HOST, 0))
        other.listen()
        taken = other.getsockname()[1]
        stack = Stack(DataDir(tmp_path), Settings(api_port=taken, metrics_port=0), None, None, said.append)
    used = int(stack.up_file(0).api_url.rpartition(":")[2])
    assert used > taken
    # Another test's servers may have the other ports.
    assert f"port {taken} is taken: the API uses {used}" in said


@pytest.mark.slow
def test_data_survive_a_restart_with_a_new_log(start: Callable[..., Up], tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    for number in range(3):
        up = start()
        up.wait_for("Ready")
        file.write_bytes(b"\n".join(_event(f"run {number} {index}") for index in range(10)))
        done = up.command("publish", str(file))
        assert done.returncode == 0, done.stderr
        _until(lambda: up.runs() == (number + 1) * 10, 60, lambda: str(up.runs()))  # noqa: B023
        assert up.stop() < AT_ONCE_S


@pytest.mark.kafka
def test_servers_that_exist_are_used(start: Callable[..., Up], kafka: str, redis_url: str, tmp_path: Path) -> None:
    up = start("--kafka", kafka, "--redis-url", redis_url, RUNTALLY_TOPIC_PREFIX=f"up{uuid.uuid4().hex[:8]}")
    up.wait_for("Ready")
    assert set(up.file()["pids"]) == {"up", "worker", "api"}
    (tmp_path / "events.ndjson").write_bytes(_event("mine"))
    published = up.command("publish", str(tmp_path / "events.ndjson"))
    assert published.returncode == 0, published.stderr
    assert up.stop() < AT_ONCE_S


def test_a_redis_that_follows_another_log_is_refused(start: Callable[..., Up], redis_url: str) -> None:
    from redis import Redis

    with Redis.from_url(redis_url) as redis:
        redis.hset("rt:live", mapping={"generation": "1", "format": str(FORMAT), "partitions": "8"})
    up = start("--redis-url", redis_url)
    assert up.process.wait(30) == 2
    assert "follows another log: name its Kafka with --kafka" in up.words()


async def test_a_log_that_is_turned_over_loses_nothing(tmp_path: Path, turn: Callable[[], IO[str]]) -> None:
    settings = Settings(api_port=0, metrics_port=0, partitions=4)
    data = DataDir(tmp_path)
    said: list[str] = []
    with turn():
        stack = Stack(data, settings, None, None, print)
        await stack.start_servers(said.append)
    try:
        stack.start_processes()
        await stack.wait_for_api()

        def runs() -> int:
            answer = _history(stack.api_url)
            if answer.status_code != 200:
                return -1
            return sum(state["count_runs"] for each in answer.json() for state in each["states"])

        async with Publisher(stack.settings) as publisher:
            await publisher.publish(_messages("run", 2000, stack.settings))
        _until(lambda: runs() == 2000, 60, lambda: f"{runs()} {stack.worker.tail()} {stack.api.tail()}")
        assert turnover.is_due(stack, most_bytes=1)
        assert not turnover.is_due(stack)
        stack.worker.stop()
        async with Publisher(stack.settings) as publisher:
            await publisher.publish(_messages("late", 500, stack.settings))
        await turnover.turn_over(stack, said.append)
        _until(lambda: runs() == 2500, 60, lambda: f"{runs()} {stack.worker.tail()}")
        stack.check()
        assert len(said) == 1
    finally:
        stack.stop()

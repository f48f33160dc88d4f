"""What docker-compose.yml and the image say, run here: its servers' settings, its commands and its health checks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from packaging.requirements import Requirement
from redis import Redis

from runtally.embedded import ports
from runtally.embedded.child import Child
from runtally.embedded.valkey import CONFIG, _binary
from tests.servers import jars

ROOT = Path(__file__).parents[2]
# The ports that the containers use among themselves and on this machine.
KAFKA, HOST_KAFKA, CONTROLLER, VALKEY, API, METRICS = "19092", "9092", "9093", "6379", "4250", "4251"
SERVERS = {"kafka", "valkey"}
LASTING = {*SERVERS, "worker", "api"}


def compose() -> dict[str, Any]:
    """The file as compose reads it on a machine where none of its variables is set."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)))


SERVICES: dict[str, Any] = compose()["services"]


class Places:
    """Free ports of this machine in place of the ones in the file, and loopback in place of its names."""

    def __init__(self) -> None:
        self.port = {name: ports.any_free() for name in (KAFKA, HOST_KAFKA, CONTROLLER, VALKEY, API, METRICS)}

    def __call__(self, text: str) -> str:
        text = re.sub(r"(?<=://)(?=:)|\b(kafka|valkey|localhost)(?=:\d)|\b0\.0\.0\.0\b", ports.HOST, text)
        return re.sub(r"(?<=:)\d+\b", lambda match: str(self.port.get(match[0], match[0])), text)


@pytest.fixture(scope="module")
def places() -> Places:
    return Places()


@pytest.fixture(scope="module")
def kafka(places: Places, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Kafka with the file's settings, where there are jars to run it from; else the session's."""
    if jars.missing() is not None:
        address = request.getfixturevalue("kafka")
        places.port[KAFKA] = int(address.rpartition(":")[2])
        yield
        return
    folder = tmp_path_factory.mktemp("kafka")
    given = {**SERVICES["kafka"]["environment"], "KAFKA_LOG_DIRS": str(folder / "data")}
    lines = [f"{_property(name)}={places(value)}" for name, value in given.items()]
    server = jars.JarKafka(folder, places.port[HOST_KAFKA], "\n".join([*lines, ""]))
    server.start()
    yield
    server.stop()


@pytest.fixture(scope="module")
def valkey(places: Places, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The embedded Valkey's binary with the file's command."""
    folder = tmp_path_factory.mktemp("valkey")
    own = ["--port", str(places.port[VALKEY]), "--bind", ports.HOST, "--dir", str(folder)]
    server = Child("Valkey", [_binary(), *SERVICES["valkey"]["command"][1:], *own], folder / "valkey.log")
    server.start()
    server.wait_ready(lambda: ports.answers(places.port[VALKEY]), 20)
    yield
    server.stop()


def _property(name: str) -> str:
    """Kafka's name of a variable of its image."""
    return name.removeprefix("KAFKA_").lower().replace("_", ".")


def _environment(service: str, places: Places) -> dict[str, str]:
    given: Mapping[str, str] = SERVICES[service]["environment"]
    own = {"RUNTALLY_API_PORT": str(places.port[API]), "RUNTALLY_METRICS_PORT": str(places.port[METRICS])}
    return {name: places(str(value)) for name, value in given.items()} | own


def _command(service: str) -> list[str]:
    return [sys.executable, "-m", "runtally", *SERVICES[service]["command"]]


def _start(service: str, places: Places, folder: Path) -> Child:
    child = Child(service, _command(service), folder / f"{service}.log", _environment(service, places))
    child.start()
    return child


def _healthy(service: str, places: Places) -> bool:
    kind, program, *arguments = SERVICES[service]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    checked = subprocess.run([sys.executable, *map(places, arguments)], capture_output=True, check=False)
    return checked.returncode == 0


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.usefixtures("kafka", "valkey")
def test_its_commands_become_healthy_with_its_settings(places, tmp_path):
    subprocess.run(_command("topics"), env={**os.environ, **_environment("topics", places)}, check=True)
    assert not _healthy("api", places)
    started = {service: _start(service, places, tmp_path) for service in ("worker", "api")}
    try:
        for service, child in started.items():
            deadline = time.monotonic() + 60
            while not _healthy(service, places):
                assert child.alive(), child.obituary()
                assert time.monotonic() < deadline, child.obituary()
                time.sleep(0.5)
        body = {"history_start": "-PT1H", "history_end": "now", "history_interval_seconds": 3600}
        url = f"http://{ports.HOST}:{places.port[API]}/api/task_runs/history"
        answer = httpx.post(url, json=body, trust_env=False)
        assert (answer.status_code, len(answer.json())) == (200, 1)
        # Neither eviction nor memory nor durability is worth a word with these servers.
        assert "WARNING" not in started["worker"].tail(100)
    finally:
        for child in started.values():
            child.stop(5)


@pytest.mark.usefixtures("valkey")
def test_its_valkey_is_configured_as_the_embedded_one(places):
    ours = {name: value for name, value in CONFIG.items() if re.match(r"append|maxmemory|hash|zset|save", name)}
    with Redis(port=places.port[VALKEY], decode_responses=True) as redis:
        assert {name: redis.config_get(name)[name] for name in ours} == {
            name: value.strip('"') for name, value in ours.items()
        }


def test_nothing_is_bound_beyond_this_machine():
    bound = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert bound
    assert all(port.startswith("127.0.0.1:") for port in bound)


def test_what_lasts_has_a_health_check_and_what_holds_data_a_named_volume():
    assert {name for name, service in SERVICES.items() if "healthcheck" in service} == LASTING
    volumes = {name: service["volumes"][0].split(":")[0] for name, service in SERVICES.items() if "volumes" in service}
    assert set(volumes) == {*SERVERS, "demo"}
    assert set(volumes.values()) == set(compose()["volumes"])


def test_only_the_demo_needs_a_profile():
    assert {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service} == {
        "demo": ["demo"]
    }


def test_every_image_is_pinned():
    images = {SERVICES[name]["image"] for name in SERVERS}
    images |= set(re.findall(r"^FROM (\S+)", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE))
    assert len(images) == 3
    assert all(re.search(r":\d+\.\d+", image) for image in images)
    assert SERVICES["kafka"]["image"].endswith(f":{jars.VERSION}")


def test_the_image_runs_without_root():
    last = (ROOT / "deploy" / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (\S+)", last, re.MULTILINE) == ["runtally"]
    assert 'ENTRYPOINT ["runtally"]' in last


def test_the_image_pins_everything_that_the_project_asks_for():
    lines = (ROOT / "deploy" / "requirements.txt").read_text().splitlines()
    pinned = [Requirement(line) for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"==[\w.]+", str(each.specifier)) for each in pinned)
    exact = {each.name: str(each.specifier).removeprefix("==") for each in pinned}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for asked in map(Requirement, project["dependencies"]):
        assert asked.specifier.contains(exact[asked.name]), asked

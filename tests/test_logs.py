"""With --log-json every line that a process logs is one JSON object, whoever logs it."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest

from runtally.embedded import ports
from runtally.embedded.child import Child
from runtally.logs import JsonLines
from runtally.ops import topics
from runtally.settings import Settings
from tests.stream import truth

Start = Callable[..., Child]
Make = Callable[..., Settings]


def objects(child: Child) -> list[dict[str, Any]]:
    """Every line of a process' log, as it has to be."""
    found = [json.loads(line) for line in child.log.read_text(encoding="utf-8").splitlines()]
    for said in found:
        assert {"time", "level", "logger", "message"} <= said.keys()
        assert said["time"].endswith("Z")
    return found


def test_a_record_is_one_line_with_what_it_was_given_besides() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.getLogger("any").makeRecord(
            *("any.one", logging.ERROR, "file", 1, "shard %s:\n%s", ("3", "a\ud800"), None), extra={"shard": "3"}
        )
        record.exc_info = sys.exc_info()
    line = JsonLines().format(record)
    assert "\n" not in line
    said = json.loads(line)
    assert said.pop("exception").endswith("ValueError: two\nlines")
    assert said.pop("time")
    assert said == {"level": "error", "logger": "any.one", "message": "shard 3:\na\ud800", "shard": "3"}


async def test_a_worker_and_the_api_log_objects(embedded_broker: str, settings: Make, processes: Start) -> None:
    own = settings(
        kafka=embedded_broker, partitions=1, metrics_port=ports.any_free(), api_port=ports.any_free(), log_level="debug"
    )
    await topics.create(own)
    worker = processes("worker", own, "--log-json")
    api = processes("api", own, "--log-json")
    ready = f"http://127.0.0.1:{own.api_port}/api/ready"
    await truth.until(lambda: truth.get(ready)[0] == 200, what="ready")
    for child, others in ((worker, {"faust", "mode", "aiokafka"}), (api, {"uvicorn"})):
        child.terminate()
        await truth.until(lambda child=child: child.returncode is not None)
        loggers = {said["logger"].split(".")[0] for said in objects(child)}
        assert others & loggers, loggers
    assert any("has partitions [0] and the catalog" in said["message"] for said in objects(worker))
    assert any("GET /api/ready" in said["message"] for said in objects(api))


@pytest.mark.parametrize("command", ["worker", "api"])
async def test_a_start_that_fails_is_an_object_too(settings: Make, processes: Start, command: str) -> None:
    own = settings(redis_url="nonsense://", api_port=ports.any_free())
    child = processes(command, own, "--log-json")
    await truth.until(lambda: any(said["level"] == "error" for said in objects(child)), what=child.tail())
    (said,) = [said for said in objects(child) if said["level"] == "error"]
    assert "RUNTALLY_REDIS_URL" in said["message"]

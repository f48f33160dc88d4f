"""`publish`, `schema` and `id`: all of a file or nothing, and a count at the end."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from jsonschema import Draft202012Validator

from runtally.ops import topics
from runtally.settings import Settings

from ..conftest import SettingsFactory
from ..servers.forks import run
from .samples import RUN, event, raw

CAPTURED = Path(__file__).parents[1] / "data" / "prefect-events.jsonl"


def lines(count: int, *bad: int) -> bytes:
    """So many lines; those numbered `bad`, from 1, are bad."""
    told = [raw(event(id=f"run {number}")) if number not in bad else b"{}" for number in range(1, count + 1)]
    return b"\n".join(told) + b"\n"


@pytest.fixture
def told(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


async def made(settings: SettingsFactory, broker: str) -> tuple[Settings, dict[str, str]]:
    own = settings(kafka=broker, redis_url="redis://127.0.0.1:1", partitions=2)
    await topics.create(own)
    return own, {"RUNTALLY_KAFKA": broker, "RUNTALLY_TOPIC_PREFIX": own.topic_prefix}


async def in_kafka(settings: Settings) -> int:
    """How many events the topics hold."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka)
    await consumer.start()
    try:
        places = [TopicPartition(settings.runs_topic, 0), TopicPartition(settings.runs_topic, 1)]
        places.append(TopicPartition(settings.catalog_topic, 0))
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        count = 0
        while fetched := await consumer.getmany(timeout_ms=1500):
            count += sum(map(len, fetched.values()))
        return count
    finally:
        await consumer.stop()


async def test_captured_events_are_published(settings: SettingsFactory, broker: str) -> None:
    own, variables = await made(settings, broker)
    done = run("publish", CAPTURED, **variables)
    assert (done.returncode, done.stdout, done.stderr) == (0, "52 events published, 2 of no interest\n", "")
    assert await in_kafka(own) == 52


async def test_one_bad_line_and_nothing_of_a_file_is_published(
    settings: SettingsFactory, embedded_broker: str, told: Path
) -> None:
    own, variables = await made(settings, embedded_broker)
    told.write_bytes(lines(5000, 4321))
    done = run("publish", told, **variables)
    assert (done.returncode, done.stdout) == (2, "")
    assert "line 4321: missing field: entity has to be given\n" in done.stderr
    assert "1 line is bad and nothing was published" in done.stderr
    assert await in_kafka(own) == 0
    done = run("publish", told, "--skip-bad", "--kafka", embedded_broker, **{**variables, "RUNTALLY_KAFKA": "no:1"})
    assert (done.returncode, done.stdout) == (0, "4,999 events published, 1 bad\n")
    assert done.stderr.count("line 4321") == 1
    assert await in_kafka(own) == 4999


async def test_a_pipe_is_published_as_far_as_it_is_good(settings: SettingsFactory, embedded_broker: str) -> None:
    own, variables = await made(settings, embedded_broker)
    done = run("publish", "-", told=lines(5000, 4321), **variables)
    assert (done.returncode, done.stdout) == (2, "4,000 events published, 1 bad\n")
    assert "line 4321: " in done.stderr
    assert await in_kafka(own) == 4000
    done = run("publish", "-", "--skip-bad", told=lines(3, 2), **variables)
    assert (done.returncode, done.stdout) == (0, "2 events published, 1 bad\n")


def test_a_check_needs_no_broker(told: Path) -> None:
    told.write_bytes(lines(3) + b"\n \n")
    done = run("publish", "--check", told, RUNTALLY_KAFKA="127.0.0.1:1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "3 events good\n", "")
    told.write_bytes(lines(30, *range(2, 27)))
    done = run("publish", "--check", told)
    assert (done.returncode, done.stdout) == (2, "5 events good, 25 bad\n")
    assert done.stderr.count("\nline ") + done.stderr.startswith("line ") == 20
    assert "… further bad lines are only counted" in done.stderr
    assert run("publish", "--check", "--skip-bad", "-", told=lines(3, 3)).returncode == 0


def test_a_broker_that_is_away_and_a_file_that_is_missing_are_named(told: Path) -> None:
    told.write_bytes(lines(1))
    done = run("publish", told, "--kafka", "127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "0 events published\n")
    assert "runtally: Kafka at 127.0.0.1:1 is away" in done.stderr
    done = run("publish", told.with_name("other"))
    assert done.returncode == 2
    assert "other cannot be read: No such file or directory" in done.stderr


def test_progress_is_for_terminals_only(told: Path) -> None:
    told.write_bytes(lines(3))
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "runtally", "publish", "--check", told],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nowhere", "TERM": "xterm"},
        check=True,
        timeout=60,
    )
    os.close(theirs)
    assert done.stdout == b"3 events good\n"
    assert b"bytes" in os.read(ours, 65_536)
    os.close(ours)


def test_the_id_of_a_text_is_told() -> None:
    done = run("id", "task_run", "my-dag/extract")
    assert done.stdout == "647b2c07-72df-5edb-8163-6ca63051575c\n"
    assert run("id", "flow", f"urn:uuid:{RUN.upper()}").stdout.strip() == RUN
    done = run("id", "flow", "")
    assert (done.returncode, done.stdout) == (2, "")
    assert "1 to 250 bytes" in done.stderr
    assert run("id", "work_pool", "x").returncode == 2


def test_the_schema_is_printed() -> None:
    done = run("schema", "events")
    assert done.returncode == 0
    assert Draft202012Validator(json.loads(done.stdout)).is_valid(event())

"""`runtally ledger`: trouble is shown, and mended under running workers; only `skip` can lose anything, and says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from redis import Redis

from runtally.embedded.child import Child
from runtally.errors import UserError
from runtally.ops import ledgers, topics
from runtally.settings import Settings

from ..conftest import environment
from ..servers.forks import run
from . import truth

RUNS = 400
Start = Callable[..., Child]
Make = Callable[..., Settings]


def everything(settings: Settings) -> dict[bytes, bytes]:
    """All that a shard holds but its ledger and when what was touched."""
    with Redis.from_url(settings.redis_url) as redis:
        keys = [key for key in redis.keys("*") if not key.endswith((b":ledger", b":touched", b":touched_ids"))]
        return {key: redis.dump(key) for key in keys}


def told(settings: Settings) -> tuple[int, dict[str, Any]]:
    """Exit code of `ledger show --json`, and its shards by name."""
    shown = run("ledger", "show", "--json", **environment(settings))
    return shown.returncode, {each["shard"]: each for each in json.loads(shown.stdout)["shards"]}


def epoch(settings: Settings, shard: str) -> str:
    with Redis.from_url(settings.redis_url) as redis:
        found = truth.ledger(redis, settings, shard)
    assert found is not None
    return found.epoch


async def test_a_replay_under_a_running_worker_changes_nothing(
    embedded_broker: str, worker_settings: Make, processes: Start
) -> None:
    settings = worker_settings(kafka=embedded_broker)
    await truth.create_topics(settings)
    with pytest.raises(UserError, match="no worker has started yet"):
        await ledgers.show(settings)
    worker = processes("worker", settings)
    await truth.publish(settings, truth.estate(RUNS))
    await truth.until_counted(settings, truth.completed(RUNS))
    passed, before, epochs = truth.applied(settings), everything(settings), {}
    for shard in "012":
        epochs[shard] = epoch(settings, shard)
        moved = await ledgers.replay(settings, shard)
        assert (moved.after, moved.before > 0) == (0, True)
    await truth.until(lambda: all(epoch(settings, shard) != epochs[shard] for shard in epochs))
    await truth.until(lambda: truth.applied(settings) == passed)
    assert truth.counts(settings) == truth.completed(RUNS)
    assert everything(settings) == before

    worker.stop()
    await ledgers.replay(settings, "3")
    assert truth.applied(settings) < passed
    processes("worker", settings)
    await truth.until(lambda: truth.applied(settings) == passed)
    assert everything(settings) == before


@pytest.mark.kafka
async def test_records_that_are_gone_are_passed_over_by_skip_alone_and_only_when_that_is_said(
    kafka: str, worker_settings: Make, processes: Start
) -> None:
    settings = worker_settings(kafka=kafka, partitions=2)
    await truth.create_topics(settings)
    worker = processes("worker", settings)
    await truth.publish(settings, truth.estate(RUNS))
    await truth.until_counted(settings, truth.completed(RUNS))
    worker.stop()
    assert told(settings)[0] == 0
    before = {shard: each["next"] for shard, each in told(settings)[1].items()}
    await truth.publish(settings, truth.estate(RUNS, seed=1))
    await truth.cut_log(settings, partition=0)
    code, found = told(settings)
    assert (code, found["0"]["state"], found["1"]["state"]) == (1, "unfit", "ready")
    worker = processes("worker", settings)
    await truth.until(lambda: truth.states(settings) == {"0": "stopped", "1": "live", "c": "live"})

    code, found = told(settings)
    assert (code, found["0"]["state"], found["0"]["next"]) == (1, "stopped", before["0"])
    first = found["0"]["log_begin"]
    assert f"runtally ledger skip 0 --to {first} --yes-lose-events" in found["0"]["trouble"]
    shown = run("ledger", "show", **environment(settings))
    assert "the records between are gone" in shown.stdout
    for refused in ([*"0"], ["0", "--to", str(first - 1), "--yes-lose-events"], ["0", "--to", str(first)]):
        command = "skip" if len(refused) > 1 else "replay"
        done = run("ledger", command, *refused, **environment(settings))
        assert done.returncode == 2, done
    assert f"{first - before['0']:,} records" in done.stderr
    with pytest.raises(UserError, match="the records between are gone"):
        await ledgers.accept_new_log(settings, "0")
    assert told(settings)[1]["0"]["next"] == before["0"]

    done = run("ledger", "skip", "0", "--to", first, "--yes-lose-events", **environment(settings))
    assert done.returncode == 0, done.stderr
    await truth.until(lambda: truth.health(settings).get("ok") is True)
    assert told(settings)[1]["0"]["trouble"] == ""
    await truth.publish(settings, truth.estate(RUNS, seed=1))
    await truth.until_counted(settings, truth.completed(2 * RUNS))
    assert worker.returncode is None


async def test_a_topic_that_was_made_anew_stops_its_shards_until_it_is_accepted(
    embedded_broker: str, worker_settings: Make, processes: Start
) -> None:
    settings = worker_settings(kafka=embedded_broker, partitions=2)
    await truth.create_topics(settings)
    worker = processes("worker", settings)
    await truth.publish(settings, truth.estate(RUNS))
    await truth.until_counted(settings, truth.completed(RUNS))
    with pytest.raises(UserError, match="the one that has been followed"):
        await ledgers.accept_new_log(settings, "0")
    worker.stop()
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    await admin.start()
    await admin.delete_topics([settings.runs_topic])
    await admin.close()
    await topics.create(settings)
    await truth.publish(settings, truth.estate(RUNS, seed=1))

    processes("worker", settings)
    await truth.until(lambda: truth.states(settings) == {"0": "stopped", "1": "stopped", "c": "live"})
    for shard in "01":
        with pytest.raises(UserError, match="recreated or truncated"):
            await ledgers.replay(settings, shard)
        done = run("ledger", "accept-new-log", shard, **environment(settings))
        assert "goes on at offset 0" in done.stdout, done.stderr
    await truth.until_counted(settings, truth.completed(2 * RUNS))
    await truth.until(lambda: truth.health(settings).get("ok") is True)


async def test_ledgers_are_shown_without_kafka(worker_settings: Make, embedded_broker: str, processes: Start) -> None:
    settings = worker_settings(kafka=embedded_broker, partitions=1)
    await truth.create_topics(settings)
    worker = processes("worker", settings)
    await truth.until(lambda: truth.health(settings).get("ok") is True)
    worker.stop()
    away = settings.model_copy(update={"kafka": "127.0.0.1:1"})
    shown = run("ledger", "show", **environment(away))
    assert shown.returncode == 0
    assert "only the ledgers are shown" in shown.stderr
    assert "Traceback" not in shown.stderr

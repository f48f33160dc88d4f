"""Servers that are away, full, emptied or misconfigured: wait, say it once, lose nothing; or stop and say why."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import pytest
from redis import Redis

from runtally.embedded.child import Child
from runtally.embedded.valkey import Valkey
from runtally.settings import Settings
from runtally.store.keys import live_key

from ..servers.jars import JarKafka
from . import truth

RUNS = 1_000
Start = Callable[..., Child]
Make = Callable[..., Settings]


async def until_said(worker: Child, *words: str) -> None:
    """What health already tells may not be in the log yet; and it is said once."""
    await truth.until(lambda: said(worker, *words) > 0, what=f"said: {words}")
    assert said(worker, *words) == 1


def said(worker: Child, *words: str) -> int:
    """How many lines of the log hold all of these words."""
    return sum(all(word.lower() in line.lower() for word in words) for line in worker.tail(1000).splitlines())


@pytest.mark.kafka
async def test_redis_may_come_late_and_go_away_in_mid_stream(
    kafka: str, own_valkey: Valkey, worker_settings: Make, processes: Start
) -> None:
    settings = worker_settings(kafka=kafka, redis_url=own_valkey.url)
    await truth.create_topics(settings)
    first, second = truth.halves(truth.estate(RUNS))
    await truth.publish(settings, first)
    worker = processes("worker", settings)
    await until_said(worker, "waiting for redis")
    await truth.until(lambda: truth.health(settings).get("ok") is False)
    own_valkey.start()
    await truth.until(lambda: truth.applied(settings) == len(first))
    own_valkey.stop()
    await truth.until(lambda: truth.health(settings).get("ok") is False)
    await truth.publish(settings, second)
    await asyncio.sleep(3)
    own_valkey.start()
    await truth.until_counted(settings, truth.completed(RUNS))
    assert worker.returncode is None
    await truth.until(lambda: truth.health(settings).get("ok") is True)


@pytest.mark.kafka
async def test_a_full_redis_is_waited_for_and_health_says_it(
    kafka: str, own_valkey: Valkey, worker_settings: Make, processes: Start
) -> None:
    own_valkey.start()
    settings = worker_settings(kafka=kafka, redis_url=own_valkey.url)
    await truth.create_topics(settings)
    processes("worker", settings)
    await truth.until(lambda: truth.health(settings).get("ok") is True)
    with Redis.from_url(own_valkey.url) as redis:
        redis.config_set("maxmemory", "1mb")
        await truth.publish(settings, truth.estate(RUNS))
        await truth.until(lambda: "full" in str(truth.health(settings)))
        await asyncio.sleep(2)
        redis.config_set("maxmemory", "0")
    await truth.until_counted(settings, truth.completed(RUNS))


@pytest.mark.kafka
@pytest.mark.slow
async def test_kafka_may_come_late_and_go_away_in_mid_stream(
    own_kafka: JarKafka, worker_settings: Make, processes: Start
) -> None:
    settings = worker_settings(kafka=own_kafka.address)
    worker = processes("worker", settings)
    await until_said(worker, "kafka", "away")
    own_kafka.start()
    await until_said(worker, "runtally topics create")
    await truth.create_topics(settings)
    first, second = truth.halves(truth.estate(RUNS))
    await truth.publish(settings, first)
    await truth.until(lambda: truth.applied(settings) == len(first))
    own_kafka.stop()
    await truth.until(lambda: said(worker, "kafka", "away") == 2)
    await asyncio.sleep(5)
    assert worker.returncode is None, "the worker ended"
    own_kafka.start()
    await truth.publish(settings, second)
    await truth.until_counted(settings, truth.completed(RUNS))
    assert said(worker, "kafka", "away") == 2, "said once at the start and once in mid-stream"
    await until_said(worker, "kafka is back")
    assert said(worker, " ERROR ") == 0


@pytest.mark.kafka
async def test_an_emptied_redis_is_filled_again_from_the_log(
    kafka: str, worker_settings: Make, processes: Start
) -> None:
    settings = worker_settings(kafka=kafka)
    await truth.create_topics(settings)
    await truth.publish(settings, truth.estate(RUNS))
    processes("worker", settings)
    await truth.until_counted(settings, truth.completed(RUNS))
    with Redis.from_url(settings.redis_url) as redis:
        redis.flushall()
    await truth.until_counted(settings, truth.completed(RUNS))


@pytest.mark.kafka
async def test_a_log_that_lost_what_is_next_stops_its_shard_and_no_other(
    kafka: str, worker_settings: Make, processes: Start
) -> None:
    settings = worker_settings(kafka=kafka)
    await truth.create_topics(settings)
    events = truth.estate(RUNS)
    worker = processes("worker", settings)
    await truth.publish(settings, events)
    await truth.until_counted(settings, truth.completed(RUNS))
    worker.stop()
    more = truth.estate(RUNS, seed=1)
    await truth.publish(settings, more)
    await truth.cut_log(settings, partition=0)
    worker = processes("worker", settings)
    await truth.until(lambda: truth.states(settings).get("0") == "stopped")
    await truth.until(lambda: {truth.states(settings).get(name) for name in "123c"} == {"live"})
    await until_said(worker, "shard 0", "retention")
    assert worker.returncode is None


@pytest.mark.kafka
async def test_another_partition_count_stops_every_shard_of_runs_with_the_way_out(
    kafka: str, worker_settings: Make, processes: Start
) -> None:
    settings = worker_settings(kafka=kafka)
    await truth.create_topics(settings)
    worker = processes("worker", settings)
    await truth.until(lambda: truth.health(settings).get("ok") is True)
    worker.stop()
    await truth.add_partitions(settings, 6)
    worker = processes("worker", settings)
    stopped = dict.fromkeys("012345", "stopped")
    await truth.until(lambda: truth.states(settings) == {**stopped, "c": "live"})
    await until_said(worker, "shard 5", "6 partitions", "made from 4", "RUNTALLY_REDIS_PREFIX")
    with Redis.from_url(settings.redis_url) as redis:
        known = [truth.ledger(redis, settings, str(shard)) for shard in range(6)]
        assert redis.hget(live_key(settings.redis_prefix), "partitions") == b"4"
    assert ["6 partitions" in ledger.trouble for ledger in known[:4] if ledger] == [True] * 4
    assert known[4:] == [None, None]
    assert worker.returncode is None


@pytest.mark.kafka
async def test_a_worker_without_a_partition_is_well(kafka: str, worker_settings: Make, processes: Start) -> None:
    settings = worker_settings(kafka=kafka, partitions=1)
    await truth.create_topics(settings)
    all_settings = [settings, worker_settings(**_same(settings)), worker_settings(**_same(settings))]
    for each in all_settings:
        processes("worker", each)
    await truth.until(lambda: all(truth.health(each).get("ok") for each in all_settings))
    assert sum(len(truth.health(each)["shards"]) for each in all_settings) == 2


def _same(settings: Settings) -> dict[str, object]:
    names = ("kafka", "redis_url", "topic_prefix", "group_id", "redis_prefix", "partitions")
    return {name: getattr(settings, name) for name in names}


@pytest.mark.kafka
async def test_records_that_vanish_under_a_running_worker_stop_the_shard_and_are_not_skipped(
    kafka: str, worker_settings: Make, processes: Start
) -> None:
    settings = worker_settings(kafka=kafka)
    await truth.create_topics(settings)
    worker = processes("worker", settings)
    await truth.publish(settings, truth.estate(RUNS))
    await truth.until_counted(settings, truth.completed(RUNS))
    worker.signal(signal.SIGSTOP)
    try:
        await truth.publish(settings, truth.estate(RUNS, seed=1))
        await truth.cut_log(settings, partition=0)
        await truth.publish(settings, truth.estate(RUNS, seed=2))
    finally:
        worker.signal(signal.SIGCONT)
    await truth.until(lambda: truth.states(settings).get("0") == "stopped", what="the shard went on over the hole")
    await until_said(worker, "shard 0", "retention")

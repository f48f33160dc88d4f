"""Data are made anew while workers write and the API answers, and nobody sees anything of that but right answers."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable

import httpx
import pytest
from redis import Redis

from runtally.embedded import ports
from runtally.embedded.child import Child
from runtally.errors import UnfitServerError
from runtally.ops import from_log
from runtally.settings import Settings
from runtally.store import generations, ledger
from runtally.store.connect import connect
from runtally.store.keys import FORMAT, Keys, live_key
from tests.asking import Asking, asking
from tests.conftest import environment
from tests.servers.forks import run

from . import truth

Start = Callable[..., Child]
Make = Callable[..., Settings]
RUNS = 2_000
BODY = {
    "history_start": "2026-11-23T00:00:00Z",
    "history_end": "2026-11-24T00:00:00Z",
    "history_interval_seconds": 86_400,
}
NOW_US = 1_795_600_000_000_000


def rebuild(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("rebuild", *arguments, timeout=90, **environment(settings))


async def counted(api: Asking) -> int:
    answer = await api.history(BODY)
    assert answer.status_code == 200, answer.text
    return sum(state["count_runs"] for bin_ in answer.json() for state in bin_["states"])


def keys_by_generation(settings: Settings) -> dict[str, int]:
    found: dict[str, int] = {}
    with Redis.from_url(settings.redis_url) as redis:
        for key in redis.scan_iter(f"{settings.redis_prefix}:{{*", count=10_000):
            generation = key.split(b"{")[1].split(b".")[0].decode()
            found[generation] = found.get(generation, 0) + 1
    return found


async def test_a_rebuild_from_the_log_is_not_noticed_by_those_who_write_and_ask(
    broker: str, worker_settings: Make, processes: Start
) -> None:
    settings = worker_settings(kafka=broker)
    await truth.create_topics(settings)
    await truth.publish(settings, [(b"k", b"no event"), *truth.estate(RUNS)])
    worker = processes("worker", settings)
    await truth.until_counted(settings, truth.completed(RUNS))
    async with asking(settings, NOW_US) as api:
        await api.until_ready()
        seen = [await counted(api)]
        assert seen == [RUNS]
        going = asyncio.create_task(asyncio.to_thread(rebuild, settings, "--from-log", "--json"))
        batch = 0
        while not going.done():
            batch += 1
            await truth.publish(settings, truth.estate(20, seed=batch))
            seen.append(await counted(api))
            await asyncio.sleep(0.05)
        told = going.result()
        assert told.returncode == 0, told.stderr
        found = json.loads(told.stdout)
        assert (found["generation"], found["before"], found["lost"]) == ("2", "1", 0)
        assert found["records"] >= 3 * RUNS
        await truth.until_counted(settings, truth.completed(RUNS + 20 * batch))
        assert await counted(api) == RUNS + 20 * batch
    assert seen == sorted(seen), "an answer went back"
    assert keys_by_generation(settings).keys() == {"2"}
    assert len(await truth.dead_letters(settings, 1)) == 1
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await truth.dead_letters(settings, 2)
    await truth.until(lambda: "generation 2 of the data is live now" in worker.tail(200))
    with Redis.from_url(settings.redis_url) as redis:
        assert redis.hgetall(live_key(settings.redis_prefix)).keys() == {b"generation", b"format", b"partitions"}


async def test_runs_that_the_log_does_not_make_are_not_lost_unasked(
    embedded_broker: str, worker_settings: Make, processes: Start
) -> None:
    settings = worker_settings(kafka=embedded_broker, partitions=1)
    await truth.create_topics(settings)
    events = truth.estate(40)
    await truth.publish(settings, events)
    worker = processes("worker", settings)
    await truth.until_counted(settings, truth.completed(40))
    worker.terminate()
    await truth.until(lambda: worker.returncode is not None)
    with Redis.from_url(settings.redis_url) as redis:
        # As if the log began where it has come to.
        begun = {**redis.hgetall(Keys(settings.redis_prefix, "1", "0").ledger), b"next": 3 * 25, b"mark": ""}
        redis.hset(Keys(settings.redis_prefix, "7", "0").ledger, mapping=begun)
        redis.hset(live_key(settings.redis_prefix), "filling", f"7 {FORMAT}")
    told = rebuild(settings, "--from-log")
    assert told.returncode == 2
    assert "25 fewer runs" in told.stderr
    assert keys_by_generation(settings).keys() == {"1", "7"}
    told = rebuild(settings, "--from-log", "--yes-lose-events")
    assert told.returncode == 0, told.stderr
    assert "25 runs fewer" in told.stdout
    assert keys_by_generation(settings).keys() == {"7"}


async def test_data_of_an_older_format_are_made_anew_while_the_older_version_serves(
    embedded_broker: str, worker_settings: Make, processes: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = worker_settings(kafka=embedded_broker, api_port=ports.any_free())
    await truth.create_topics(settings)
    await truth.publish(settings, truth.estate(200))
    older_worker, _ = processes("worker", settings), processes("api", settings)
    await truth.until_counted(settings, truth.completed(200))
    for module in (ledger, generations, from_log):
        monkeypatch.setattr(module, "FORMAT", FORMAT + 1)
    with pytest.raises(UnfitServerError, match=f"format {FORMAT} .*`runtally rebuild --from-log`"):
        await connect(settings)
    url = f"http://127.0.0.1:{settings.api_port}"
    async with asking(settings, NOW_US) as newer, httpx.AsyncClient(base_url=url, timeout=30) as older:
        await truth.until(lambda: truth.get(f"{url}/api/ready")[0] == 200)
        while "`runtally rebuild --from-log`" not in (answer := await newer.history(BODY)).text:
            assert answer.status_code == 503, answer.text
            await asyncio.sleep(0.05)
        going = asyncio.create_task(from_log.rebuild_from_log(settings, False, lambda *_: None))
        served = []
        while not going.done():
            served.append(await older.post("/api/task_runs/history", json=BODY))
            await asyncio.sleep(0.02)
        assert (await going).lost == 0
        assert await counted(newer) == 200
        codes = [answer.status_code for answer in served]
        assert codes == sorted(codes)
        assert codes.count(200) > 3
        refused = await older.post("/api/task_runs/history", json=BODY)
        assert refused.status_code == 503
        assert "use that newer runtally" in refused.text
    await truth.until(lambda: older_worker.returncode is not None)
    assert "use that newer runtally" in older_worker.tail(50)


async def test_a_shard_of_other_attributes_waits_for_the_rebuild_that_its_message_names(
    embedded_broker: str, worker_settings: Make, processes: Start
) -> None:
    settings = worker_settings(kafka=embedded_broker)
    await truth.create_topics(settings)
    first, second = truth.halves(truth.estate(200))
    await truth.publish(settings, first)
    worker = processes("worker", settings)
    await truth.until(lambda: truth.applied(settings) == len(first))
    worker.terminate()
    await truth.until(lambda: worker.returncode is not None)
    with Redis.from_url(settings.redis_url) as redis:
        told = ledger.current_cells().replace("work_queue_name", "").replace(" ;", ";")
        for shard in ("0", "1"):
            redis.hset(Keys(settings.redis_prefix, "1", shard).ledger, "cells", told)
    await truth.publish(settings, second)
    processes("worker", settings)
    await truth.until(lambda: [*truth.states(settings).values()].count("stopped") == 2)
    assert "`runtally rebuild`" in truth.health(settings)["shards"]["0"]["trouble"]
    done = json.loads(rebuild(settings, "0", "1", "--json").stdout)
    assert (done["shards"], done["written"]) == (["0", "1"], 0)
    await truth.until_counted(settings, truth.completed(200))
    assert set(truth.states(settings).values()) == {"live"}
    with Redis.from_url(settings.redis_url) as redis:
        assert not [*redis.scan_iter(f"{settings.redis_prefix}:*:rebuild")]


def test_a_rebuild_that_no_worker_does_says_so(worker_settings: Make, embedded_broker: str) -> None:
    settings = worker_settings(kafka=embedded_broker)
    told = rebuild(settings)
    assert told.returncode == 2
    assert "start a worker first" in told.stderr
    assert rebuild(settings, "0", "--from-log").returncode == 2

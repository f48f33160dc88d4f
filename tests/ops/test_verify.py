"""`runtally verify` finds what is wrong, names it, and says by its exit code whether something is."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable

import numpy as np
import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from runtally.core.cells import CELL
from runtally.core.scopes import ALL, COHORT
from runtally.settings import Settings
from tests.reference.vectors import TASK_RUN_BINS
from tests.servers.forks import run
from tests.store.estate import Estate

Make = Callable[..., Settings]


@pytest.fixture
def filled(settings: Make) -> Settings:
    own = settings(partitions=2)
    asyncio.run(_fill(own))
    return own


async def _fill(settings: Settings) -> None:
    async with Redis.from_url(settings.redis_url, protocol=2) as redis:
        estate = Estate(redis, settings)
        await estate.open()
        await estate.apply(TASK_RUN_BINS.events)
        await estate.close()


def verify(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    where = {"RUNTALLY_REDIS_URL": settings.redis_url, "RUNTALLY_REDIS_PREFIX": settings.redis_prefix}
    return run("verify", *arguments, **where)


def one_of(redis: SyncRedis, settings: Settings, pattern: str) -> bytes:
    (found, *_) = sorted(redis.scan_iter(f"{settings.redis_prefix}:*:{pattern}"))
    return bytes(found)


def test_right_cells_are_the_same(filled: Settings) -> None:
    told = verify(filled)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("all the same: ")
    found = json.loads(verify(filled, "--json").stdout)
    assert (found["same"], found["wrong"], found["named"]) == (True, 0, [])
    assert found["runs"] > 0
    assert found["cells"] > found["runs"]
    assert json.loads(verify(filled, "--sample", "1", "--json").stdout)["days"] == 1


@pytest.mark.parametrize("kind", [ALL, COHORT], ids=lambda kind: kind.name)
def test_a_count_that_is_off_by_one_is_named(filled: Settings, kind: object) -> None:
    letter = "a" if kind is ALL else "c"
    with SyncRedis.from_url(filled.redis_url) as redis:
        key = one_of(redis, filled, f"cells:{letter}0:*")
        (field, packed), *_ = redis.hgetall(key).items()
        cells = np.frombuffer(packed, CELL).copy()
        cells["n"][0] += 1
        redis.hset(key, field, cells.tobytes())
    told = verify(filled)
    assert told.returncode == 1
    first, last = told.stdout.splitlines()
    assert ("all runs" if kind is ALL else "cohort ") in first
    assert " · 1m from " in first
    assert f"n is {cells['n'][0]}, should be {cells['n'][0] - 1}" in first
    assert last.startswith("wrong cells: 1 of ")
    (named,) = json.loads(verify(filled, "--json").stdout)["named"]
    assert named["level"] == "1m"


def test_a_cell_that_is_missing_and_one_too_many_are_named(filled: Settings) -> None:
    with SyncRedis.from_url(filled.redis_url) as redis:
        key = one_of(redis, filled, "cells:a4:*")
        packed = redis.hget(key, "0")
        redis.hdel(key, "0")
        redis.hset(one_of(redis, filled, "cells:c4:*"), "9990", packed)
    told = verify(filled)
    assert told.returncode == 1
    assert "missing" in told.stdout
    assert "a cohort that is not in the dictionary" in told.stdout


def test_without_data_it_cannot_be_found_out(settings: Make) -> None:
    told = verify(settings())
    assert told.returncode == 2
    assert "start a worker first" in told.stderr

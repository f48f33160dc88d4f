"""A worker checks its own cells again and again, and says which are wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis

from runtally.core.cells import CELL
from runtally.metrics import Metrics
from runtally.settings import Settings
from runtally.stream.checking import RunningCheck
from tests.reference.vectors import TASK_RUN_BINS
from tests.store.estate import Estate

Make = Callable[..., Settings]


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_wrong_cell_is_found_told_once_and_forgotten_when_it_is_right_again(
    settings: Make, caplog: pytest.LogCaptureFixture
) -> None:
    own = settings(verify_every=10_000)
    metrics = Metrics("worker")
    checked, wrong = (metrics[name].labels("0") for name in ("verified_cells_total", "wrong_cells"))
    async with Redis.from_url(own.redis_url, protocol=2) as redis:
        estate = Estate(redis, own, 1)
        await estate.open()
        await estate.apply(TASK_RUN_BINS.events)
        running = asyncio.create_task(RunningCheck(redis, own, metrics, lambda: ["0"]).run())
        await until(lambda: checked._value.get() > 0)
        assert wrong._value.get() == 0
        assert b'runtally_verify_age_seconds{shard="0"} 0.' in metrics.text()
        assert not caplog.records

        key = sorted([key async for key in redis.scan_iter("*:{1.0}:cells:a0:*")])[0]
        (field, right), *_ = (await redis.hgetall(key)).items()
        cells = np.frombuffer(right, CELL).copy()
        cells["n"][0] += 7
        await redis.hset(key, field, cells.tobytes())
        await until(lambda: wrong._value.get() == 1)
        before = checked._value.get()
        await until(lambda: checked._value.get() > before)
        (said,) = caplog.records
        assert said.levelno == logging.ERROR
        assert "shard 0: cells of 2021-0" in said.message
        assert "all runs · 1m from 2021-0" in said.message
        assert f"n is {cells['n'][0]}, should be {cells['n'][0] - 7}" in said.message

        await redis.hset(key, field, right)
        await until(lambda: wrong._value.get() == 0)
        assert len(caplog.records) == 1
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await estate.close()

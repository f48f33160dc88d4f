"""A `History` in this process beside a real Valkey, and its answers held against the reference."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from runtally.api.history import History
from runtally.api.models import CountBody, HistoryBody, filters_of, history_request
from runtally.api.service import CountAnswer, HistoryAnswer
from runtally.errors import NotReadyError
from runtally.settings import Settings
from tests.reference.history import Reference

Body = dict[str, Any]


@asynccontextmanager
async def living(settings: Settings) -> AsyncIterator[History]:
    """A service that has connected."""
    service = History(settings)
    await service.start()
    try:
        for _ in range(500):
            try:
                await service.history(history_request(HistoryBody.model_validate(_NOTHING)), 0)
                break
            except NotReadyError:
                await asyncio.sleep(0.005)
        yield service
    finally:
        await service.stop()


async def asked(service: History, body: Body, now: int) -> HistoryAnswer:
    """A history."""
    return await service.history(history_request(HistoryBody.model_validate(body)), now)


async def counted(service: History, body: Body, now: int) -> CountAnswer:
    """A count, by the filters of a history's body."""
    return await service.count(filters_of(CountBody.model_validate(body)), now)


def check_history(answer: HistoryAnswer, reference: Reference, body: Body, now: int) -> None:
    """Hold an answer against the reference, to the microsecond."""
    found = [{e.state: (e.count, e.run_time_us, e.lateness_us) for e in entries} for entries in answer.entries]
    expected = [sums for _, _, sums in reference.history_us(body, now)]
    assert found == expected, f"{body} at {now}, answered from {answer.stand.plan or 'a scan'}"


def check_count(answer: CountAnswer, reference: Reference, body: Body) -> None:
    """Hold a count against the reference."""
    assert answer.count == reference.count(body), f"{body}, counted from {answer.stand.plan or 'a scan'}"


_NOTHING: Body = {"history_start": "2021-07-01", "history_end": "2021-07-01", "history_interval_seconds": 60}

"""Whatever cells can get wrong: an answer from them is the raw runs' and the naive reference's, while events arrive."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from runtally.core import cells, fold
from runtally.core.cells import SUM_LIMIT
from runtally.settings import Settings
from tests.conftest import examples
from tests.reference.history import Reference
from tests.store.estate import Estate
from tests.strategies.hostile import Play, plays

from .living import Body, asked, check_count, check_history, counted, living

STEPS = 4
QUESTIONS = 25
"""With the histories asked again of raw runs, and the counts, about 125 requests an estate: 10,000 in a long run."""
CAPS: list[tuple[dict[str, int], float]] = [
    ({}, SUM_LIMIT),
    ({}, 2.0**50),
    ({"max_states": 3}, SUM_LIMIT),
    ({"max_cohorts": 4}, SUM_LIMIT),
    ({"max_states": 1, "max_cohorts": 1}, SUM_LIMIT),
    ({"worker_memory": 1 << 13, "api_cache": 1 << 13}, SUM_LIMIT),
]
"""Settings under which cells cannot tell everything or nothing stays in memory, and where a cell becomes wide."""


@pytest.fixture(scope="module")
def server(valkey: str) -> Settings:
    return Settings(redis_url=valkey, redis_prefix="hostile", max_staleness=0)


async def check(settings: Settings, play: Play, batch_size: int) -> None:
    """Every question after every share of the events, to one service that lives through all of it."""
    reference = Reference()
    async with Redis.from_url(settings.redis_url, protocol=2) as redis:
        estate = Estate(redis, settings)
        try:
            await estate.open()
            async with living(settings) as service:
                share = -(-len(play.events) // STEPS)
                for step in range(STEPS):
                    events = play.events[step * share : (step + 1) * share]
                    for event in events:
                        reference.apply(event)
                    await estate.apply(events, batch_size)
                    for number, (body, now) in enumerate(play.questions):
                        check_history(await asked(service, body, now), reference, body, now)
                        twin = from_raw(body) if (number + step) % 8 == 0 else None
                        if twin is not None:
                            check_history(await asked(service, twin, now), reference, body, now)
                        if (number + step) % 6 == 0:
                            check_count(await counted(service, body, now), reference, body)
            assert await estate.cell_differences() == []
        finally:
            await estate.close()


def from_raw(body: Body) -> Body | None:
    """The same question with a condition that every run fulfils and only raw runs can tell; None if it has no place."""
    task_runs: dict[str, Any] = body.get("task_runs") or {}
    if task_runs.get("operator") == "or_" or task_runs.get("name") is not None:
        return None
    return {**body, "task_runs": {**task_runs, "name": {"like_": "%"}}}


@examples(80, parts=4)
@given(plays(80, QUESTIONS), st.sampled_from(CAPS), st.sampled_from([2, 9, 1000]))
def test_cells_answer_as_raw_runs_and_the_reference_at_every_edge(
    server: Settings, play: Play, caps: tuple[dict[str, int], float], batch_size: int
) -> None:
    with SyncRedis.from_url(server.redis_url) as redis:
        redis.flushall()
    settings, sum_limit = caps
    with pytest.MonkeyPatch.context() as patch:
        # Both modules hold the name; so many runs that a sum leaves 62 bits would take minutes.
        patch.setattr(cells, "SUM_LIMIT", sum_limit)
        patch.setattr(fold, "SUM_LIMIT", sum_limit)
        asyncio.run(check(server.model_copy(update=settings), play, batch_size))

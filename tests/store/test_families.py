"""What the worker remembers of its runs keeps within its memory, however large they are."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from runtally.settings import Settings
from tests.reference.vectors import at

from .estate import Estate

RUNS = 300


@pytest.mark.parametrize("length", [10, 20_000])
async def test_records_are_remembered_within_the_budget_whatever_their_length(
    redis: Redis, own: Settings, length: int
) -> None:
    settings = own.model_copy(update={"worker_memory": 8 << 20, "partitions": 1})
    estate = Estate(redis, settings, 1)
    await estate.open()
    try:
        for number in range(RUNS):
            state = {"state_type": "COMPLETED", "state_name": "Completed", "state_timestamp": at()}
            data = {"id": f"r{number}", "flow_run_id": f"f{number}", "name": "a", "tags": ["t" * length], **state}
            event = {"entity": "task_run", "action": "upsert", "occurred": at(seconds=1), "data": data}
            await estate.apply([event])
        known = estate.runs[0]._families._known
        remembered = [record for _, family in known.items() for record in family.members.values()]
        assert sum(map(len, remembered)) <= settings.worker_cache // 4
        assert len(remembered) == RUNS if length == 10 else RUNS > len(remembered) > 10
    finally:
        await estate.close()

"""A shard that has stopped makes the API unready, with the reason; its answers go on."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from runtally.errors import LedgerTroubleError
from runtally.store.ledger import read_ledgers
from runtally.store.repair import go_on_at
from tests.asking import asking
from tests.conftest import SettingsFactory
from tests.reference.vectors import DT_US, TASK_RUN_BINS
from tests.store.estate import Estate, log


async def test_a_stopped_shard_is_named_with_its_reason_until_it_is_repaired(settings: SettingsFactory) -> None:
    own = settings(kafka="127.0.0.1:1")
    async with Redis.from_url(own.redis_url, protocol=2) as redis, asking(own, DT_US) as api:
        estate = Estate(redis, own)
        await estate.open()
        await api.until_ready()
        shard = estate.runs[1]
        with pytest.raises(LedgerTroubleError):
            await shard.open(log(first=5, end=9))
        answer = await api.ready()
        assert answer.status_code == 503
        assert answer.json()["message"].startswith("shard 1 has stopped: the log begins at offset 5")
        assert "runtally ledger skip 1 --to 5" in answer.json()["message"]
        assert (await api.history(TASK_RUN_BINS.range)).status_code == 200

        ledger = (await read_ledgers(redis, own))["1"]
        assert ledger is not None
        await go_on_at(redis, own, "1", ledger, 5, 5)
        assert (await api.ready()).status_code == 200
        await estate.close()

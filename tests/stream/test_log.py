"""Looking at a log: a broker that is away is not taken for a log that lacks a record."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from runtally.embedded.broker import Broker
from runtally.errors import ServerLostError
from runtally.ops import topics
from runtally.stream import log
from tests.conftest import SettingsFactory

from . import truth


async def test_a_record_that_cannot_be_read_now_is_not_missing(
    settings: SettingsFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_READ_TIMEOUT_S", 0.5)
    broker = Broker(tmp_path / "broker.log")
    own = settings(kafka=broker.start(), partitions=1, redis_url="redis://127.0.0.1:1/0")
    await topics.create(own)
    await truth.publish(own, truth.estate(1))
    looks = log.Log(own)
    try:
        ends = await looks.ends(own.runs_topic, 0)
        found = await ends.read_record(0)
        assert found is not None
        assert (found.offset, await ends.read_record(ends.end + 5)) == (0, None)
        broker.child.signal(signal.SIGSTOP)
        with pytest.raises(ServerLostError, match="does not answer"):
            await ends.read_record(0)
        broker.child.signal(signal.SIGCONT)
        assert await ends.read_record(0) == found
    finally:
        await looks.close()
        broker.stop()

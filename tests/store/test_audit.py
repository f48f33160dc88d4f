"""A day is compared in one state of its shard, whatever is committed while it is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from runtally.settings import Settings
from runtally.store import edit
from runtally.store.audit import Audit
from runtally.store.link import Command, Link

from .estate import Estate
from .test_rebuild import FIRST, MOVED, THEN


class DisturbedLink(Link):
    """After each of the first pieces that are read, one of the changes is committed."""

    def __init__(self, redis: Redis, estate: Estate, changes: list[list[dict[str, Any]]]) -> None:
        super().__init__(redis)
        self._estate = estate
        self.changes = changes

    async def call(self, commands: Sequence[Command]) -> list[Any]:
        replies = await super().call(commands)
        if commands[0][0] == "EVAL" and self.changes:
            await self._estate.apply(self.changes.pop())
        return replies


@pytest.mark.parametrize("most_touched", [edit.MOST_TOUCHED, 0], ids=["by touched minutes", "by the floor"])
async def test_what_is_committed_while_a_day_is_read_is_read_again(
    estate: Estate, redis: Redis, own: Settings, monkeypatch: pytest.MonkeyPatch, most_touched: int
) -> None:
    monkeypatch.setattr(edit, "MOST_TOUCHED", most_touched)
    await estate.apply(FIRST)
    audit = Audit(redis, own, "0")
    link = DisturbedLink(redis, estate, [[one] for one in (*MOVED, *THEN)])
    monkeypatch.setattr(audit, "_link", link)
    try:
        for day in await audit.days():
            assert (await audit.check(day)).wrong == []
        assert len(link.changes) < len(MOVED) + len(THEN) - 10
    finally:
        await audit.close()

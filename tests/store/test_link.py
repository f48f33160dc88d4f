"""Many groups of commands at once: each one's replies go to its taker, and none to anybody else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from runtally.store.link import Command, Link

LARGE = 20_000
"""More bytes than are sent at once while further commands are made."""


@pytest.fixture
def link(redis: Redis) -> Link:
    return Link(redis)


async def test_each_groups_replies_go_to_its_taker_in_their_order(link: Link) -> None:
    taken: list[tuple[int, list[Any]]] = []

    def echo(number: int) -> list[Command]:
        return [("ECHO", b"%d" % number), ("ECHO", b"x" * LARGE)]

    await link.transactions(
        map(echo, range(20)), (lambda replies, at=at: taken.append((at, replies)) for at in range(20))
    )
    assert taken == [(at, [b"%d" % at, b"x" * LARGE]) for at in range(20)]
    await link.close()


@pytest.mark.parametrize("failing", [0, 1])
async def test_a_taker_that_fails_leaves_no_replies_for_the_next_call(link: Link, failing: int) -> None:
    def refuse(_: list[Any]) -> None:
        raise ValueError("not that")

    takers = [lambda _: None, lambda _: None]
    takers[failing] = refuse
    with pytest.raises(ValueError, match="not that"):
        await link.transactions([[("ECHO", b"one")], [("ECHO", b"two")]], takers)
    assert await link.call([("ECHO", b"three")]) == [b"three"]
    await link.close()


async def test_an_error_reply_in_a_group_is_raised_and_leaves_nothing_behind(link: Link) -> None:
    taken: list[list[Any]] = []
    with pytest.raises(ResponseError, match="not an integer"):
        await link.transactions([[("INCRBY", "number", "words")], [("ECHO", b"two")]], [taken.append, taken.append])
    assert taken == []
    assert await link.call([("ECHO", b"three")]) == [b"three"]
    await link.close()


async def test_a_call_that_is_cancelled_leaves_nothing_behind(link: Link, redis: Redis) -> None:
    waiting = asyncio.create_task(link.call([("BLPOP", "nothing", 0)]))
    while not any(client["cmd"] == "blpop" for client in await redis.client_list()):
        await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await link.call([("ECHO", b"next")]) == [b"next"]
    await link.close()

"""The API looks what is new beside questions, and prepares what they are likely to ask for."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from pathlib import Path

import pytest
from hypothesis import given

from runtally.api.history import History
from runtally.api.service import HistoryAnswer
from runtally.embedded.valkey import Valkey
from runtally.errors import ServerLostError
from runtally.settings import Settings
from tests.conftest import examples
from tests.store.estate import Estate
from tests.strategies.hostile import Play, plays
from tests.strategies.pools import BASE_US, DAY_US, SECOND_US, SEEDS

from .living import Body, asked, check_history, living
from .test_cache_attacks import moment, opened, task_run

NOW = BASE_US + DAY_US
BODY: Body = {"history_start": moment(BASE_US), "history_end": moment(NOW), "history_interval_seconds": 86_400}


@pytest.fixture(scope="module")
def server(valkey: str) -> Settings:
    return Settings(redis_url=valkey, redis_prefix="followed", max_staleness=2000)


@examples(20, parts=2)
@given(plays(120, 4), SEEDS)
def test_what_was_prepared_is_the_references(server: Settings, play: Play, seed: int) -> None:
    asyncio.run(asked_again_and_again(server, play, random.Random(seed)))


async def asked_again_and_again(settings: Settings, play: Play, dice: random.Random) -> None:
    async with opened(settings) as (_, estate), living(settings) as service:
        for begin in range(0, len(play.events), 8):
            await estate.apply(play.events[begin : begin + 8], 4)
            for _ in range(3):
                await asyncio.sleep(dice.choice([0, 0.001, 0.004]))
                for body, now in play.questions:
                    answer = await asked(service, body, now)
                    check_history(answer, estate.reference_at(answer.stand.ledger), body, now)


@examples(20)
@given(plays(40, 0), SEEDS)
def test_an_answer_has_all_that_was_there_so_long_before_it(server: Settings, play: Play, seed: int) -> None:
    asyncio.run(held_against_the_clock(server, play, random.Random(seed)))


async def held_against_the_clock(settings: Settings, play: Play, dice: random.Random) -> None:
    applied: list[tuple[float, dict[str, int]]] = []
    async with opened(settings) as (_, estate), living(settings) as service:
        for event in play.events:
            await estate.apply([event])
            applied.append((time.monotonic(), {name: len(told) for name, told in estate.told.items()}))
            await asyncio.sleep(dice.choice([0, 0.001, 0.002, 0.003]))
            old_enough_s = time.monotonic() - settings.max_staleness / 1e6
            answer = await asked(service, BODY, NOW)
            for moment_s, ledger in applied:
                if moment_s < old_enough_s:
                    assert all(answer.stand.ledger[name] >= after for name, after in ledger.items())


async def test_while_questions_come_none_waits_for_what_is_new(server: Settings) -> None:
    """But the first ones that lack what has changed: then it is known to change."""
    settings = server.model_copy(update={"max_staleness": 400_000})
    async with opened(settings, 1) as (_, estate), living(settings) as service:
        await _asked_until_states(service, estate, 4)
        # On a busy machine the look beside them may come late.
        assert 0 in [answer.stand.spent_s["read"] for answer in (await _asked_until_states(service, estate, 4))[1:]]


async def test_what_is_asked_for_again_and_again_is_made_before_somebody_asks(server: Settings) -> None:
    settings = server.model_copy(update={"max_staleness": 200_000})
    async with opened(settings, 1) as (_, estate), living(settings) as service:
        await _asked_until_states(service, estate, 5)
        await service.figures()
        before = await asked(service, BODY, NOW)
        await service.figures()
        await estate.apply([task_run(1000)])
        after = before
        while after.stand.ledger == before.stand.ledger:
            await asyncio.sleep(0.02)
            after = await asked(service, BODY, NOW)
        assert after.entries != before.entries
        assert (await service.figures()).misses == 0


async def test_a_minute_is_prepared_as_a_whole_and_shard_by_shard_if_both_are_asked_for(server: Settings) -> None:
    """What one question cuts in two, another one takes whole."""
    settings = server.model_copy(update={"max_staleness": 20_000})
    ranges = [(0, 90), (30, 120)]
    bodies = [
        {
            "history_start": moment(BASE_US + begin_s * SECOND_US),
            "history_end": moment(BASE_US + end_s * SECOND_US),
            "history_interval_seconds": end_s - begin_s,
        }
        for begin_s, end_s in ranges
    ]
    async with opened(settings) as (_, estate), living(settings) as service:
        for number in range(25):
            await estate.apply([task_run(number, second) for second in (10, 45, 70, 110)])
            await asyncio.sleep(0.01)
            for body in bodies:
                answer = await asked(service, body, NOW)
                check_history(answer, estate.reference_at(answer.stand.ledger), body, NOW)


async def test_between_two_answers_others_get_their_turn(server: Settings) -> None:
    """Who comes is seen, and health is answered, however many questions there are that need nothing new."""
    settings = server.model_copy(update={"max_staleness": 60_000_000})
    async with opened(settings) as (_, estate), living(settings) as service:
        await estate.apply([*map(task_run, range(8))])
        await asked(service, BODY, NOW)
        order: list[int] = []

        async def ask(number: int) -> None:
            await asked(service, BODY, NOW)
            order.append(number)

        questions = asyncio.gather(*map(ask, range(20)))
        turns = 0
        while not questions.done():
            await asyncio.sleep(0)
            turns += 1
        assert order == [*range(20)]
        assert turns > len(order)


async def test_nobody_looks_when_nobody_asks(server: Settings) -> None:
    async with opened(server) as (redis, estate), living(server) as service:
        await estate.apply([task_run(0)])
        await asked(service, BODY, NOW)
        looks = -1
        deadline = time.monotonic() + 30
        while (found := (await redis.info("commandstats"))["cmdstat_eval"]["calls"]) != looks:
            assert time.monotonic() < deadline
            looks = found
            await asyncio.sleep(0.2)


async def test_what_goes_wrong_beside_questions_is_told_to_the_next_one(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path / "valkey")
    valkey.start()
    try:
        settings = Settings(redis_url=valkey.url, redis_prefix="lost", max_staleness=20_000)
        async with opened(settings, 1) as (_, estate), living(settings) as service:
            await estate.apply([task_run(0)])
            await asyncio.sleep(0.02)
            before = await asked(service, BODY, NOW)
            valkey.stop(0)
            await asyncio.sleep(0.1)
            with pytest.raises(ServerLostError):
                await asked(service, BODY, NOW)
            valkey.start()
            while True:
                with contextlib.suppress(ServerLostError):
                    assert (await asked(service, BODY, NOW)).entries == before.entries
                    break
                await asyncio.sleep(0.01)
    finally:
        valkey.stop()


async def _asked_until_states(service: History, estate: Estate, count: int) -> list[HistoryAnswer]:
    """The first answer of each of so many states, while runs come."""
    found: dict[int, HistoryAnswer] = {}
    deadline = time.monotonic() + 60
    while len(found) < count:
        assert time.monotonic() < deadline
        await estate.apply([task_run(len(estate.told["0"]))])
        await asyncio.sleep(0.02)
        answer = await asked(service, BODY, NOW)
        found.setdefault(answer.stand.ledger["0"], answer)
    return [*found.values()]

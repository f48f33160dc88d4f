"""Redis changed under a living API in ways that no event explains: never a stale or a mixed answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from runtally.api.history import History
from runtally.errors import NotReadyError
from runtally.settings import Settings
from runtally.store.keys import CATALOG, Keys
from runtally.store.ledger import GENERATION
from tests.conftest import examples
from tests.reference.vectors import at
from tests.store.estate import Estate
from tests.strategies.hostile import Play, plays
from tests.strategies.pools import BASE_US, DAY_US, SECOND_US, SEEDS

from .living import Body, asked, check_count, check_history, counted, living
from .test_rollups_answer import from_raw

Event = dict[str, Any]
PARTITIONS = 2
SHARDS = [*map(str, range(PARTITIONS)), CATALOG]


@pytest.fixture(scope="module")
def server(valkey: str) -> Settings:
    return Settings(redis_url=valkey, redis_prefix="attacked", max_staleness=0)


class Attacked:
    """A worker's shards and a living API over one Redis, and by shard the log that the data there was made from."""

    def __init__(self, redis: Redis, settings: Settings, service: History, play: Play, dice: random.Random) -> None:
        self._redis = redis
        self._settings = settings
        self._service = service
        self._play = play
        self._dice = dice
        self._estate = Estate(redis, settings, PARTITIONS)
        self._snapshot: dict[bytes, bytes] = {}
        self._snapshot_told: dict[str, list[Event]] = {}

    async def live(self, steps: int) -> None:
        """So many things that happen, each followed by questions."""
        try:
            await self._estate.open()
            await self._keep()
            for _ in range(steps):
                happens = (self._apply, self._keep, self._roll_back, self._roll_back_one, self._flush, self._replay)
                await self._dice.choices([*happens, self._estate.reopen], [8, 2, 2, 2, 1, 2, 2])[0]()
                await self._ask()
        finally:
            await self._estate.close()

    async def _apply(self) -> None:
        if not self._play.events:
            return
        await self._estate.apply(self._dice.choices(self._play.events, k=12), self._dice.choice([1, 5, 12]))

    async def _keep(self) -> None:
        self._snapshot = {key: await self._redis.dump(key) async for key in self._redis.scan_iter(count=1000)}
        self._snapshot_told = {name: [*events] for name, events in self._estate.told.items()}

    async def _roll_back(self) -> None:
        """All of Redis is what it once was; the worker finds out, at once or after somebody asked."""
        await self._redis.flushall()
        await self._restore(b"", SHARDS)

    async def _roll_back_one(self) -> None:
        """One shard alone is what it once was, as after a failover of one of a cluster's nodes."""
        shard = self._dice.choice(SHARDS)
        root = Keys(self._settings.redis_prefix, GENERATION, shard).ledger.removesuffix(b"ledger")
        held = [key async for key in self._redis.scan_iter(count=1000) if key.startswith(root)]
        await self._redis.delete(*held)
        await self._restore(root, [shard])

    async def _flush(self) -> None:
        """Nothing is left, and other data comes."""
        await self._redis.flushall()
        if self._dice.random() < 0.5:
            await self._ask()
        await self._estate.reopen()
        if self._dice.random() < 0.7:
            await self._apply()

    async def _replay(self) -> None:
        """The same events in another order: the same answers from dictionaries with other numbers."""
        events = [event for told in self._estate.told.values() for event in told]
        self._dice.shuffle(events)
        await self._redis.flushall()
        await self._estate.reopen()
        await self._estate.apply(events, self._dice.choice([3, 1000]))

    async def _restore(self, root: bytes, shards: Sequence[str]) -> None:
        for key, value in self._snapshot.items():
            if key.startswith(root):
                await self._redis.restore(key, 0, value, replace=True)
        for shard in shards:
            self._estate.told[shard] = [*self._snapshot_told[shard]]
        if self._dice.random() < 0.5:
            await self._ask()
        await self._estate.reopen()

    async def _ask(self) -> None:
        """Some questions, of one state; an answer is the reference's, or says that it cannot be made yet."""
        for body, now in self._dice.sample(self._play.questions, min(5, len(self._play.questions))):
            for form in (body, from_raw(body)):
                if form is not None:
                    await self._ask_one(form, now)

    async def _ask_one(self, body: Body, now: int) -> None:
        ledgers = await applied(self._redis, self._settings)
        try:
            answer = await asked(self._service, body, now)
            count = await counted(self._service, body, now)
        except NotReadyError:
            assert None in ledgers.values()
            return
        assert answer.stand.ledger == count.stand.ledger == ledgers
        reference = self._estate.reference_at(answer.stand.ledger)
        check_history(answer, reference, body, now)
        check_count(count, reference, body)


@asynccontextmanager
async def opened(settings: Settings, partitions: int = PARTITIONS) -> AsyncIterator[tuple[Redis, Estate]]:
    """Redis, emptied, and a worker's shards over it."""
    async with Redis.from_url(settings.redis_url, protocol=2) as redis:
        await redis.flushall()
        estate = Estate(redis, settings, partitions)
        await estate.open()
        try:
            yield redis, estate
        finally:
            await estate.close()


async def applied(redis: Redis, settings: Settings) -> dict[str, int | None]:
    """The next offset of each shard as Redis has it, None without a ledger."""
    found = {}
    for shard in SHARDS:
        next_ = await redis.hget(Keys(settings.redis_prefix, GENERATION, shard).ledger, "next")
        found[shard] = None if next_ is None else int(next_)
    return found


async def attack(settings: Settings, play: Play, seed: int) -> None:
    async with Redis.from_url(settings.redis_url, protocol=2) as redis:
        estate = Estate(redis, settings, PARTITIONS)
        await estate.open()
        await estate.close()
        async with living(settings) as service:
            await Attacked(redis, settings, service, play, random.Random(seed)).live(10)


@examples(40, parts=2)
@given(plays(80, 12), SEEDS)
def test_whatever_happens_to_redis_an_answer_is_of_the_state_that_it_names(
    server: Settings, play: Play, seed: int
) -> None:
    with SyncRedis.from_url(server.redis_url) as redis:
        redis.flushall()
    asyncio.run(attack(server, play, seed))


@examples(40, parts=2)
@given(plays(200, 12), SEEDS)
def test_while_events_pour_in_every_answer_is_of_one_state_of_each_shard(
    server: Settings, play: Play, seed: int
) -> None:
    asyncio.run(poured(server, play, random.Random(seed)))


async def poured(settings: Settings, play: Play, dice: random.Random) -> None:
    """Events one after the other as fast as they go, and meanwhile three who ask, who may share a look or not."""
    settings = settings.model_copy(update={"max_staleness": dice.choice([0, 5000, 60_000_000])})
    async with opened(settings, dice.choice([1, PARTITIONS])) as (_, estate), living(settings) as service:
        writer = asyncio.create_task(pour(estate, play, dice))
        questions = iter(play.questions)

        async def ask() -> None:
            for body, now in questions:
                for form in (body, from_raw(body)):
                    if form is not None:
                        # What needs nothing new is answered without a pause.
                        await asyncio.sleep(0)
                        answer = await asked(service, form, now)
                        check_history(answer, estate.reference_at(answer.stand.ledger), form, now)
                        count = await counted(service, form, now)
                        check_count(count, estate.reference_at(count.stand.ledger), form)

        await asyncio.gather(ask(), ask(), ask())
        await writer


async def pour(estate: Estate, play: Play, dice: random.Random) -> None:
    """All events; at times another worker takes over the shards, so that readers begin anew with them."""
    size = dice.choice([1, 2, 4])
    for begin in range(0, len(play.events), 20):
        await estate.apply(play.events[begin : begin + 20], size)
        if dice.random() < 0.3:
            await estate.reopen()


async def test_a_scan_finds_nothing_of_what_was_before_redis_was_emptied(server: Settings) -> None:
    body = {"history_start": at(), "history_end": at(seconds=1), "history_interval_seconds": 1}
    scanned = {**body, "task_runs": {"name": {"like_": "%"}}}
    data = {"id": "a", "flow_run_id": None, "name": "a", "expected_start_time": at()}
    data |= {"state_type": "COMPLETED", "state_name": "Completed", "state_timestamp": at()}
    async with opened(server) as (redis, estate):
        await estate.apply([{"entity": "task_run", "action": "upsert", "occurred": at(), "data": data}])
        async with living(server) as service:
            assert [len(entries) for entries in (await asked(service, scanned, 0)).entries] == [1]
            await redis.flushall()
            await estate.reopen()
            assert [len(entries) for entries in (await asked(service, scanned, 0)).entries] == [0]


async def test_a_shard_that_is_what_it_was_before_is_answered_as_it_is_without_a_new_epoch(server: Settings) -> None:
    """No worker comes in between, and no minute is touched since: only `seq` tells."""
    now = BASE_US + DAY_US
    body: Body = {"history_start": moment(BASE_US), "history_end": moment(now), "history_interval_seconds": 86_400}
    async with opened(server, 1) as (redis, estate):
        await estate.apply([task_run(0)])
        before = {key: await redis.dump(key) async for key in redis.scan_iter(count=1000)}
        await estate.apply([task_run(1)])
        async with living(server) as service:
            for count in (2, 1):
                answer = await asked(service, body, now)
                assert [entry.count for entries in answer.entries for entry in entries] == [count]
                await redis.flushall()
                for key, value in before.items():
                    await redis.restore(key, 0, value)


async def test_connections_that_redis_has_closed_cost_no_answer(server: Settings) -> None:
    body = {"history_start": at(), "history_end": at(seconds=1), "history_interval_seconds": 1}
    scanned = {**body, "task_runs": {"name": {"like_": "%"}}}
    async with opened(server) as (redis, _), living(server) as service:
        for question in (body, scanned, body, scanned):
            await asked(service, question, 0)
            await redis.client_kill_filter(_type="normal", skipme=True)
            await asyncio.sleep(0.05)


async def test_a_flow_run_of_the_other_tags_that_changes_its_tags_is_answered_as_it_is_now(server: Settings) -> None:
    """No minute is touched by it: the run stays in the cohort of which nothing is known about tags."""
    now = BASE_US + DAY_US
    body: Body = {
        **{"history_start": moment(BASE_US - DAY_US), "history_end": moment(now), "history_interval_seconds": 3600},
        "flow_runs": {"tags": {"all_": ["b"]}},
    }
    settings = server.model_copy(update={"max_cohorts": 1})
    async with opened(settings, 1) as (_, estate):
        for number, tags in enumerate((["x"], ["a"], ["a", "c"])):
            await estate.apply([_flow_run(number, tags, 1), task_run(number)], 10)
        async with living(settings) as service:
            for second, (tags, count) in enumerate(((["a"], 0), (["b"], 1), (["b", "c"], 1), (["c"], 0)), 2):
                await estate.apply([_flow_run(2, tags, second)], 10)
                answer = await asked(service, body, now)
                assert answer.stand.plan.startswith("cells="), answer.stand.plan
                check_history(answer, estate.reference_at(answer.stand.ledger), body, now)
                assert sum(entry.count for entries in answer.entries for entry in entries) == count


async def test_however_long_nothing_moved_what_moves_then_is_seen(server: Settings) -> None:
    """A quiet question is one command in Redis; whichever shard or the catalog moves after it, the next one knows."""
    now = BASE_US + DAY_US
    body: Body = {
        **{"history_start": moment(BASE_US - DAY_US), "history_end": moment(now), "history_interval_seconds": 86_400},
        "flows": {"name": {"like_": "renamed"}},
    }
    async with opened(server) as (redis, estate), living(server) as service:
        for number in range(12):
            # One after the other in each shard; every fourth in the catalog.
            renamed = [_flow("renamed" if number % 8 == 3 else "other", number)]
            await estate.apply(renamed if number % 4 == 3 else [_flow_run(number, [], 1), task_run(number)])
            for _ in range(3):
                answer = await asked(service, body, now)
                assert answer.stand.ledger == await applied(redis, server)
                check_history(answer, estate.reference_at(answer.stand.ledger), body, now)
            await redis.config_resetstat()
            assert (await asked(service, body, now)).stand.ledger == answer.stand.ledger
            commands = await redis.info("commandstats")
            assert "cmdstat_exec" not in commands
            assert commands["cmdstat_eval"]["calls"] == 1
        assert {shard for shard, told in estate.told.items() if told} == {*SHARDS}


async def test_questions_that_come_close_together_share_one_look(server: Settings) -> None:
    """And what one of them lacks is read of its shards' newest state: a further state, never a mixture."""
    now = BASE_US + DAY_US
    body: Body = {"history_start": moment(BASE_US), "history_end": moment(now), "history_interval_seconds": 86_400}
    other = {**body, "flow_runs": {"tags": {"all_": ["b"]}}}
    settings = server.model_copy(update={"max_staleness": 60_000_000})
    async with opened(settings) as (redis, estate):
        await estate.apply([event for n in range(8) for event in (_flow_run(n, ["b"], 1), task_run(n))])
        async with living(settings) as service:
            before = await asked(service, body, now)
            assert [entry.count for entries in before.entries for entry in entries] == [8]
            await estate.apply([*map(task_run, range(8, 16))])
            await redis.config_resetstat()
            again = await asked(service, body, now)
            assert (again.entries, again.stand.ledger) == (before.entries, before.stand.ledger)
            assert not {"cmdstat_eval", "cmdstat_exec"} & {*await redis.info("commandstats")}
            for form in (other, body):
                after = await asked(service, form, now)
                check_history(after, estate.reference_at(after.stand.ledger), form, now)
            assert after.stand.ledger == await applied(redis, settings)


async def test_while_a_shard_is_read_anew_nobody_is_answered_from_it(server: Settings) -> None:
    """Another worker has taken it over, a look has found that, and what is known has been given up."""
    now = BASE_US + DAY_US
    body: Body = {"history_start": moment(BASE_US), "history_end": moment(now), "history_interval_seconds": 86_400}
    settings = server.model_copy(update={"max_staleness": 60_000_000})
    async with opened(settings, 1) as (_, estate):
        await estate.apply([*map(task_run, range(8))])
        async with living(settings) as service:
            for _ in range(20):
                await estate.reopen()
                looking = asyncio.create_task(service.ready())
                while not looking.done():
                    answer = await asked(service, body, now)
                    assert [entry.count for entries in answer.entries for entry in entries] == [8]
                    await asyncio.sleep(0)
                await looking


async def test_after_that_time_the_next_question_looks_anew(server: Settings) -> None:
    body: Body = {"history_start": at(), "history_end": at(seconds=1), "history_interval_seconds": 1}
    settings = server.model_copy(update={"max_staleness": 20_000})
    async with opened(settings) as (redis, estate), living(settings) as service:
        for number in range(3):
            await estate.apply([task_run(number)])
            await asyncio.sleep(0.02)
            assert (await asked(service, body, 0)).stand.ledger == await applied(redis, settings)


def _flow(name: str, second: int) -> Event:
    occurred = moment(BASE_US + second * SECOND_US)
    return {"entity": "flow", "action": "upsert", "occurred": occurred, "data": {"id": "tagged", "name": name}}


def _flow_run(number: int, tags: list[str], second: int) -> Event:
    occurred = moment(BASE_US + second * SECOND_US)
    data = {"id": f"tagged-{number}", "flow_id": "tagged", "name": "tagged", "tags": tags}
    return {"entity": "flow_run", "action": "upsert", "occurred": occurred, "data": data}


def task_run(number: int, expected_s: int = 0) -> Event:
    expected = moment(BASE_US + expected_s * SECOND_US)
    state = {"state_type": "COMPLETED", "state_name": "Completed", "state_timestamp": moment(BASE_US + SECOND_US)}
    times = {"expected_start_time": expected, "start_time": expected, "end_time": expected}
    data = {"id": f"of-{number}", "flow_run_id": f"tagged-{number}", "name": "a", "tags": [], **state, **times}
    return {"entity": "task_run", "action": "upsert", "occurred": moment(BASE_US + SECOND_US), "data": data}


def moment(moment_us: int) -> str:
    return datetime.fromtimestamp(moment_us / 1e6, UTC).isoformat(timespec="microseconds")

"""`rebuild --from-log`, wherever it is interrupted: what is live is whole, what is not is gone on with or removed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from runtally.errors import FencedError, ServerLostError, SystemError_
from runtally.ops import from_log
from runtally.settings import Settings
from runtally.store import generations
from runtally.store.fence import Fence
from runtally.store.keys import Keys
from tests.chaos.shadow import contents, differences
from tests.conftest import SettingsFactory
from tests.model.command import Command
from tests.model.log import DAY_US, PARTITIONS, RUNS_SHARDS, SHARDS
from tests.model.world import World
from tests.store.test_rebuild import flow_run, task_run

RUNS = 40
EVENTS = [
    {"entity": "flow", "action": "upsert", "occurred": "2026-11-24T10:00:00Z", "data": {"id": "f", "name": "flow"}},
    *map(flow_run, range(15)),
    *map(task_run, range(RUNS)),
]


@pytest.fixture
def own(settings: SettingsFactory) -> Settings:
    return settings(kafka="127.0.0.1:1", partitions=PARTITIONS, raw_retention="never", rollup_retention="never")


@pytest.fixture
async def redis(own: Settings) -> AsyncIterator[Redis]:
    async with Redis.from_url(own.redis_url, protocol=2) as client:
        yield client


@pytest.fixture
async def world(own: Settings) -> AsyncIterator[World]:
    """Everything has been told and applied."""
    world = World(own, forgets=False)
    await world.start()
    world.log.append(EVENTS)
    await world.catch_up()
    yield world
    await world.close()


async def offsets(redis: Redis, own: Settings, generation: str) -> list[int]:
    found = [await redis.hget(Keys(own.redis_prefix, generation, name).ledger, "next") for name in SHARDS]
    return [-1 if offset is None else int(offset) for offset in found]


async def generations_of(redis: Redis, own: Settings) -> set[str]:
    keys = [key async for key in redis.scan_iter(f"{own.redis_prefix}:{{*", count=1000)]
    return {key.partition(b"{")[2].partition(b".")[0].decode() for key in keys}


async def whole(command: Command) -> Any:
    """Let it go on to its end."""
    done = None
    while not command.over:
        done = await command.go_on()
    return done


async def test_all_that_is_live_has_been_filled_before_it_is_live(world: World, redis: Redis, own: Settings) -> None:
    command = Command(world.settings, world.log)
    ends = [world.log.end(name) for name in SHARDS]
    while await world.live() == "1":
        assert await command.go_on() is None
    assert await offsets(redis, own, "2") == ends
    done = await whole(command)
    assert (done.generation, done.before, done.records, done.lost, done.behind) == ("2", "1", sum(ends), 0, 0)
    assert await generations_of(redis, own) == {"2"}


async def test_what_is_filled_does_not_pass_what_is_live(world: World, redis: Redis, own: Settings) -> None:
    applied = [world.log.end(name) for name in SHARDS]
    world.log.append([task_run(number) for number in range(RUNS, 60)])
    assert await whole(Command(world.settings, world.log))
    assert await offsets(redis, own, "2") == applied


async def test_a_live_shard_that_has_lost_its_data_has_no_more_runs_than_the_log(
    world: World, redis: Redis, own: Settings
) -> None:
    keys = [key async for key in redis.scan_iter(f"{own.redis_prefix}:{{1.1}}:*", count=1000)]
    await redis.delete(*keys)
    done = await whole(Command(world.settings, world.log))
    assert (done.generation, done.lost) == ("2", 0)
    assert await offsets(redis, own, "2") == [world.log.end(name) for name in SHARDS]


async def test_what_one_has_filled_the_next_one_goes_on_with(world: World) -> None:
    first = Command(world.settings, world.log)
    for _ in range(4):
        await first.go_on()
    await first.end()
    done = await whole(Command(world.settings, world.log))
    assert 0 < done.records < sum(world.log.end(name) for name in SHARDS) - 10
    assert done.generation == "2"


async def test_a_broker_that_goes_away_is_waited_for_and_said_once(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("_SILENT_S", "_STUCK_S"):
        monkeypatch.setattr(from_log, limit, -1.0)
    command = Command(world.settings, world.log)
    for away in (False, True):
        world.log.away = away
        for _ in range(3):
            assert await command.go_on() is None
    assert [record.message for record in caplog.records] == ["Kafka is away; waiting for it"]
    world.log.away = False
    assert (await whole(command)).generation == "2"


async def test_a_broker_that_is_away_at_the_beginning_ends_it_with_what_to_do(world: World) -> None:
    world.log.away = True
    with pytest.raises(ServerLostError, match=r"Kafka is away\. What was filled stays: ask once more"):
        await whole(Command(world.settings, world.log))


async def test_what_one_has_left_to_be_removed_goes_before_another_one_is_filled(
    world: World, redis: Redis, own: Settings
) -> None:
    first = Command(world.settings, world.log)
    while await world.live() == "1":
        await first.go_on()
    await first.end()
    assert await generations_of(redis, own) == {"1", "2"}
    await world.catch_up()
    second = Command(world.settings, world.log)
    await second.go_on()
    await second.go_on()
    assert await generations_of(redis, own) == {"2", "3"}
    assert (await whole(second)).before == "2"


async def test_ledgers_go_first_so_that_who_holds_an_old_shard_is_refused(
    world: World, redis: Redis, own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generations, "_STEP", 1)
    command = Command(world.settings, world.log)
    while await world.live() == "1":
        await command.go_on()
    assert await command.go_on(fuse=0) is None
    assert command.over
    assert await generations_of(redis, own) == {"1", "2"}, "the removal has come to its end"
    assert await offsets(redis, own, "1") == [-1] * len(SHARDS)
    world.log.append([task_run(50)])
    for name in RUNS_SHARDS:
        await world.apply(0, name, 5)
    assert await whole(Command(world.settings, world.log))


async def test_of_two_that_fill_the_same_only_one_makes_it_live(world: World, redis: Redis, own: Settings) -> None:
    first, second = (Command(world.settings, world.log) for _ in range(2))
    second.disturbed = True
    while await offsets(redis, own, "2") != [world.log.end(name) for name in SHARDS]:
        await first.go_on()
    before = await world.live()
    while not second.over and await world.live() == before:
        await second.go_on()
    assert await world.live() == "2"
    first.disturbed = True
    await whole(first)
    assert "Is another `runtally rebuild --from-log` running?" in str(first.failure)
    assert (await whole(second)).generation == "2"
    assert await generations_of(redis, own) == {"2"}


async def test_who_is_overtaken_while_it_begins_is_told_what_may_be_the_cause(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Fence.open

    async def overtaken(fence: Fence, log: Any) -> Any:
        await opened(fence, log)
        raise FencedError(fence.shard, "another worker wrote while the ledger was read")

    command = Command(world.settings, world.log)
    with monkeypatch.context() as patch:
        patch.setattr(Fence, "open", overtaken)
        with pytest.raises(
            SystemError_, match=r"another worker wrote .* Is another `runtally rebuild --from-log` running"
        ):
            await whole(command)


async def test_a_shard_of_a_generation_that_is_not_live_cannot_be_opened(world: World) -> None:
    await whole(Command(world.settings, world.log))
    for name in SHARDS:
        # Refused, and then the live one is opened.
        await world.take_over(1, name)
    world.log.append([task_run(50)])
    await world.catch_up()


async def test_under_retention_the_same_is_forgotten_as_before(settings: SettingsFactory) -> None:
    own = settings(kafka="127.0.0.1:1", partitions=PARTITIONS, raw_retention="3d", rollup_retention="30d")
    world = World(own, forgets=True)
    await world.start()
    world.log.now_us = 1_795_300_000_000_000
    for number in (1, 4):
        # What comes after days of nothing comes too late, though it is fetched together.
        again = task_run(number)
        again["occurred"] = again["data"]["state_timestamp"] = "2026-12-01T00:00:00Z"
        world.log.append([task_run(number)])
        world.log.now_us += 7 * DAY_US
        world.log.append([again])
    await world.catch_up(3)
    async with Redis.from_url(own.redis_url, protocol=2) as redis:
        before = {name: await contents(redis, own, name, "1") for name in SHARDS}
        assert any(place[0] == b"cells" for name in RUNS_SHARDS for place in before[name])
        assert not any(place[0] == b"raw" for name in RUNS_SHARDS for place in before[name])
        await whole(Command(world.settings, world.log))
        for name in SHARDS:
            assert differences(await contents(redis, own, name, "2"), before[name]) == []
    await world.close()

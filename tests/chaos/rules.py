"""What can go wrong: one row a fault."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis

from .traffic import Told, Traffic
from .world import World

Happen = Callable[[World, random.Random], Awaitable[str]]
"""Makes it happen, and says what it was. When it returns, everything should live again by itself."""
Tell = Callable[[Traffic, random.Random], Sequence[Told]]


async def _nothing(world: World, dice: random.Random) -> str:
    return "no process is touched"


def _no_more(traffic: Traffic, dice: random.Random) -> Sequence[Told]:
    return ()


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of fault: what happens to the processes, and what producers tell besides. `traffic`: whether it needs
    traffic; None: it comes with and without. `forgetting`: only where days pass and are forgotten."""

    name: str
    happen: Happen = _nothing
    tell: Tell = _no_more
    traffic: bool | None = None
    forgetting: bool = False


async def _kill_worker(world: World, dice: random.Random) -> str:
    worker = dice.choice(world.workers)
    await world.end_worker(worker, 0)
    return f"SIGKILL {worker.name}"


async def _kill_all_workers(world: World, dice: random.Random) -> str:
    for worker in [*world.workers]:
        await world.end_worker(worker, 0)
    await asyncio.sleep(dice.uniform(0, 2))
    world.put_right()
    return "SIGKILL to all workers, then new ones"


async def _pause_worker(world: World, dice: random.Random) -> str:
    """Mostly too short for its partitions to be given away."""
    worker, seconds = dice.choice(world.workers), dice.uniform(0.5, 5)
    worker.signal(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    worker.signal(signal.SIGCONT)
    return f"SIGSTOP {worker.name}, SIGCONT after {seconds:.1f} s"


async def _make_zombie(world: World, dice: random.Random) -> str:
    """Others take over; before the quiet point it goes on with what it had in hand."""
    worker = dice.choice(world.workers)
    worker.signal(signal.SIGSTOP)
    return f"SIGSTOP {worker.name}, SIGCONT when others have its partitions"


async def _change_workers(world: World, dice: random.Random) -> str:
    new = world.add_worker()
    await asyncio.sleep(dice.uniform(0, 6))
    leaving = dice.choice(world.workers[:-1])
    await world.end_worker(leaving, 10)
    return f"{new.name} comes, SIGTERM {leaving.name}"


async def _kill_redis(world: World, dice: random.Random) -> str:
    world.valkey.stop(0)
    await asyncio.sleep(dice.choice((0, dice.uniform(0, 4))))
    await asyncio.to_thread(world.valkey.start)
    return "SIGKILL Valkey"


async def _cut_redis(world: World, dice: random.Random) -> str:
    """As a power cut would: what had not been synced to the disk is gone."""
    world.valkey.stop(0)
    (file,) = (world.folder / "valkey" / "appendonlydir").glob("*.incr.aof")
    lost = min(file.stat().st_size, int(10 ** dice.uniform(1, 6)))
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size - lost)
    await asyncio.to_thread(world.valkey.start)
    return f"SIGKILL Valkey, and the last {lost:,} bytes of its file are gone"


async def _stall_redis(world: World, dice: random.Random) -> str:
    seconds = dice.uniform(0.5, 6)
    world.valkey.child.signal(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    world.valkey.child.signal(signal.SIGCONT)
    return f"SIGSTOP Valkey, SIGCONT after {seconds:.1f} s"


async def _empty_redis(world: World, dice: random.Random) -> str:
    async with Redis.from_url(world.valkey.url) as redis:
        await redis.flushall()
    return "FLUSHALL"


async def _restart_broker(world: World, dice: random.Random) -> str:
    grace_s = dice.choice((0, 15))
    await asyncio.to_thread(world.kafka.stop, grace_s)
    await asyncio.sleep(dice.uniform(0, 3))
    await asyncio.to_thread(world.kafka.start)
    return f"{'SIGTERM' if grace_s else 'SIGKILL'} to the broker, and it comes back"


async def _kill_api(world: World, dice: random.Random) -> str:
    await asyncio.to_thread(world.api.stop, 0)
    world.api.start()
    return "SIGKILL to the API, and a new one"


async def _kill_worker_and_redis(world: World, dice: random.Random) -> str:
    return f"{await _kill_worker(world, dice)}; {await _cut_redis(world, dice)}"


async def _empty_redis_and_kill_worker(world: World, dice: random.Random) -> str:
    return f"{await _empty_redis(world, dice)}; {await _kill_worker(world, dice)}"


async def _rebuild(world: World, dice: random.Random) -> str:
    """All data anew from the log. Some are killed, at any moment; the next one goes on."""
    killed = 0
    while killed < 2 and dice.random() < 0.5:
        command = world.start_rebuild()
        await asyncio.sleep(dice.uniform(1, 6))
        await asyncio.to_thread(command.stop, 0)
        killed += 1
    await world.rebuilt(world.start_rebuild())
    return f"rebuild --from-log, after {killed} that were killed"


async def _rebuild_amid(world: World, dice: random.Random) -> str:
    """Something else happens while all data are made anew."""
    command = world.start_rebuild()
    await asyncio.sleep(dice.uniform(1, 5))
    other = dice.choice(
        (_kill_worker, _pause_worker, _kill_redis, _cut_redis, _stall_redis, _empty_redis, _restart_broker, _kill_api)
    )
    words = await other(world, dice)
    world.put_right()
    commands = await world.rebuilt(command)
    return f"rebuild --from-log, amid it {words}; done by the {commands}."


async def _rebuild_twice(world: World, dice: random.Random) -> str:
    """Two at once: one of them does it."""
    commands = [world.start_rebuild()]
    await asyncio.sleep(dice.uniform(0, 2))
    commands.append(world.start_rebuild())
    for command in commands:
        await world.rebuilt(command)
    return "two rebuilds --from-log at once"


async def _kill_while_days_are_forgotten(world: World, dice: random.Random) -> str:
    """With the first events of another day shards put away what is old."""
    await asyncio.sleep(dice.uniform(0, 2))
    return await _kill_worker(world, dice)


RULES: Final = (
    Rule("kill worker", _kill_worker),
    Rule("kill all workers", _kill_all_workers),
    Rule("pause worker", _pause_worker),
    Rule("zombie", _make_zombie, traffic=True),
    Rule("rebalance", _change_workers),
    Rule("kill Redis", _kill_redis),
    Rule("Redis loses its last writes", _cut_redis),
    Rule("stall Redis", _stall_redis),
    Rule("FLUSHALL", _empty_redis),
    Rule("restart broker", _restart_broker),
    Rule("kill API", _kill_api),
    Rule("worker and Redis at once", _kill_worker_and_redis),
    Rule("FLUSHALL and worker", _empty_redis_and_kill_worker),
    Rule("everything again", tell=lambda traffic, dice: traffic.again(), traffic=True),
    Rule("delete flow runs", tell=lambda traffic, dice: traffic.deletes(40), traffic=True),
    Rule("poison", tell=lambda traffic, dice: traffic.poison(150), traffic=True),
    Rule("late by an hour", tell=lambda traffic, dice: traffic.late(), traffic=True),
    Rule("rebuild from the log", _rebuild),
    Rule("rebuild from the log, and another fault", _rebuild_amid),
    Rule("two rebuilds from the log", _rebuild_twice, traffic=True),
    Rule(
        "days pass, and worker",
        _kill_while_days_are_forgotten,
        lambda traffic, dice: traffic.days(dice.choice((1, 10, 31, 45))),
        traffic=True,
        forgetting=True,
    ),
)

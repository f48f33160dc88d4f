"""Cycles: a fault, and a quiet point at which everything is checked."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiokafka.errors import KafkaError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from runtally.store.keys import Keys

from ..strategies.pools import BASE_US
from .checks import Client, QuietPoint, questions
from .log import Log
from .producers import Producers
from .rules import RULES, Rule
from .shadow import Shadow
from .traffic import DAY_US, Told, Traffic, beacon
from .world import TroubleError, World, until

# Far beyond what it takes: others may load the machine, and how long it took is told.
_RECOVERED_WITHIN_S = 240
_QUIET_WITHIN_S = 240
_QUESTIONS = 14
_REBUILT_EVERY = 20
WORLDS = ("keeping", "forgetting")
"""In one everything is kept, in the other one there are retentions."""
_LIFETIME = 60
"""So many cycles a world lives at most: what is asked of the reference takes the longer, the more has been told."""
_FORGETTING_BEGINS_US = BASE_US + 3 * DAY_US
"""Its time goes on by days, and may never be ahead of the real one; hostile events are of the days around."""
_DAYS = (0, 0, 1, 1, 3, 9, 12, 30)


@dataclass(frozen=True, slots=True)
class Cycle:
    """What happened in a cycle, and how long it took until every partition lived again."""

    number: int
    rule: str
    forgets: bool
    traffic: bool
    events: int
    recovery_s: float
    answers: int


@dataclass(slots=True)
class Run:
    """What has happened so far. `trouble` is empty when all is well."""

    seed: int
    folder: Path
    cycles: list[Cycle] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    seconds: float = 0


async def run(
    folder: Path,
    seed: int,
    cycles: int,
    until_s: float,
    rules: list[str],
    only: str | None,
    say: Callable[[str], None],
) -> Run:
    """So many cycles, or as many as begin within so many seconds; ends with the first trouble. In worlds of one kind
    only, or of both in turn."""
    began = time.monotonic()
    done = Run(seed, folder)
    dice = random.Random(seed)
    kinds = itertools.cycle([only] if only else WORLDS)
    lifetime = min(_LIFETIME, -(-cycles // 2))
    deadlines = itertools.chain([] if only else [began + until_s * 0.6], itertools.repeat(began + until_s))
    while len(done.cycles) < cycles and time.monotonic() - began < until_s and not done.trouble:
        upto = min(cycles, len(done.cycles) + lifetime)
        await _live(done, dice, rules, upto, next(deadlines), say, next(kinds))
    done.seconds = time.monotonic() - began
    return done


async def _live(
    done: Run,
    dice: random.Random,
    rules: list[str],
    cycles: int,
    until_s: float,
    say: Callable[[str], None],
    kind: str,
) -> None:
    """Cycles in a world of their own, until there are so many in all or it is so late."""
    forgets = kind == "forgetting"
    chosen = [rule for rule in RULES if (not rules or rule.name in rules) and (forgets or not rule.forgetting)]
    if not chosen:
        done.trouble.append(f"no such rule in a world that is {kind}")
        return
    world = World(done.folder / f"{len(done.cycles)}-{kind}", partitions=8, workers=3, forgets=forgets)
    try:
        await world.start()
        driver = _Driver(world, dice, done, say)
        await driver.start()
        try:
            while len(done.cycles) < cycles and time.monotonic() < until_s and not done.trouble:
                await driver.cycle(_next(chosen, done, dice))
            if not done.trouble:
                done.trouble += await driver.rebuilt()
        finally:
            await driver.stop()
    except* TroubleError as errors:
        done.trouble += map(str, errors.exceptions)
    except* Exception as errors:
        done.trouble += ["".join(traceback.format_exception(errors))]
    finally:
        world.stop()


def _next(rules: list[Rule], done: Run, dice: random.Random) -> Rule:
    """One of those that have come least often."""
    counts = {rule.name: sum(cycle.rule == rule.name for cycle in done.cycles) for rule in rules}
    return dice.choice([rule for rule in rules if counts[rule.name] == min(counts.values())])


class _Driver:
    def __init__(self, world: World, dice: random.Random, done: Run, say: Callable[[str], None]) -> None:
        self._world = world
        self._dice = dice
        self._done = done
        self._say = say
        self._log = Log(world.settings)
        self._shadow = Shadow(world.settings.model_copy(update={"redis_url": world.aside.url}), self._log)
        self._producers = Producers(world, dice, self._time_ms)
        begin_us = _FORGETTING_BEGINS_US if world.forgets else time.time_ns() // 1000
        self._traffic = Traffic(world.settings, dice, begin_us)
        self._rebuilds = 0
        self._client = Client(world, self._traffic, dice)
        self._quiet = QuietPoint(world, self._log, self._shadow)

    async def start(self) -> None:
        await self._producers.start()
        await self._shadow.start()
        await self._producers.send(self._traffic.begin())

    async def stop(self) -> None:
        await self._producers.stop()
        await self._shadow.stop()

    async def cycle(self, rule: Rule) -> None:
        world, dice = self._world, self._dice
        before = self._log.events
        traffic = rule.traffic if rule.traffic is not None else dice.random() < 0.7
        told: list[Told] = []
        if traffic:
            if world.forgets and (days := dice.choice(_DAYS)):
                told += self._traffic.days(days)
            told += self._traffic.cycle(dice.randrange(20, 90))
        told += rule.tell(self._traffic, dice)
        words = f"{', with traffic' if traffic else ''}{', forgetting' if world.forgets else ''}"
        self._note(f"{len(self._done.cycles) + 1} {rule.name}{words}")
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._producers.send(told, dice.uniform(1, 4)))
            asking = group.create_task(self._client.ask_until(sending))
            await asyncio.sleep(dice.uniform(0.2, 1.5) if traffic else 0)
            self._note(f"  {await rule.happen(world, dice)}")
            over = time.monotonic()
            beacons = await self._beacons()
            await until(lambda: self._lives(beacons), _RECOVERED_WITHIN_S, f"all partitions live again ({beacons})")
            recovery_s = time.monotonic() - over
            await asking
        world.put_right()
        await until(self._at_rest, _QUIET_WITHIN_S, "everything applied, and the API ready")
        await self._log.read()
        found = self._client.differences(self._log)
        asked = [*questions(dice, self._traffic, _QUESTIONS)]
        found += await self._quiet.differences(self._producers.acked, asked)
        if len(self._done.cycles) % _REBUILT_EVERY == _REBUILT_EVERY - 1:
            found += await self.rebuilt()
        self._done.trouble += found
        events = self._log.events - before
        number = len(self._done.cycles) + 1
        answers = len(asked) + self._client.checked
        self._done.cycles.append(Cycle(number, rule.name, world.forgets, traffic, events, recovery_s, answers))
        self._note(f"  {'WRONG' if found else 'right'}: {events} events, lived again after {recovery_s:.1f} s")

    async def rebuilt(self) -> list[str]:
        """How the whole log, applied anew in other batches, differs from what has followed it."""
        self._rebuilds += 1
        settings = self._shadow.settings.model_copy(update={"redis_prefix": f"rebuilt-{self._rebuilds}"})
        anew = Shadow(settings, self._log)
        await anew.start()
        try:
            await anew.follow(batch=self._dice.choice((200, 1000, 5000)))
            return await anew.differences(self._shadow.settings)
        finally:
            await anew.stop()

    async def _beacons(self) -> dict[str, int]:
        """Send one event to each partition of runs; by shard the offset that has to be applied."""
        told = [beacon(self._world.settings, self._traffic.now_us) for _ in range(self._world.settings.partitions)]
        told = [one._replace(partition=number) for number, one in enumerate(told)]
        await self._producers.send(told)
        while True:
            try:
                return await self._log.ends()
            except KafkaError:
                await asyncio.sleep(0.1)

    async def _lives(self, offsets: dict[str, int]) -> bool:
        """Whether every partition has been applied so far, and the API says that its answers are complete."""
        try:
            ledgers = await self._ledgers()
        except RedisError:
            return False
        return all(ledgers[name] >= offset for name, offset in offsets.items()) and await self._world.ready()

    async def _at_rest(self) -> bool:
        self._world.check_alive()
        try:
            ends = await self._log.ends()
            return await self._ledgers() == ends == await self._log.ends() and await self._world.ready()
        except (KafkaError, RedisError):
            return False

    def _time_ms(self) -> int | None:
        return self._traffic.now_us // 1000 if self._world.forgets else None

    async def _ledgers(self) -> dict[str, int]:
        settings = self._world.settings
        async with Redis.from_url(settings.redis_url, protocol=2, socket_timeout=2) as redis:
            generation = await self._world.generation()
            keys = {name: Keys(settings.redis_prefix, generation, name).ledger for name in self._log.records}
            return {name: int(await redis.hget(key, "next") or -1) for name, key in keys.items()}

    def _note(self, words: str) -> None:
        self._done.history.append(words)
        self._say(words)

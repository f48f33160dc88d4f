"""What can go wrong: one row a fault."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from .world import World

Note = Callable[[str], None]
Happen = Callable[[World, random.Random, Note], Awaitable[float]]
"""Makes it happen; the moment (monotonic) from which on everything should live again."""


async def _nothing(world: World) -> None:
    """There is nothing to put right."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of fault. `after` puts right what is left of it before the quiet point. `traffic`: whether it is for times
    with traffic or without; None: both."""

    name: str
    happen: Happen
    after: Callable[[World], Awaitable[None]] = _nothing
    traffic: bool | None = None


async def _kill_worker(world: World, dice: random.Random, note: Note) -> float:
    worker = dice.choice(world.workers)
    note(f"  SIGKILL {worker.name}")
    await world.end_worker(worker, 0)
    return time.monotonic()


async def _add_worker(world: World) -> None:
    world.add_worker()


RULES: Final = (Rule("kill worker", _kill_worker, _add_worker),)

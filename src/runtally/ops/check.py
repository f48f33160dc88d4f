"""What a check of `runtally doctor` is: a function from what was found to lines.

A line is ok, warn (it works and costs something, or will not work for long) or bad (answers are or will be wrong, late
or not given), and says what to do unless it is ok.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from ..settings import Settings
from ..store.fitness import Server
from ..store.stand import Stand
from .log_look import LogLook

Level = Literal["ok", "warn", "bad"]
LEVELS: Final = ("ok", "warn", "bad")


@dataclass(frozen=True, slots=True)
class Line:
    """What a check says."""

    check: str
    level: Level
    says: str
    do: str = ""


@dataclass(slots=True)
class Facts:
    """What was found; `redis` or `log` is None when the trouble beside it says why."""

    settings: Settings
    now_us: int
    redis: Stand | None = None
    redis_trouble: str = ""
    log: LogLook | None = None
    log_trouble: str = ""

    @property
    def stand(self) -> Stand:
        """What is in Redis."""
        assert self.redis is not None
        return self.redis

    @property
    def server(self) -> Server:
        """The Redis itself."""
        return self.stand.server

    @property
    def topics(self) -> LogLook:
        """What is in Kafka."""
        assert self.log is not None
        return self.log


Said = Iterator[tuple[Level, str, str]]


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, what it needs to be reached, and the function that looks."""

    name: str
    needs: tuple[Literal["redis", "log", "data"], ...]
    says: Callable[[Facts], Said]

    def can_look(self, facts: Facts) -> bool:
        """Whether what it needs was reached."""
        there = {
            "redis": facts.redis is not None,
            "log": facts.log is not None,
            "data": facts.redis is not None and bool(facts.redis.ledgers),
        }
        return all(there[need] for need in self.needs)

    def look(self, facts: Facts) -> Iterator[Line]:
        """Its lines."""
        return (Line(self.name, level, says, do) for level, says, do in self.says(facts))

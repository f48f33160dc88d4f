"""`runtally rebuild --from-log` in the model: the command itself, which reads the played log and stops wherever the
model wants it to.

It *waits* before each fetch, and before and after it makes what it filled live. It can be ended there, or, as by a
crash, right after one of its writes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, Self

import pytest
from aiokafka import TopicPartition

from runtally.errors import ServerLostError, SystemError_, UserError
from runtally.ops import from_log
from runtally.settings import Settings
from runtally.store import generations
from runtally.store.keys import CATALOG
from runtally.store.ledger import LogEnds

from .log import PARTITIONS, PlayedLog

_FETCHED: Final = 6
_of_this_task: ContextVar[Command] = ContextVar("command")


class CrashError(Exception):
    """The process ends here."""


class Command:
    """One run of it. `disturbed`: others have changed what it works on, so that it may fail."""

    def __init__(self, settings: Settings, log: PlayedLog) -> None:
        self.log = log
        self.settings = settings
        self.disturbed = False
        self._fuse: int | None = None
        self._go = asyncio.Event()
        self._waits = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._task.done()

    @property
    def failure(self) -> BaseException | None:
        """What it has failed with, if it has."""
        return self._task.exception() if self.over and not self._task.cancelled() else None

    async def go_on(self, fuse: int | None = None) -> from_log.Filled | None:
        """Let it go on to where it waits next; what it has done when it has come to its end. With a `fuse` it crashes
        after so many writes. Raises when it fails although nobody has disturbed it."""
        self._fuse = fuse
        self._waits.clear()
        self._go.set()
        waiting = asyncio.create_task(self._waits.wait())
        await asyncio.wait({self._task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not self.over:
            return None
        try:
            return self._task.result()
        except CrashError:
            return None
        except (SystemError_, UserError):
            if not self.disturbed:
                raise
            return None

    async def end(self) -> None:
        """End it where it waits."""
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.exception()

    async def wait(self) -> None:
        """Wait to be let go on."""
        self._waits.set()
        await self._go.wait()
        self._go.clear()

    def progress(self, *_: Any) -> None:
        """Called by it after its writes."""
        if self._fuse is not None:
            self._fuse -= 1
            if self._fuse < 0:
                raise CrashError

    async def _run(self) -> from_log.Filled:
        _of_this_task.set(self)
        await self.wait()
        return await from_log.rebuild_from_log(self.settings, False, self.progress)


class _Consumer:
    """Gives the played log a few records at a time."""

    def __init__(self) -> None:
        self._command = _of_this_task.get()
        self._places: dict[TopicPartition, int] = {}

    async def stop(self) -> None:
        """Nothing to disconnect from."""

    def assign(self, places: list[TopicPartition]) -> None:
        self._places = dict.fromkeys(places, 0)

    def seek(self, place: TopicPartition, offset: int) -> None:
        self._places[place] = offset

    async def getmany(self, **_: Any) -> dict[TopicPartition, list[Any]]:
        await self._command.wait()
        log, found = self._command.log, {}
        if log.away:
            return found
        for place, begin in self._places.items():
            name = _name(place.topic, place.partition, self._command.settings)
            end = self._places[place] = min(log.end(name), begin + _FETCHED)
            if end > begin:
                found[place] = [log.record(name, offset) for offset in range(begin, end)]
        return found


async def _reader(_: Settings, **options: Any) -> _Consumer:
    return _Consumer()


class _Looks:
    """Looks at the played log."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def partitions(self, topic: str) -> int:
        if _of_this_task.get().log.away:
            raise ServerLostError("Kafka is away")
        return PARTITIONS if topic == self._settings.runs_topic else 1

    async def ends(self, topic: str, partition: int) -> LogEnds:
        return _of_this_task.get().log.ends(_name(topic, partition, self._settings))

    async def close(self) -> None:
        """Nothing to disconnect from."""


class _Publisher:
    """Is asked for one thing only."""

    transactional = False

    def __init__(self, settings: Settings) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def _name(topic: str, partition: int, settings: Settings) -> str:
    return str(partition) if topic == settings.runs_topic else CATALOG


@contextlib.contextmanager
def played() -> Iterator[None]:
    """Commands read played logs, and wait around the switch."""
    switch = generations.switch

    async def waiting(*arguments: Any) -> Any:
        await _of_this_task.get().wait()
        live = await switch(*arguments)
        await _of_this_task.get().wait()
        return live

    with pytest.MonkeyPatch.context() as patch:
        for name, instead in (("reader", _reader), ("Log", _Looks), ("Publisher", _Publisher)):
            patch.setattr(from_log, name, instead)
        patch.setattr(from_log, "_POLL_MS", 0)
        patch.setattr(generations, "_PAUSE_S", 0)
        patch.setattr(generations, "switch", waiting)
        yield

"""`runtally up`: takes the data dir, runs the stack and the demo, and sees to it that everything ends together."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import psutil

from ..settings import Settings
from . import datadir, turnover, upfile
from .datadir import DataDir
from .demo import TICK_S, DemoPlayer, Progress
from .stack import Stack

_LOOK_AT_LOG_S: Final = 10.0
_READY_WITHIN_S: Final = 60.0
_CHECK_S: Final = 0.25
_LAST_WORDS_S: Final = 0.3
"""For what is cancelled to let go of its connections."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `runtally up` was asked for."""

    data_dir: Path
    demo: bool = False
    kafka: str | None = None
    redis_url: str | None = None
    log_bytes: int = turnover.MOST_BYTES


class Listener(Protocol):
    """Who is told what happens."""

    def say(self, line: str) -> None:
        """Something worth a line."""

    def started(self, stack: Stack) -> None:
        """All processes run."""

    def ready(self, stack: Stack) -> None:
        """Answers are complete."""

    def past(self, gap_us: int) -> AbstractContextManager[Progress]:
        """So much of the demo's past is going to be published."""


async def run(options: Options, settings: Settings, listener: Listener) -> None:
    """Run until a signal comes; then stop everything.

    Raises `AlreadyRunningError` and `UserError` before anything is started, `ChildError` when a child dies.
    """
    with datadir.own(options.data_dir) as data:
        stack = Stack(data, settings, options.kafka, options.redis_url, listener.say)
        try:
            await _until_first(_stop_signal(), _work(data, stack, options, listener))
        finally:
            stack.stop()
            upfile.remove(data.path)


async def _work(data: DataDir, stack: Stack, options: Options, listener: Listener) -> None:
    await stack.start_servers(listener.say)
    stack.start_processes()
    upfile.write(data.path, stack.up_file(os.getpid()))
    listener.started(stack)
    await _until_first(_guard(stack, listener), _play(data, stack, options, listener))


async def _play(data: DataDir, stack: Stack, options: Options, listener: Listener) -> None:
    looked = time.monotonic()
    async with _demo(data, stack, options.demo) as demo:
        if demo is not None:
            with listener.past(demo.gap_us) as progress:
                await demo.publish_past(progress)
        while True:
            if demo is not None:
                await demo.tick()
            if time.monotonic() - looked > _LOOK_AT_LOG_S:
                if turnover.is_due(stack, options.log_bytes):
                    await turnover.turn_over(stack, listener.say)
                    upfile.write(data.path, stack.up_file(os.getpid()))
                looked = time.monotonic()
            await asyncio.sleep(TICK_S)


async def _guard(stack: Stack, listener: Listener) -> None:
    parent = _uv_parent()
    await stack.wait_for_api()
    begun, ready = time.monotonic(), False
    # `uv run` does not pass on that it was killed: then nobody holds this process any more.
    while parent is None or os.getppid() == parent:
        stack.check()
        if not ready and await stack.is_ready():
            ready = True
            listener.ready(stack)
        if not ready and time.monotonic() - begun > _READY_WITHIN_S:
            listener.say(f"not ready after {_READY_WITHIN_S:g} s; see {stack.worker.log} and {stack.api.log}")
            begun = time.monotonic()
        await asyncio.sleep(_CHECK_S)


def _uv_parent() -> int | None:
    parent = os.getppid()
    try:
        return parent if psutil.Process(parent).name() in ("uv", "uv.exe") else None
    except psutil.Error:
        return None


async def _stop_signal() -> None:
    came = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup makes us ignore SIGHUP, and means it.
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, came.set)
    await came.wait()


async def _until_first(*works: Coroutine[Any, Any, None]) -> None:
    """Run all until one ends or fails, then cancel the others and wait for them."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_LAST_WORDS_S)


@asynccontextmanager
async def _demo(data: DataDir, stack: Stack, wanted: bool) -> AsyncIterator[DemoPlayer | None]:
    if not wanted:
        yield None
        return
    from ..events.publish import Publisher

    async with Publisher(stack.settings) as publisher:
        demo = DemoPlayer(data, stack, publisher.publish)
        try:
            yield demo
        finally:
            demo.stop()

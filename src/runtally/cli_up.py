"""`runtally up`: what the person sees of it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import __version__, logs
from . import settings as runtally_settings

if TYPE_CHECKING:
    from .embedded.demo import Progress
    from .embedded.stack import Stack

log = logging.getLogger(__name__)


def up(
    demo: Annotated[
        bool, typer.Option("--demo", help="Publish a believable estate: the past 24 hours, then live.")
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where data, logs and up.json are; overrides RUNTALLY_DATA_DIR.", show_default=False),
    ] = None,
    kafka: Annotated[
        str | None, typer.Option(help="Use this Kafka (host:port) instead of the embedded broker.")
    ] = None,
    redis_url: Annotated[str | None, typer.Option(help="Use this Redis instead of the embedded Valkey.")] = None,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Say everything in JSON objects, one a line; worker and API log so too.")
    ] = False,
) -> None:
    """Run everything on this machine: Valkey, a broker, a worker and the API. Nothing needs to be installed.

    Ctrl-C stops it. The data stay in the data dir; the embedded broker's log lives in memory and begins anew each time.
    Every other command finds the servers by itself while this runs:

        runtally up --demo

        runtally history --last 24h

        runtally publish events.ndjson
    """
    from .embedded.up import Options, run

    given = {"data_dir": data_dir, "log_json": log_json or None}
    settings = runtally_settings.load({name: value for name, value in given.items() if value is not None})
    screen = _Screen(demo)
    if settings.log_json:
        logs.configure(settings)
        screen = _Log(demo)
    for option, name in (("--kafka", "RUNTALLY_KAFKA"), ("--redis-url", "RUNTALLY_REDIS_URL")):
        # A demo that pours into whatever the shell happens to point to would be a bad surprise.
        if name in os.environ:
            screen.say(f"{name} is set and not used by `runtally up`: say {option} to use that server")
    asyncio.run(run(Options(settings.data_dir, demo, kafka, redis_url), settings, screen))
    screen.say("stopped")


class _Screen:
    """Prints what happens; about ten lines in all."""

    def __init__(self, demo: bool) -> None:
        self._demo = demo

    def say(self, line: str) -> None:
        typer.echo(line)

    def started(self, stack: Stack) -> None:
        self.say(f"runtally {__version__}: data and logs in {stack.data_dir}")
        note = " (its log lives in memory and begins anew with every start)" if stack.broker else ""
        self.say(f"  Kafka    {stack.settings.kafka}{note}")
        self.say(f"  Redis    {stack.shown_redis}")
        self.say(f"  worker   http://{stack.settings.metrics_host}:{stack.settings.metrics_port}/metrics")
        self.say(f"  API      {stack.api_url}")

    def ready(self, stack: Stack) -> None:
        body = '{"history_start": "-PT24H", "history_end": "now", "history_interval_seconds": 3600}'
        self.say("Ready. Ask in a second terminal (Ctrl-C here stops everything):")
        self.say("  runtally history --last 24h")
        self.say(f"  curl -s {stack.api_url}/api/task_runs/history -H 'content-type: application/json' -d '{body}'")
        if not self._demo:
            self.say("It is empty: `runtally publish FILE`, or start it with --demo.")

    @contextmanager
    def past(self, gap_us: int) -> Iterator[Progress]:
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        hours = gap_us / 3_600_000_000
        span = f"{hours:.0f} h" if hours >= 2 else f"{hours * 60:.0f} min"
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        with Bar(*columns) as bar:
            task = bar.add_task(f"demo: publishing the past {span}", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


class _Log(_Screen):
    """Logs the same, for --log-json: no hints and no bar."""

    def say(self, line: str) -> None:
        log.info("%s", line.strip())

    def ready(self, stack: Stack) -> None:
        self.say("ready")

    @contextmanager
    def past(self, gap_us: int) -> Iterator[Progress]:
        self.say(f"demo: publishing the past {gap_us / 3_600_000_000:.1f} h")
        yield lambda _done, _total: None

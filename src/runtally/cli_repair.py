"""`runtally verify` and `runtally rebuild`: whether the cells are right, and making them anew."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from .embedded.upfile import load_settings
from .errors import SystemError_, UserError
from .logs import silence_kafka

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from .ops.verify import Verified
    from .settings import Settings
    from .store.rebuild import Standing

_SHOWN = 50

RedisUrl = Annotated[str | None, typer.Option(help="Redis or Valkey; overrides RUNTALLY_REDIS_URL.")]


def verify(
    sample: Annotated[
        int | None, typer.Option(min=1, help="Look at so many days of shards, chosen at random. Default: all of them.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    redis_url: RedisUrl = None,
) -> None:
    """Hold every cell against what the raw runs make of it, while workers go on.

    Exit code 0: all are the same. 1: some are not, and which. 2: it could not be found out.

        runtally verify

        runtally verify --sample 3 --json
    """
    settings = load_settings({"redis_url": redis_url})
    from .ops.verify import verify as check

    try:
        with _progress() as bar:
            task = bar.add_task("days of shards", total=None)
            found = asyncio.run(
                check(settings, sample, lambda done, total: bar.update(task, completed=done, total=total))
            )
    except SystemError_ as error:
        typer.echo(f"runtally: {error}", err=True)
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(found.as_json())
    else:
        _show(found)
    raise typer.Exit(0 if found.same else 1)


def rebuild(
    shards: Annotated[list[str] | None, typer.Argument(help="Shards (partitions). Default: all.")] = None,
    from_log: Annotated[
        bool, typer.Option("--from-log", help="Make all data anew, from the log's first record, beside the live ones.")
    ] = False,
    lose_events: Annotated[
        bool,
        typer.Option("--yes-lose-events", help="With --from-log: go on though the log lacks events of counted runs."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    redis_url: RedisUrl = None,
    kafka: Annotated[str | None, typer.Option(help="Kafka's bootstrap servers; overrides RUNTALLY_KAFKA.")] = None,
) -> None:
    """Make the cells of shards anew from their raw runs, while workers and API go on.

    The worker that owns a shard does it, a day at a time between its batches; this command asks for it and shows how
    far it is. Ctrl-C here does not stop it. Days that have no raw runs any more keep their cells.

        runtally rebuild

        runtally rebuild 0 3 --json

    `--from-log` makes everything anew and needs room for two in Redis: this command fills fresh data beside the live
    ones, makes them live at once, and removes the old ones. Workers and API follow by themselves. When it is
    interrupted, the next one goes on.

        runtally rebuild --from-log
    """
    settings = load_settings({"redis_url": redis_url, "kafka": kafka})
    if from_log and shards:
        raise UserError("--from-log makes all shards anew: leave their names out")
    with _progress() as bar:
        if from_log:
            _from_log(settings, lose_events, as_json, bar)
        else:
            _from_raw(settings, shards or [], as_json, bar)


def _from_raw(settings: Settings, shards: list[str], as_json: bool, bar: Progress) -> None:
    from .ops.rebuild import rebuild as ask

    tasks: dict[str, TaskID] = {}

    def progress(shard: str, standing: Standing) -> None:
        if shard not in tasks:
            tasks[shard] = bar.add_task(f"shard {shard}, days", total=None)
        bar.update(tasks[shard], completed=standing.done, total=standing.total or None)

    done = asyncio.run(ask(settings, shards, progress))
    if as_json:
        typer.echo(done.as_json())
    else:
        typer.echo(
            f"rebuilt {len(done.shards)} shards, {done.days:,} days of them, {done.seconds:.1f} s; "
            f"{done.written:,} values were not as the raw runs make them"
        )


def _from_log(settings: Settings, lose_events: bool, as_json: bool, bar: Progress) -> None:
    from .ops.from_log import rebuild_from_log

    silence_kafka()
    tasks: dict[str, TaskID] = {}

    def progress(name: str, done: int, total: int | None) -> None:
        if name not in tasks:
            tasks[name] = bar.add_task(name, total=total)
        bar.update(tasks[name], completed=done, total=total)

    done = asyncio.run(rebuild_from_log(settings, lose_events, progress))
    if as_json:
        typer.echo(done.as_json())
    else:
        lost = f", {done.lost:,} runs fewer" if done.lost else ""
        typer.echo(
            f"generation {done.generation} is live, made from {done.records:,} records in {done.seconds:.1f} s{lost}; "
            f"generation {done.before} is removed"
        )


def _show(found: Verified) -> None:
    for one in found.named[:_SHOWN]:
        typer.echo(one.text)
    if found.wrong > _SHOWN:
        typer.echo(f"… and {found.wrong - min(_SHOWN, len(found.named)):,} more")
    looked_at = f"{found.cells:,} cells of {found.runs:,} runs in {found.days:,} days of shards, {found.seconds:.1f} s"
    if found.same:
        typer.echo(f"all the same: {looked_at}")
    else:
        typer.echo(f"wrong cells: {found.wrong:,} of {looked_at}. `runtally rebuild` makes them anew from the raw runs")


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal's error output, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        yield bar

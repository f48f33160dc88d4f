"""`runtally publish`, `runtally schema` and `runtally id`: the commands for producers.

A file is validated as a whole before anything of it is published. Standard input, and whatever else cannot be read
twice, is validated and published a part at a time.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, BinaryIO, Final, Literal

import typer

from .embedded.upfile import load_settings
from .errors import BadEventError, SettingError, UserError
from .settings import Settings

_PART: Final = 2_000
_BAD_LINES_SHOWN: Final = 20

schema_app = typer.Typer(no_args_is_help=True, help="Print what events have to look like.")


@dataclass(slots=True)
class _Tally:
    """What has become of the lines so far; `published` counts what the broker has."""

    good: int = 0
    ignored: int = 0
    bad: int = 0
    published: int = 0

    def words(self, verb: str, count: int) -> str:
        parts = [f"{count:,} event{'' if count == 1 else 's'} {verb}"]
        parts += [f"{self.ignored:,} of no interest"] if self.ignored else []
        parts += [f"{self.bad:,} bad"] if self.bad else []
        return ", ".join(parts)


def publish(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="NDJSON, one event a line; `-` is standard input.")],
    check: Annotated[bool, typer.Option("--check", help="Only validate: publish nothing, need no Kafka.")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Publish the good lines all the same.")] = False,
    kafka: Annotated[str | None, typer.Option(help="Kafka's bootstrap servers; overrides RUNTALLY_KAFKA.")] = None,
) -> None:
    """Validate events and publish them under the right key; ends once the broker has them all.

    A line is an event as `runtally schema events` says, or one of Prefect's own. Bad lines are told with their number.
    If a file has one, nothing of it is published, except with `--skip-bad`; standard input goes out in parts of 2,000
    lines, and the part with the bad line and all after it do not. Beside a running `runtally up` no address is needed.

        runtally publish --check events.jsonl

        zcat events.jsonl.gz | runtally publish - --skip-bad --kafka kafka:9092
    """
    settings = load_settings({"kafka": kafka})
    with _opened(file) as source, _progress(source) as advance:
        tally = _Tally()
        twice = _is_regular(source)
        if check or twice:
            begin = source.tell() if twice else 0
            for _ in _parts(source, settings, tally, advance):
                pass
            if check:
                typer.echo(tally.words("good", tally.good))
            if tally.bad and not skip_bad:
                nothing = "" if check else " and nothing was published"
                raise UserError(f"{_lines(tally.bad)} bad{nothing}: mend what is said above, or use --skip-bad")
            if check:
                return
            source.seek(begin)
            tally = _Tally()
        try:
            asyncio.run(_publish(source, settings, tally, advance, skip_bad=skip_bad, tell=not twice))
        finally:
            typer.echo(tally.words("published", tally.published))


@schema_app.command("events")
def schema_events() -> None:
    """Print the JSON Schema of the events that `runtally publish`, the topics and the HTTP route take.

    runtally schema events > runtally-events.schema.json
    """
    from .events.schema import events_schema

    typer.echo(json.dumps(events_schema(), indent=2))


def show_id(
    entity: Annotated[
        Literal["task_run", "flow_run", "flow", "deployment"], typer.Argument(help="Whose id it is.", show_choices=True)
    ],
    text: Annotated[str, typer.Argument(help="A UUID in any spelling, or any other text up to 250 bytes.")],
) -> None:
    """Print the UUID that an id of yours becomes: its own if it is one, else one made from the text and the entity.

    runtally id task_run my-dag/2026-11-24/extract
    """
    from .events.ids import identity, text_of

    typer.echo(text_of(identity(entity, text)))


async def _publish(
    source: BinaryIO,
    settings: Settings,
    tally: _Tally,
    advance: Callable[[int], None],
    *,
    skip_bad: bool,
    tell: bool,
) -> None:
    from .events.publish import Publisher

    async with Publisher(settings) as publisher:
        for messages in _parts(source, settings, tally, advance, tell=tell):
            if tally.bad and not skip_bad:
                raise UserError(
                    f"{_lines(tally.bad)} bad: stopped before those 2,000 lines; mend what is said above, or use "
                    "--skip-bad"
                )
            tally.published += await publisher.publish(messages)


def _parts(
    source: BinaryIO, settings: Settings, tally: _Tally, advance: Callable[[int], None], *, tell: bool = True
) -> Iterator[list[tuple[str, bytes, bytes]]]:
    """The messages of every `_PART` lines; bad lines are counted and, with `tell`, told."""
    from .events.publish import checked
    from .events.wire import Ignored

    numbered = enumerate(source, start=1)
    while part := list(islice(numbered, _PART)):
        messages: list[tuple[str, bytes, bytes]] = []
        for number, line in part:
            event = line.strip()
            if not event:
                continue
            try:
                message = checked(event, settings)
            except BadEventError as error:
                tally.bad += 1
                if tell and tally.bad <= _BAD_LINES_SHOWN:
                    typer.echo(f"line {number}: {error}", err=True)
                if tell and tally.bad == _BAD_LINES_SHOWN + 1:
                    typer.echo("… further bad lines are only counted", err=True)
                continue
            if isinstance(message, Ignored):
                tally.ignored += 1
            else:
                tally.good += 1
                messages.append(message)
        advance(sum(len(line) for _, line in part))
        yield messages


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        source = open(file, "rb")  # noqa: SIM115 - closed below; only opening may fail with these words
    except OSError as error:
        raise SettingError("FILE", f"{file} cannot be read: {error.strerror}") from None
    with source:
        yield source


def _is_regular(source: BinaryIO) -> bool:
    try:
        return stat.S_ISREG(os.fstat(source.fileno()).st_mode)
    except OSError:
        return False


@contextmanager
def _progress(source: BinaryIO) -> Iterator[Callable[[int], None]]:
    """What is told of every part's bytes; a bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    size = os.fstat(source.fileno()).st_size if _is_regular(source) else None
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=size)

        def advance(count: int) -> None:
            # A file is read twice; the second time the bar starts anew.
            if size is not None and bar.tasks[task].completed >= size:
                bar.reset(task, total=size)
            bar.advance(task, count)

        yield advance


def _lines(count: int) -> str:
    return f"{count:,} line is" if count == 1 else f"{count:,} lines are"

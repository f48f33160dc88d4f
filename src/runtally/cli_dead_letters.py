"""`runtally dead-letters`: what was refused and why, and publishing it again."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from .embedded.upfile import load_settings
from .logs import silence_kafka

if TYPE_CHECKING:
    from rich.progress import Progress

    from .ops.dead_letters import Group

dead_letters_app = typer.Typer(no_args_is_help=True, help="Show events that were refused, and publish them again.")

Kafka = Annotated[str | None, typer.Option(help="Kafka's bootstrap servers; overrides RUNTALLY_KAFKA.")]
Reason = Annotated[str | None, typer.Option(help="Only those of this reason, as `list` shows it.")]
Key = Annotated[str | None, typer.Option(help="Only those whose key begins so.")]

_SHOWN = 30


@dead_letters_app.command("list")
def show(
    reason: Reason = None,
    key: Key = None,
    key_prefix: Annotated[
        int, typer.Option(min=0, help="Group by so many of the key's first characters; 0: by reason alone.")
    ] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    kafka: Kafka = None,
) -> None:
    """Show how many events were refused, by reason and by how their keys begin.

    What the keys have in common often tells the producer. Everything that the topic holds is shown, also what has been
    published again. A dead letter that was written twice counts once.

        runtally dead-letters list

        runtally dead-letters list --reason "missing field" --key-prefix 0 --json
    """
    settings = load_settings({"kafka": kafka})
    from .ops import dead_letters

    silence_kafka()
    groups = asyncio.run(dead_letters.grouped(settings, dead_letters.Chosen(reason, key), key_prefix))
    if as_json:
        total = sum(group.count for group in groups)
        typer.echo(json.dumps({"count": total, "groups": [dataclasses.asdict(group) for group in groups]}, indent=2))
    else:
        _print(groups)


@dead_letters_app.command("replay")
def replay(
    reason: Reason = None,
    key: Key = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many there are; publish nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    kafka: Kafka = None,
) -> None:
    """Publish refused events again, to the topic and partition where they belong.

    For events that are good now: a setting has changed, or a newer version reads more. Those that would be refused
    again are counted and not published, and of some only the first 64 KiB were kept. Nothing counts twice, however
    often this is done.

        runtally dead-letters replay --reason "impossible time" --dry-run

        runtally dead-letters replay
    """
    settings = load_settings({"kafka": kafka})
    from .ops import dead_letters

    silence_kafka()
    with _progress() as bar:
        task = bar.add_task("dead letters", total=None)
        done = asyncio.run(
            dead_letters.replay(
                settings,
                dead_letters.Chosen(reason, key),
                publish=not dry_run,
                progress=lambda at, total: bar.update(task, completed=at, total=total),
            )
        )
    if as_json:
        typer.echo(json.dumps({**dataclasses.asdict(done), "dry_run": dry_run}, indent=2))
        return
    verb = "would be published" if dry_run else "published"
    typer.echo(f"{done.published:,} of {done.chosen:,} dead letters {verb} again")
    if done.shortened:
        typer.echo(f"{done.shortened:,} not, because only their first 64 KiB were kept")
    for why, count in done.still_bad.most_common():
        typer.echo(f"{count:,} not, because they would be refused again: {why}")


def _print(groups: Sequence[Group]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    if not groups:
        typer.echo("no dead letters")
        return
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("reason", "key begins", "events", "last", "where", "what"):
        table.add_column(name, justify="right" if name == "events" else "left", no_wrap=name != "what")
    for group in groups[:_SHOWN]:
        topic, partition, offset = group.place
        last = datetime.fromtimestamp(group.last_ms / 1000, UTC)
        table.add_row(
            group.reason,
            group.key_prefix or "–",
            f"{group.count:,}",
            f"{last:%Y-%m-%d %H:%M:%S}",
            f"{topic}[{partition}] {offset}",
            group.detail,
        )
    Console(highlight=False, markup=False).print(table)
    if len(groups) > _SHOWN:
        typer.echo(f"… and {len(groups) - _SHOWN:,} more groups; a smaller --key-prefix makes fewer, --json has all")


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal's error output, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        yield bar

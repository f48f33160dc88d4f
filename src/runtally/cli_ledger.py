"""`runtally ledger`: how far each shard is in its log, and what to do when the two do not fit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from .embedded.upfile import load_settings
from .logs import silence_kafka

if TYPE_CHECKING:
    from .ops.ledgers import Moved, Standing

ledger_app = typer.Typer(no_args_is_help=True, help="Show where each shard is in its log, and put it elsewhere.")

Shard = Annotated[str, typer.Argument(help="A partition's number, or c for the catalog.")]
Kafka = Annotated[str | None, typer.Option(help="Kafka's bootstrap servers; overrides RUNTALLY_KAFKA.")]
RedisUrl = Annotated[str | None, typer.Option(help="Redis or Valkey; overrides RUNTALLY_REDIS_URL.")]

_Found = TypeVar("_Found")
_STYLES = {"stopped": "red", "unfit": "red", "behind": "yellow", "none": "yellow", "ready": "green"}


@ledger_app.command("show")
def show(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    kafka: Kafka = None,
    redis_url: RedisUrl = None,
) -> None:
    """Show every shard's ledger, the log that it follows, and whether the two fit.

    States: `ready`; `behind`, what the log held when a worker got the shard is not all applied; `stopped`, a worker has
    found trouble and a decision is needed; `unfit`, a worker would find it; `none`, no worker has had the shard yet.
    Exit code 1 when a shard is stopped or unfit.

        runtally ledger show

        runtally ledger show --json | jq '.shards[] | select(.state == "stopped")'
    """
    settings = load_settings({"kafka": kafka, "redis_url": redis_url})
    from .ops import ledgers

    standings, away = _run(ledgers.show(settings))
    if as_json:
        typer.echo(json.dumps({"shards": [each.as_json() for each in standings], "log": away or "ok"}, indent=2))
    else:
        _print(standings)
    if away:
        typer.echo(f"runtally: {away}; only the ledgers are shown", err=True)
    raise typer.Exit(1 if any(each.trouble for each in standings) else 0)


@ledger_app.command("replay")
def replay(shard: Shard, kafka: Kafka = None, redis_url: RedisUrl = None) -> None:
    """Apply the log of a shard once more, from its first record. Safe at any time.

    Applying an event again changes nothing, so the sums are the same afterwards. Until the end is reached the API is
    not ready. Workers may run; the one that has the shard begins within a second.

        runtally ledger replay 3
    """
    settings = load_settings({"kafka": kafka, "redis_url": redis_url})
    from .ops import ledgers

    _tell(_run(ledgers.replay(settings, shard)))


@ledger_app.command("accept-new-log")
def accept_new_log(shard: Shard, kafka: Kafka = None, redis_url: RedisUrl = None) -> None:
    """Keep the data of a shard and follow another log from its beginning: the topic was made anew, or cut short.

    Nothing is lost that the new log or Redis holds.

        runtally ledger accept-new-log 3
    """
    settings = load_settings({"kafka": kafka, "redis_url": redis_url})
    from .ops import ledgers

    _tell(_run(ledgers.accept_new_log(settings, shard)))


@ledger_app.command("skip")
def skip(
    shard: Shard,
    to: Annotated[int, typer.Option(min=0, help="The offset to go on at.")],
    yes_lose_events: Annotated[
        bool, typer.Option("--yes-lose-events", help="Yes, the events before that offset shall be lost.")
    ] = False,
    kafka: Kafka = None,
    redis_url: RedisUrl = None,
) -> None:
    """Go on at a later offset of the log; the events before it are never applied. The only command that loses.

    For records that are gone from the log, and for what shall not even go to the dead letters. Without
    `--yes-lose-events` it only says how many records that would be.

        runtally ledger skip 3 --to 8112 --yes-lose-events
    """
    settings = load_settings({"kafka": kafka, "redis_url": redis_url})
    from .ops import ledgers

    moved = _run(ledgers.skip(settings, shard, to, lose=yes_lose_events))
    typer.echo(f"shard {shard}: {moved.after - moved.before:,} records are passed over")
    _tell(moved)


def _run(work: Coroutine[Any, Any, _Found]) -> _Found:
    silence_kafka()
    return asyncio.run(work)


def _tell(moved: Moved) -> None:
    typer.echo(
        f"shard {moved.shard} goes on at offset {moved.after} instead of {moved.before}, of a log that ends at "
        f"{moved.end}; the worker that has it begins within a second"
    )


def _print(standings: Sequence[Standing]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for name in ("shard", "state", "next", "seq", "mark", "log", "lag"):
        table.add_column(name, justify="left" if name in ("shard", "state") else "right")
    for each in standings:
        ledger = each.ledger
        mark = ledger.mark if ledger else None
        table.add_row(
            each.shard,
            f"[{_STYLES[each.state]}]{each.state}[/]",
            "–" if ledger is None else str(ledger.next),
            "–" if ledger is None else str(ledger.seq),
            "–" if mark is None else f"{mark.offset}/{mark.checksum:08x}",
            "?" if each.log_end is None else f"{each.log_begin}…{each.log_end}",
            "?" if each.lag is None else f"{each.lag:,}",
        )
    Console(highlight=False).print(table)
    for each in standings:
        if each.trouble:
            typer.echo(f"shard {each.shard}: {each.trouble}")

"""`runtally doctor`: what is wrong around runtally, and what to do."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from .embedded.upfile import load_settings
from .logs import silence_kafka


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    kafka: Annotated[str | None, typer.Option(help="Kafka's bootstrap servers; overrides RUNTALLY_KAFKA.")] = None,
    redis_url: Annotated[str | None, typer.Option(help="Redis or Valkey; overrides RUNTALLY_REDIS_URL.")] = None,
) -> None:
    """Look at Kafka, Redis and the data, and say of each thing whether it is well and what to do if it is not.

    It changes nothing. Exit code 0: nothing is bad, though there may be warnings. 1: something is bad. 2: it could not
    be run, because of a wrong setting for example.

        runtally doctor

        runtally doctor --json
    """
    settings = load_settings({"kafka": kafka, "redis_url": redis_url})
    from .ops import doctor as ops

    silence_kafka()
    lines = asyncio.run(ops.examine(settings))
    if as_json:
        typer.echo(ops.as_json(lines))
    else:
        width = max(len(line.check) for line in lines)
        colours = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "bad": typer.colors.RED}
        for line in lines:
            typer.secho(f"{line.level:<4}  ", fg=colours[line.level], nl=False)
            typer.echo(f"{line.check:<{width}}  {line.says}")
            if line.do:
                typer.echo(f"{'':<{width + 6}}  → {line.do}")
    raise typer.Exit(ops.exit_code(lines))

"""`runtally bench`: the measurements, each a table or, with `--json`, one object."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from ..errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Measure how fast runtally is on this machine.

Servers that are not named are started for the measurement: Valkey, and the embedded broker. Named ones are used with
topics and keys of the measurement's own, which are deleted afterwards.
""",
)

Kafka = Annotated[str | None, typer.Option(help="A Kafka that runs, host:port. Default: the embedded broker.")]
RedisUrl = Annotated[str | None, typer.Option(help="A Redis or Valkey that runs. Default: one of its own.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]

_MEANINGS: Final[Mapping[str, str]] = {
    "events": "events in the topic",
    "runs": "task runs among them",
    "events_per_second": "events a second, one worker",
    "events_per_cpu_second": "events a CPU second of the worker",
    "bare_events_per_second": "events a second, bare loop",
    "bare_ratio": "the worker's part of the bare loop, by CPU",
    "redis_bytes_per_run": "bytes of Redis a task run",
    "redis_cpu_us_per_event": "µs of Redis' CPU an event",
    "p50_ms": "ms from publishing to an answer, median",
    "p99_ms": "ms from publishing to an answer, 99 of 100",
}


@app.command()
def ingest(
    events: Annotated[int, typer.Option(help="How many events to fill the topic with.")] = 1_000_000,
    kafka: Kafka = None,
    redis_url: RedisUrl = None,
    as_json: Json = False,
) -> None:
    """How fast one worker takes events in, beside a bare loop that only reads and decodes them.

    The events are snapshots of about 700 bytes: 20 task runs a flow run, 3 states each, over 24 hours, 8 partitions.
    A million of them take 700 MB of Kafka.

        runtally bench ingest --events 1000000 --kafka localhost:9092
    """
    from .bench_ingest import ingest as measure

    _show("Ingest", asdict(asyncio.run(measure(events, kafka, redis_url, _say))), as_json)


@app.command()
def latency(
    seconds: Annotated[float, typer.Option(help="How long to measure.")] = 20,
    rate: Annotated[int, typer.Option(help="Events a second that are published meanwhile.")] = 1000,
    kafka: Kafka = None,
    redis_url: RedisUrl = None,
    as_json: Json = False,
) -> None:
    """How long after publishing it an event shows in an answer of the API.

    Some twenty times a second a run gets a state of a new name, and the history is asked until it shows it.

        runtally bench latency --kafka localhost:9092
    """
    from .bench_latency import latency as measure

    _show("Latency", asdict(asyncio.run(measure(seconds, rate, kafka, redis_url, _say))), as_json)


class Only(StrEnum):
    """Half of what `query` asks."""

    DASHBOARDS = "dashboards"
    SCANS = "scans"


@app.command()
def query(
    runs: Annotated[str, typer.Option(help="How many task runs, or several numbers with commas.")] = "1000000",
    only: Annotated[Only | None, typer.Option(help="Leave the other half out.")] = None,
    newest_hour: Annotated[bool, typer.Option("--newest-hour", help="A tenth of all runs in the last hour.")] = False,
    redis_url: RedisUrl = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,
) -> None:
    """How fast the API answers what dashboards ask, and filters that no rollup can answer.

    The runs are spread over 30 days. A million take a minute to be put into Redis, and 350 MB there.

        runtally bench query --runs 100000,1000000 --json
    """
    from .bench_query import query as measure

    if not re.fullmatch(r"[0-9]+(,[0-9]+)*", runs):
        raise UserError(f"--runs {runs}: expected a number of runs, or several with commas between them")
    found = [
        asdict(one)
        for size in map(int, runs.split(","))
        for one in asyncio.run(measure(size, only.value if only else None, redis_url, _say, newest_hour=newest_hour))
    ]
    _show_all("Query", found, as_json)


def _show_all(title: str, found: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for name, value in found[0].items():
        table.add_column(name, justify="left" if isinstance(value, str) else "right")
    for row in found:
        table.add_row(*(value if isinstance(value, str) else f"{value:,}" for value in row.values()))
    Console().print(table)


def _show(title: str, found: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in found.items():
        table.add_row(_MEANINGS[name], f"{value:,}")
    Console().print(table)


def _say(line: str) -> None:
    typer.echo(line, err=True)

"""The command line: `runtally` and its commands.

Whatever takes long to import is imported by the command that needs it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import Annotated, NoReturn

import typer

from . import __version__, cli_dead_letters, cli_doctor, cli_events, cli_history, cli_ledger, cli_repair, cli_up, logs
from .embedded.upfile import load_settings
from .errors import RuntallyError, SystemError_, UserError

app = typer.Typer(
    name="runtally",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""The history of workflow runs, answered instantly however many runs there are.

Try it: `runtally up --demo`, then `runtally history --last 24h` in a second terminal.

In production: `runtally topics create` once, then any number of `runtally worker` and `runtally api`,
told where Kafka and Redis are by `RUNTALLY_KAFKA` and `RUNTALLY_REDIS_URL`. All settings are
`RUNTALLY_*` variables; beside a running `runtally up` none is needed.
""",
)
topics_app = typer.Typer(no_args_is_help=True, help="Make and check the topics in Kafka.")
app.add_typer(topics_app, name="topics")
app.command("up")(cli_up.up)
app.command("history")(cli_history.history)
app.command("publish")(cli_events.publish)
app.command("doctor")(cli_doctor.doctor)
app.command("verify")(cli_repair.verify)
app.command("rebuild")(cli_repair.rebuild)
app.command("id")(cli_events.show_id)
app.add_typer(cli_events.schema_app, name="schema")
app.add_typer(cli_ledger.ledger_app, name="ledger")
app.add_typer(cli_dead_letters.dead_letters_app, name="dead-letters")

Kafka = Annotated[str | None, typer.Option(help="Kafka's bootstrap servers; overrides RUNTALLY_KAFKA.")]
LogJson = Annotated[
    bool, typer.Option("--log-json", help="Log one JSON object a line; RUNTALLY_LOG_JSON=true does it too.")
]
RedisUrl = Annotated[str | None, typer.Option(help="Redis or Valkey; overrides RUNTALLY_REDIS_URL.")]


@app.command()
def worker(
    kafka: Kafka = None,
    redis_url: RedisUrl = None,
    name: Annotated[
        str | None, typer.Option(help="This worker's name; overrides RUNTALLY_WORKER_NAME; default: the host's.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port of `/metrics` and `/health`; overrides RUNTALLY_METRICS_PORT.")
    ] = None,
    log_json: LogJson = False,
) -> None:
    """Run one worker: it takes events from Kafka and keeps the rollups in Redis up to date.

    Start as many as you like, up to one a partition; they share the partitions out among themselves. SIGTERM lets it
    finish the batch in hand. Give each a name and a metrics port of its own when several share a machine:

        runtally worker --name worker-2 --metrics-port 4261
    """
    settings = load_settings(
        {
            **{"kafka": kafka, "redis_url": redis_url, "worker_name": name, "metrics_port": metrics_port},
            "log_json": log_json or None,
        }
    )
    from .stream.app import run_worker

    raise typer.Exit(run_worker(settings))


@app.command()
def api(
    redis_url: RedisUrl = None,
    kafka: Kafka = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; overrides RUNTALLY_API_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; overrides RUNTALLY_API_PORT.")] = None,
    log_json: LogJson = False,
) -> None:
    """Run the HTTP API: it answers `POST /api/task_runs/history` from the rollups in Redis.

    Kafka is needed only for events that come by HTTP (`POST /runtally/api/events`), and to say how far answers
    are behind.

        runtally api --port 8080
    """
    settings = load_settings(
        {"kafka": kafka, "redis_url": redis_url, "api_host": host, "api_port": port, "log_json": log_json or None}
    )
    logs.configure(settings)
    # Read by polars when it is imported, which the next lines do.
    os.environ["POLARS_MAX_THREADS"] = str(settings.scan_threads)
    import uvicorn

    from .api import create_app, garbage

    garbage.settle()
    uvicorn.run(
        create_app(settings),
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,
        access_log=settings.log_level == "debug",
        loop="uvloop",
        timeout_graceful_shutdown=2,
    )


@topics_app.command("create")
def topics_create(
    kafka: Kafka = None,
    partitions: Annotated[
        int | None, typer.Option(help="Partitions of the runs topic; overrides RUNTALLY_PARTITIONS.")
    ] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for a broker that is away.")] = 30,
) -> None:
    """Make the topics that do not exist yet, and check those that do; nothing that exists is changed.

    Producers should publish with acks=all and idempotence. The number of partitions bounds the number of workers and
    cannot be changed later without building everything anew.

        RUNTALLY_KAFKA=kafka:9092 runtally topics create --partitions 16
    """
    settings = load_settings({"kafka": kafka, "partitions": partitions})
    from .ops import topics

    for found in asyncio.run(topics.create(settings, wait_s=wait, say=_complain)):
        count = f"{found.partitions} partition{'s' if found.partitions > 1 else ''}"
        typer.echo(f"{found.name}: {'created' if found.created else 'exists'}, {count}")
        for warning in found.warnings:
            _complain(f"warning: {found.name} {warning}")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def bench(context: typer.Context) -> None:
    """Measure ingest, latency and queries; each prints a table, or an object with `--json`.

    See `runtally bench --help`.
    """
    from .ops.bench import app as bench_app

    bench_app(context.args, prog_name="runtally bench")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _complain(line: str) -> None:
    typer.echo(line, err=True)


def _fail(error: RuntallyError, code: int) -> NoReturn:
    if logs.in_json():
        logging.getLogger(__name__).error("%s", error)
    else:
        _complain(f"runtally: {error}")
    sys.exit(code)


def main() -> NoReturn:
    """The entry point. Exit codes: 0 done, 1 something around us fails, 2 the person can mend it, 130 Ctrl-C."""
    try:
        app(standalone_mode=True)
    except UserError as error:
        _fail(error, 2)
    except (SystemError_, RuntallyError) as error:
        _fail(error, 1)
    sys.exit(0)

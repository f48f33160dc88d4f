"""The command line says what it did, or in one line what to do."""

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from runtally import cli_history
from runtally.embedded import ports

from .servers.forks import run

_BIN = {
    "interval_start": "2026-11-24T10:00:00Z",
    "interval_end": "2026-11-24T11:00:00Z",
    "states": [
        {
            "state_type": "COMPLETED",
            "state_name": "Completed",
            "count_runs": 1200,
            "sum_estimated_run_time": 3700.0,
            "sum_estimated_lateness": 0.5,
        },
        {
            "state_type": "SCHEDULED",
            "state_name": "Late",
            "count_runs": 3,
            "sum_estimated_run_time": 0.0,
            "sum_estimated_lateness": 90.0,
        },
    ],
}


class _Api(http.server.BaseHTTPRequestHandler):
    """Answers every question alike and keeps it."""

    asked: list[Any] = []  # noqa: RUF012
    status = 200
    answer: Any = None

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.asked.append((self.path, json.loads(body)))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(json.dumps(self.answer).encode())

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def api() -> Iterator[tuple[str, type[_Api]]]:
    handler = type("Handler", (_Api,), {"asked": [], "answer": [_BIN, {**_BIN, "states": []}]})
    with http.server.ThreadingHTTPServer((ports.HOST, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{ports.HOST}:{server.server_port}", handler
        server.shutdown()
        thread.join()


def test_history_shows_bins_states_and_totals(api: tuple[str, type[_Api]]) -> None:
    url, handler = api
    done = run("history", "--last", "24h", "--every", "1h", "--url", url)
    assert done.returncode == 0, done.stderr
    assert handler.asked == [
        (
            "/api/task_runs/history",
            {"history_start": "-PT24H", "history_end": "now", "history_interval_seconds": 3600},
        )
    ]
    words = [line.split() for line in done.stdout.splitlines()]
    assert ["from", "Late", "Completed", "runs", "run", "time", "lateness"] in words
    assert ["Nov", "24", "10:00", "3", "1,200", "1,203", "61.7", "m", "90.5", "s"] in words
    assert ["all", "3", "1,200", "1,203", "61.7", "m", "90.5", "s"] in words


@pytest.mark.parametrize(
    ("width", "titles"), [(62, ["Completed", "other"]), (90, ["Late", "Completed"]), (30, ["other"])]
)
def test_a_narrow_terminal_gets_the_rare_states_as_one(width: int, titles: list[str]) -> None:
    state = _BIN["states"][0]
    states = [
        {**state, "state_name": name, "count_runs": 1} for name in ("Skipped", "Delivered", "Cached", "RolledBack")
    ]
    bins = [{**_BIN, "states": [*_BIN["states"], *(states if width != 90 else [])]}]
    made = cli_history.table(bins, width)
    assert [column.header for column in made.columns] == ["from", *titles, "runs", "run time", "lateness"]


def test_history_gives_the_answer_as_it_is(api: tuple[str, type[_Api]]) -> None:
    url, handler = api
    done = run("history", "--json", RUNTALLY_URL=url)
    assert json.loads(done.stdout) == handler.answer


_PLAN = {
    "plan": "cells=1412 scopes=all:1h,all:1m raw=2m/57r",
    "answered_by": "cells",
    "bins": {"start": "2026-11-24T10:00:00Z", "end": "2026-11-24T12:00:00Z", "count": 2, "seconds": 3600.0},
    "parts": [
        {"scope": "all", "level": "1h", "buckets": 140, "cells": 1400},
        {"scope": "all", "level": "1m", "buckets": 3, "cells": 12},
    ],
    "estimated": {"buckets": 150, "raw_minutes": 4, "raw_rows": 90},
    "real": {"buckets": 143, "raw_minutes": 2, "raw_rows": 57},
    "ways": [
        {"way": "all", "taken": True, "buckets": 150, "values": 1200, "raw_rows": 90},
        {"way": "scan", "taken": False, "buckets": 0, "values": 0, "raw_rows": 120_034},
    ],
    "because": [{"about": "now", "raw_minutes": 2, "why": "2 minutes near now.", "instead": "Wait a bit."}],
}


def test_history_explains(api: tuple[str, type[_Api]]) -> None:
    url, handler = api
    handler.answer = _PLAN
    done = run("history", "--last", "2h", "--explain", "--url", url)
    assert done.returncode == 0, done.stderr
    assert [path for path, _ in handler.asked] == ["/runtally/api/task_runs/history/explain"]
    words = [line.split() for line in done.stdout.splitlines()]
    assert ["all", "1h", "140", "1,400"] in words
    assert ["raw", "runs", "2", "57"] in words
    assert ["*", "all", "150", "1,200", "90"] in words
    assert ["scan", "·", "·", "120,034"] in words
    assert "now: 2 minutes near now. Wait a bit." in done.stdout
    as_json = run("history", "--explain", "--json", "--url", url)
    assert json.loads(as_json.stdout) == _PLAN


def test_a_scan_is_explained_too(api: tuple[str, type[_Api]]) -> None:
    url, handler = api
    work = {"buckets": 0, "raw_minutes": 2, "raw_rows": 57}
    handler.answer = {**_PLAN, "answered_by": "scan", "parts": [], "because": [], "real": work}
    done = run("history", "--explain", "--url", url)
    assert ["raw", "runs", "2", "57"] in [line.split() for line in done.stdout.splitlines()]


def test_history_tells_that_the_api_is_away() -> None:
    url = f"http://{ports.HOST}:{ports.any_free()}"
    done = run("history", "--url", url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"runtally: the API at {url} does not answer")
    assert "runtally up" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("status", "code"), [(422, 2), (503, 1), (500, 1), (404, 1)])
def test_history_tells_what_the_api_says(api: tuple[str, type[_Api]], status: int, code: int) -> None:
    url, handler = api
    handler.status, handler.answer = status, {"detail": "these are the words"}
    done = run("history", "--url", url)
    assert done.returncode == code
    assert "these are the words" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--last", "a while"), "--last: expected a whole number with a unit"),
        (("--last", "1500ms"), "--last: expected whole seconds above zero"),
        (("--explain", "--watch"), "--explain: explains one answer"),
        (("--last", "never"), "--last: expected whole seconds above zero"),
        (("--last", "24h", "--every", "1s"), "--every: 24h in bins of 1s are more than 500; take 300s or more"),
    ],
)
def test_a_wrong_option_is_named(arguments: tuple[str, ...], words: str) -> None:
    done = run("history", *arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_a_wrong_setting_is_refused_by_name() -> None:
    done = run("topics", "create", RUNTALLY_PARTITIONS="many")
    assert done.returncode == 2
    assert done.stderr.startswith("runtally: RUNTALLY_PARTITIONS: ")
    assert len(done.stderr.splitlines()) == 1


def test_topics_create_says_what_there_is(embedded_broker: str) -> None:
    variables = {"RUNTALLY_KAFKA": embedded_broker, "RUNTALLY_TOPIC_PREFIX": f"cli{ports.any_free()}"}
    first = run("topics", "create", "--partitions", "3", **variables)
    prefix = variables["RUNTALLY_TOPIC_PREFIX"]
    assert first.stdout.splitlines() == [
        f"{prefix}.runs: created, 3 partitions",
        f"{prefix}.catalog: created, 1 partition",
        f"{prefix}.dead-letters: created, 1 partition",
    ]
    second = run("topics", "create", "--partitions", "4", **variables)
    assert second.stdout.splitlines()[0] == f"{prefix}.runs: exists, 3 partitions"
    assert "RUNTALLY_PARTITIONS says 4: 3 it stays" in second.stderr


def test_topics_create_names_a_broker_that_is_away() -> None:
    address = f"{ports.HOST}:{ports.any_free()}"
    done = run("topics", "create", "--kafka", address, "--wait", "0.1")
    assert done.returncode == 1
    assert f"no Kafka at {address}" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", ["up", "worker", "api", "topics create", "history"])
def test_help_teaches_with_an_example(command: str) -> None:
    done = run(*command.split(), "--help")
    assert done.returncode == 0
    assert f"runtally {command}" in done.stdout


@pytest.mark.parametrize(
    ("range_s", "width_s"), [(60, 5), (900, 60), (3600, 300), (86_400, 3600), (7 * 86_400, 43_200), (10**9, 41_666_667)]
)
def test_without_a_width_there_are_about_twenty_rows(range_s: int, width_s: int) -> None:
    assert cli_history._nice_width(range_s) == width_s

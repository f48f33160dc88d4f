"""The pages say what the code does: tables, names, links and messages are held against it."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import click
import pytest
import typer

from runtally.api import create_app
from runtally.api.models import HistoryBody, history_request
from runtally.cli import app as cli
from runtally.docs import tables
from runtally.events.publish import Message, checked
from runtally.settings import Settings

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "runtally"
PAGES = [ROOT / "README.md", *sorted(tables.FOLDER.glob("*.md"))]
OTHER_TEXTS = [ROOT / "docker-compose.yml", *(path for path in (ROOT / "deploy").iterdir())]
TEST_VARIABLES = {"RUNTALLY_TEST_KAFKA", "RUNTALLY_TEST_REDIS", "RUNTALLY_TEST_LONG"}
COMPOSE_VARIABLES = {"RUNTALLY_BIND"}
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`([^`\n]+)`")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


def code_in(text: str) -> list[str]:
    """Every code span, and every line of a fenced block."""
    fenced = [line for block in FENCE.findall(text) for line in block.splitlines()[1:-1]]
    return CODE.findall(FENCE.sub("", text)) + fenced


def commands() -> dict[str, set[str]]:
    """Every command by its words (`topics create`), with its options."""

    def walk(command: click.Command, words: tuple[str, ...]) -> dict[str, set[str]]:
        options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        inner = getattr(command, "commands", {})
        below = [walk(each, (*words, name)) for name, each in inner.items()]
        return {" ".join(words): options} | {name: known for each in below for name, known in each.items()}

    return walk(typer.main.get_command(cli), ())


@pytest.mark.parametrize("page", tables.PAGES)
def test_a_table_is_what_the_code_says(page):
    text = (tables.FOLDER / page).read_text(encoding="utf-8")
    assert text == tables.filled(page, text), "run: uv run python -m runtally.docs.tables"


@every_page
def test_links_lead_to_files(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, _ = target.partition("#")
        assert (page.parent / path).exists(), target


@every_page
def test_files_that_are_named_exist(page):
    for span in code_in(page.read_text(encoding="utf-8")):
        for path in re.findall(r"(?<![\w/.<>{}-])(?:[a-z_]+/)+(?:[a-z_]+\.(?:py|md|yml))?(?![\w<{])", span):
            assert any((root / path).exists() for root in (ROOT, SOURCE)), path


@every_page
def test_variables_that_are_named_exist(page):
    known = {f"RUNTALLY_{name.upper()}" for name in Settings.model_fields} | TEST_VARIABLES | COMPOSE_VARIABLES
    named = set(re.findall(r"RUNTALLY_[A-Z_]+[A-Z]", page.read_text(encoding="utf-8")))
    assert named <= known


@every_page
def test_commands_and_options_that_are_named_exist(page):
    known = commands()
    for span in code_in(page.read_text(encoding="utf-8")):
        for called in re.findall(r"(?:^|\| )(?:[A-Z_]+=\S+ )*(?:uv run )?runtally( [a-z-][^|>#]*)", span):
            words = re.findall(r"[a-z-]+", called)
            name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in known), None)
            assert name is not None, span
            # A bench has tools of its own, which have a command line of their own.
            options = set(re.findall(r" (--[a-z-]+)", called))
            assert name == "bench" or options <= known[name], span


@every_page
def test_routes_that_are_named_exist(page):
    paths = set(create_app(Settings()).openapi()["paths"])
    known = (
        paths | {path.removeprefix("/api") for path in paths} | {"/docs", "/api/openapi.json", "/metrics", "/health"}
    )
    for span in code_in(page.read_text(encoding="utf-8")):
        for path in re.findall(r"(?:POST |GET |:42\d\d|^)(/(?:[a-z_.]+/?)+)", span):
            assert path in known, span


def test_messages_that_are_explained_exist():
    said = _texts()
    text = (tables.FOLDER / "operations.md").read_text(encoding="utf-8")
    _, _, messages = text.partition("## What the messages mean")
    rows = [line for line in messages.splitlines() if line.startswith("| `")]
    assert len(rows) > 20
    for row in rows:
        for span in CODE.findall(row.split(" | ")[0]):
            for part in filter(None, (piece.strip() for piece in span.split("…"))):
                assert any(part in text for text in said), part


def test_the_tests_that_show_a_promise_exist_and_every_promise_has_some():
    text = (tables.FOLDER / "promises.md").read_text(encoding="utf-8")
    _, *promises = re.split(r"^## (?=P\d+ · )", text, flags=re.MULTILINE)
    assert [promise.split(" ")[0] for promise in promises] == [f"P{number}" for number in range(1, 11)]
    for promise in promises:
        shown = re.findall(r"^- `(tests/\S+\.py)::(test_\w+)`$", promise, re.MULTILINE)
        assert len(shown) == promise.count("\n- ") >= 2, promise
        for path, test in shown:
            assert re.search(rf"^(?:async )?def {test}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), (
                test
            )
        assert "*Not covered*: " in promise


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 250


@pytest.mark.parametrize("path", [*PAGES, *OTHER_TEXTS], ids=lambda path: path.name)
def test_nothing_names_a_place_of_one_machine(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"/(?:work|home|root|tmp)/|file://", text)
    hosts = set(re.findall(r"https?://([^/\s:`'\"]+)", text))
    assert hosts <= {"127.0.0.1", "localhost", "<api_host>"}


def test_the_code_of_the_readme_is_valid():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (program,) = [code for language, code in blocks if language == "python"]
    compile(program, "README.md", "exec")
    answer, event = [code for language, code in blocks if language == "json"]
    assert [len(each["states"]) for each in json.loads(answer)] == [1, 1]
    assert isinstance(checked(event.encode(), Settings(), 1_795_600_000_000_000), Message)
    body = json.loads(re.search(r"-d '(\{.*?\})'", text, re.DOTALL)[1])
    assert history_request(HistoryBody.model_validate(body)).filters.given() == ("flow_runs", "task_runs")


def _texts() -> list[str]:
    """Every string of the source, f-strings with … for what is put in."""
    found = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%[sd]", "…", node.value))
    return found

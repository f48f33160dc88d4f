"""The producers' page and the JSON Schema say what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import runtally
from runtally.core.changes import ENTITIES, STATE_TYPES
from runtally.errors import BadEventError
from runtally.events.contract import CONTRACT
from runtally.events.schema import events_schema, tables

from ..conftest import examples
from ..strategies import estates
from .samples import STATE, event, read
from .test_wire import BAD

PAGE = Path(runtally.__file__).parent / "docs" / "events.md"
SCHEMA = Draft202012Validator(events_schema())


def page_with_tables(text: str) -> str:
    for name, table in tables().items():
        pattern = rf"(<!-- {name}: .*? -->\n).*?(<!-- end of {name} -->)"
        text, count = re.subn(pattern, lambda found: f"{found[1]}\n{table}\n\n{found[2]}", text, flags=re.DOTALL)  # noqa: B023
        assert count == 1, f"{PAGE.name} has no place for the {name}"
    return text


def test_the_page_shows_the_tables_as_they_are() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page_with_tables(text), "run: uv run python -m tests.events.test_docs"


def test_the_contract_has_exactly_the_fields_of_the_core() -> None:
    for name, entity in ENTITIES.items():
        told = {field.name for field in CONTRACT[entity.name]} - {"id"} - set(STATE)
        stored = set(entity.fields) - {"state"}
        assert told - stored == ({"flow_run_id"} if name == "task_run" else set())
        assert stored <= told
    assert SCHEMA.schema["oneOf"][0]["properties"]["data"]["properties"]["state_type"]["enum"] == list(STATE_TYPES)


def test_the_examples_of_the_page_are_good_events() -> None:
    blocks = re.findall(r"```json\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        assert read(json.loads(block))
        assert SCHEMA.is_valid(json.loads(block))


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(events_schema())
    json.dumps(events_schema())


@examples(400)
@given(estates(), st.sampled_from([*ENTITIES]))
def test_the_schema_takes_what_the_parser_takes(told: list[dict[str, Any]], entity: str) -> None:
    for each in [*told, event(entity), event(entity, "patch"), event(entity, "delete")]:
        try:
            read(each)
        except BadEventError:
            continue
        assert SCHEMA.is_valid(each), each


# What a schema of one message cannot or need not say.
BEYOND = {"part of a state", "a start without a state", "an id that is too long"}


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(message, id=name)
        for name, message, reason, _ in BAD
        if isinstance(message, dict | list) and reason not in ("impossible time", "not JSON") and name not in BEYOND
    ],
)
def test_the_schema_refuses_what_the_parser_refuses(message: Any) -> None:
    checked = Draft202012Validator(events_schema(), format_checker=_times())
    assert not checked.is_valid(message)


def _times() -> Any:
    from jsonschema import FormatChecker

    from runtally.events.times import micros

    checker = FormatChecker(formats=())
    checker.checks("date-time", raises=BadEventError)(lambda text: not isinstance(text, str) or micros(text, "") >= 0)
    return checker


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

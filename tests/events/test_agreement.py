"""Whatever comes, we understand it as the reference does, and nothing breaks the parser."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runtally.core.changes import ENTITIES, Change
from runtally.errors import BadEventError
from runtally.events.wire import Ignored

from ..conftest import examples
from ..strategies import estates
from .agreement import agrees, parsed
from .samples import DATA, PREFECT_EVENTS, RUN, STATE, T, event, raw

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([T, RUN, "RUNNING"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@examples(2000)
@given(st.binary(max_size=200) | JUNK.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_change_or_ignored_or_bad(message: bytes) -> None:
    assert isinstance(parsed(message), Change | Ignored | BadEventError)


@examples(2000)
@given(st.sampled_from([*PREFECT_EVENTS, raw(event()), raw(event("flow_run", **STATE))]), st.data())
def test_a_damaged_event_is_a_change_or_ignored_or_bad(message: bytes, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(message)))
    end = data.draw(st.integers(begin, min(len(message), begin + 30)))
    damaged = message[:begin] + data.draw(st.binary(max_size=5)) + message[end:]
    assert isinstance(parsed(damaged), Change | Ignored | BadEventError)


TIMES = st.sampled_from(
    [
        *(T, "2026-11-24T10:01:33Z", "2026-11-24t10:01:33.5z", "2026-11-24 10:01:33.1180069+05:30"),
        *("2026-11-24T10:01:33", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00+00:01", "2200-01-01T00:00:00Z", ""),
    ]
)
IDS = st.sampled_from([RUN, RUN.upper(), RUN.replace("-", ""), "{" + RUN + "}", "urn:uuid:" + RUN, "a", "", "x" * 251])
ANYTHING = st.none() | st.sampled_from([1, 2.5, -1e-7, 4e9, True, [], {}, ["a"], "RUNNING", "x"]) | TIMES | IDS


@examples(2000)
@given(st.sampled_from([*ENTITIES]), st.sampled_from(["upsert", "patch", "delete"]), st.data(), st.booleans())
def test_events_mean_what_the_reference_says(entity: str, action: str, data: st.DataObject, ascii_only: bool) -> None:
    names = [*DATA[entity], *STATE, *ENTITIES[entity].fields, "flow_run_id"]
    over = data.draw(st.dictionaries(st.sampled_from(names), ANYTHING, max_size=4))
    message = event(entity, action, without=data.draw(st.sampled_from(["", "", "", *names])), **over)
    agrees(json.dumps(message, ensure_ascii=ascii_only).encode())


@examples(600)
@given(estates())
def test_estates_mean_what_the_reference_says(told: list[dict[str, Any]]) -> None:
    for each in told:
        agrees(raw(each))

"""What an event means, and that whatever else comes is told from it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runtally.core.changes import ENTITIES, Change
from runtally.errors import BadEventError
from runtally.events.contract import REASONS
from runtally.events.ids import identity
from runtally.events.wire import MAX_EVENT_BYTES, parse, parse_any
from runtally.events.wire import read as read_by_itself

from .samples import DATA, DAY_US, FLOW_RUN, RUN, STATE, T_US, T, change_of, event, fields, id_of, raw, read

# What good events mean


def test_a_full_snapshot_gives_every_field() -> None:
    change = change_of(
        event(
            tags=["b", "a", "b"],
            expected_start_time="2026-11-24T10:01:30Z",
            start_time="2026-11-24T11:01:31+01:00",
            end_time="2026-11-24T10:01:33.1Z",
            total_run_time=2.0000015,
            child_flow_run_id=FLOW_RUN,
        )
    )
    assert change == Change(
        "task_run",
        "upsert",
        id_of(RUN),
        id_of(FLOW_RUN),
        T_US,
        ENTITIES["task_run"].all_given,
        (
            ("RUNNING", "Running", T_US),
            T_US - 2_118_006,
            T_US - 18_006,
            2_000_002,
            "extract",
            ("b", "a", "b"),
            T_US - 3_118_006,
            id_of(FLOW_RUN),
        ),
    )


@pytest.mark.parametrize("entity", ENTITIES)
def test_what_a_snapshot_leaves_out_is_null(entity: str) -> None:
    change = change_of(event(entity))
    told = fields(change)
    assert change.given == ENTITIES[entity].all_given
    absent = set(told) - set(DATA[entity]) - {"state", "tags", "paused"}
    assert {told[name] for name in absent} <= {None}
    assert told["tags"] == ()
    assert told.get("paused", False) is False


@pytest.mark.parametrize("entity", ENTITIES)
def test_null_is_absent_in_a_snapshot(entity: str) -> None:
    optional = {name: None for name in ENTITIES[entity].fields if name not in {*DATA[entity], "state"}}
    states = dict.fromkeys(STATE) if entity == "flow_run" else {}
    assert change_of(event(entity, **optional, **states)) == change_of(event(entity))


def test_a_patch_gives_only_what_is_in_it() -> None:
    assert fields(change_of(event("task_run", "patch", without="name", tags=["x"]))) == {"tags": ("x",)}
    assert fields(change_of(event("flow", "patch", without="name"))) == {}
    stated = change_of(event("task_run", "patch", **STATE, end_time=None, without="name"))
    assert fields(stated) == {"state": ("RUNNING", "Running", T_US), "end_time": None}


def test_null_in_a_patch_is_null() -> None:
    change = change_of(event("flow_run", "patch", deployment_id=None, name=None, tags=None, without="flow_id"))
    assert fields(change) == {"deployment_id": None, "name": None, "tags": ()}
    assert fields(change_of(event("deployment", "patch", paused=None, name=None, flow_id=None))) == {
        "paused": False,
        "name": None,
        "flow_id": None,
    }


@pytest.mark.parametrize("entity", ENTITIES)
def test_a_delete_gives_nothing_and_needs_only_its_keys(entity: str) -> None:
    keys = {name: value for name, value in DATA[entity].items() if name in ("id", "flow_run_id")}
    change = change_of({"entity": entity, "action": "delete", "occurred": T, "data": {**keys, "name": 5}})
    assert (change.action, change.given, set(change.values)) == ("delete", 0, {None})
    assert change.flow_run_id == (id_of(FLOW_RUN) if entity == "task_run" else None)


def test_a_flow_run_may_have_no_state_yet() -> None:
    change = change_of(event("flow_run", state_type=None))
    assert change.values[:3] == (None, None, None)


def test_each_id_is_made_in_the_namespace_of_what_it_names() -> None:
    named = {
        "flow_id": "flow",
        "deployment_id": "deployment",
        "parent_task_run_id": "task_run",
        "parent_flow_run_id": "flow_run",
    }
    told = fields(change_of(event("flow_run", **dict.fromkeys(named, "x"))))
    assert {name: told[name] for name in named} == {name: identity(entity, "x") for name, entity in named.items()}
    run = change_of(event(id="x", flow_run_id="x", child_flow_run_id="x"))
    assert (run.id, run.flow_run_id) == (identity("task_run", "x"), identity("flow_run", "x"))
    assert fields(run)["child_flow_run_id"] == identity("flow_run", "x")


def test_a_creator_keeps_its_text_and_a_uuid_gets_one_spelling() -> None:
    told = fields(change_of(event("flow_run", created_by={"id": "{" + RUN.upper() + "}", "more": 1})))
    assert told["created_by"] == (RUN, None)
    told = fields(change_of(event("flow_run", created_by={"id": "ada", "type": "USER"})))
    assert told["created_by"] == ("ada", "USER")


def test_unknown_keys_and_a_key_given_twice_do_no_harm() -> None:
    message = event(data_version=[{"deep": None}])
    message["more"] = {"x": 1}
    assert change_of(message) == change_of(event())
    twice = raw(event()).replace(b'"name": "extract"', b'"name": "load", "name": "extract"')
    assert change_of(twice) == change_of(event())


def test_nul_and_every_script_are_text() -> None:
    assert fields(change_of(event(name="\0 ü 名 😀")))["name"] == "\0 ü 名 😀"
    escaped = json.dumps(event(name="\0 ü 名 😀")).encode()
    assert change_of(escaped) == change_of(event(name="\0 ü 名 😀"))


def test_the_quick_way_and_the_general_way_agree() -> None:
    message = raw(event(tags=["a"], total_run_time=1.5, start_time="2026-11-24T10:01:33.1180069Z"))
    assert read_by_itself(message) == read(message)


# Bad events: (what is wrong, the message, the reason, what the detail has to name)

BAD: list[tuple[str, Any, str, str]] = [
    ("a tombstone", None, "no value", "delete"),
    ("one byte too many", b" " * (MAX_EVENT_BYTES + 1), "over 1 MiB", "1048577"),
    ("no JSON", b"{", "not JSON", ""),
    ("nothing", b"", "not JSON", ""),
    ("two values", raw(event()) + b"{}", "not JSON", ""),
    ("a byte order mark", b"\xef\xbb\xbf" + raw(event()), "not JSON", ""),
    ("NaN", raw(event(total_run_time=float("nan"))), "not JSON", ""),
    ("invalid UTF-8", raw(event(name="\ud800")), "not JSON", ""),
    ("invalid UTF-8 in a key nobody reads", raw(event(nobody="\ud800")), "not JSON", ""),
    ("a lone surrogate", json.dumps(event(name="\ud800")).encode(), "not JSON", ""),
    ("nested too deeply", b'{"x":' + b"[" * 100_000, "not JSON", ""),
    ("nested too deeply inside", raw(event()).replace(b'"extract"', b"[" * 100_000), "not JSON", ""),
    ("no object", [], "wrong type", "object"),
    ("an empty object", {}, "missing field", "entity"),
    ("no entity", {**event(), "entity": None}, "missing field", "entity"),
    ("an entity that is no text", {**event(), "entity": []}, "wrong type", "entity"),
    ("an unknown entity", {**event(), "entity": "work_pool"}, "unknown entity", "work_pool"),
    ("an unknown action", event("task_run", "insert"), "unknown action", "insert"),
    ("no action", {**event(), "action": None}, "missing field", "action"),
    ("no occurred", {**event(), "occurred": None}, "missing field", "occurred"),
    ("a number for occurred", {**event(), "occurred": 1}, "wrong type", "occurred"),
    ("no data", {key: value for key, value in event().items() if key != "data"}, "missing field", "data"),
    ("data that is no object", {**event(), "data": []}, "wrong type", "data"),
    ("null data", {**event(), "data": None}, "wrong type", "data"),
    *((f"no {name}", event(without=name), "missing field", f"data.{name}") for name in ("id", "flow_run_id", *STATE)),
    ("a task run without a name", event(without="name"), "missing field", "data.name"),
    ("a task run with a null name", event(name=None), "missing field", "data.name"),
    ("a null id", event(id=None), "missing field", "data.id"),
    ("a patch without flow_run_id", event("task_run", "patch", without="flow_run_id"), "missing field", "flow_run_id"),
    (
        "a delete without flow_run_id",
        event("task_run", "delete", without="flow_run_id"),
        "missing field",
        "flow_run_id",
    ),
    ("a flow run without flow", event("flow_run", flow_id=None), "missing field", "data.flow_id"),
    ("a flow without name", event("flow", without="name"), "missing field", "data.name"),
    ("a deployment without flow", event("deployment", without="flow_id"), "missing field", "data.flow_id"),
    ("a deployment without name", event("deployment", without="name"), "missing field", "data.name"),
    ("part of a state", event("flow_run", state_type="RUNNING"), "missing field", "data.state_name"),
    ("a start without a state", event("flow_run", start_time=T), "missing field", "data.state_type"),
    ("a patch of an end alone", event("task_run", "patch", end_time=T), "missing field", "data.state_type"),
    ("a patch of a null end alone", event("flow_run", "patch", end_time=None), "missing field", "data.state_type"),
    ("a patch of a total alone", event("task_run", "patch", total_run_time=1), "missing field", "data.state_type"),
    (
        "null states in a patch",
        event("flow_run", "patch", **dict.fromkeys(STATE)),
        "missing field",
        "data.state_type",
    ),
    ("a number for a name", event(name=5), "wrong type", "data.name"),
    ("a number for an id", event(id=5), "wrong type", "data.id"),
    ("a text for tags", event(tags="a"), "wrong type", "data.tags"),
    ("a number among tags", event(tags=["a", 1]), "wrong type", "data.tags[1]"),
    ("a null among tags", event(tags=[None]), "wrong type", "data.tags[0]"),
    ("a text for seconds", event(total_run_time="1"), "wrong type", "data.total_run_time"),
    ("true for seconds", event(total_run_time=True), "wrong type", "data.total_run_time"),
    ("a number for a time", event(start_time=1), "wrong type", "data.start_time"),
    ("a text for paused", event("deployment", paused="no"), "wrong type", "data.paused"),
    ("a text for created_by", event("flow_run", created_by="me"), "wrong type", "data.created_by"),
    ("a number in created_by", event("flow_run", created_by={"id": 1}), "wrong type", "data.created_by.id"),
    ("an unknown state type", event(state_type="Running"), "wrong value", "data.state_type"),
    ("an empty id", event(id=""), "wrong value", "id of a task_run"),
    ("an id that is too long", event(flow_run_id="é" * 126), "wrong value", "id of a flow_run"),
    ("a time without offset", event(start_time="2026-11-24T10:01:33"), "wrong value", "data.start_time"),
    ("no time at all", event(end_time="noon"), "wrong value", "data.end_time"),
    ("no such day", event(expected_start_time="2026-02-29T00:00:00Z"), "wrong value", "data.expected_start_time"),
    ("before 1970", event(start_time="1969-12-31T23:59:59.999999Z"), "impossible time", "data.start_time"),
    ("from 2200 on", event(end_time="2200-01-01T00:00:00Z"), "impossible time", "data.end_time"),
    ("over 100 years", event(total_run_time=-3.2e9), "impossible time", "data.total_run_time"),
    ("a number too large", raw(event(total_run_time=1)).replace(b" 1}", b" 1e999}"), "impossible time", "total_run"),
    ("occurred ahead", {**event(), "occurred": "2026-11-25T10:01:33.118007Z"}, "impossible time", "occurred"),
    ("a state ahead", event(state_timestamp="2026-11-25T10:01:33.118007Z"), "impossible time", "data.state_timestamp"),
    (
        "a state ahead in a patch",
        event("flow_run", "patch", **{**STATE, "state_timestamp": "2026-11-26T00:00:00Z"}),
        "impossible time",
        "data.state_timestamp",
    ),
]


@pytest.mark.parametrize(("message", "reason", "named"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_event_says_what_is_wrong_and_where(message: Any, reason: str, named: str) -> None:
    with pytest.raises(BadEventError) as caught:
        read(message)
    assert caught.value.reason == reason
    assert named in caught.value.detail


def test_every_reason_has_a_bad_event() -> None:
    assert {case[2] for case in BAD} | {"wrong topic", "wrong partition"} == set(REASONS)


@pytest.mark.parametrize("entity", ENTITIES)
def test_an_entity_belongs_on_its_own_topic(entity: str) -> None:
    other = "catalog" if ENTITIES[entity].topic == "runs" else "runs"
    with pytest.raises(BadEventError, match=f"wrong topic: a {entity}"):
        parse(raw(event(entity)), topic=other, record_us=T_US, max_clock_skew_us=DAY_US)


def test_a_clock_may_be_ahead_as_far_as_the_setting_says() -> None:
    assert read({**event(), "occurred": "2026-11-25T10:01:33.118006Z"})
    assert parse_any(raw(event("flow")), T_US)
    with pytest.raises(BadEventError, match="occurred lies further ahead"):
        parse_any(raw(event("flow")), T_US - 1)


def test_an_expected_time_may_lie_in_a_far_year() -> None:
    change = change_of(event(expected_start_time="2199-12-31T23:59:59.9999999Z"))
    assert fields(change)["expected_start_time"] == 7_258_118_400_000_000 - 1

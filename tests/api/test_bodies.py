"""Request bodies: every coercion that is accepted and every refusal, as Prefect has them."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from runtally.core.request import EntityFilter, Filters, Operator, SubFilter

HISTORY = "/api/task_runs/history"
COUNT = "/api/task_runs/count"
REQUIRED = ["history_start", "history_end", "history_interval_seconds"]
FILTERS = ["flows", "flow_runs", "task_runs", "deployments"]
GOOD = {"history_start": "2021-07-01T00:00:00Z", "history_end": "2021-07-01T00:00:03Z", "history_interval_seconds": 1}
ID = "8f1ffbd2-8d8c-4d0e-9f0a-2b0c0f3e9b11"
ID_BYTES = uuid.UUID(ID).bytes


def one(path: str, value: Any) -> dict[str, Any]:
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


# (what is changed in a good body, type, loc without "body")
REFUSED: list[tuple[dict[str, Any], str, list[str | int]]] = [
    ({"history_start": None}, "missing", ["history_start"]),
    ({"history_end": None}, "missing", ["history_end"]),
    ({"history_interval_seconds": None}, "missing", ["history_interval_seconds"]),
    ({"history_start": ""}, "value_error", ["history_start"]),
    ({"history_start": True}, "value_error", ["history_start"]),
    ({"history_start": {}}, "value_error", ["history_start"]),
    ({"history_end": "2021-02-30"}, "value_error", ["history_end"]),
    ({"history_end": "0001-01-01T00:00:00+02:00"}, "value_error", ["history_end"]),
    ({"history_end": 1e300}, "value_error", ["history_end"]),
    ({"history_start": "-P1Y"}, "value_error", ["history_start"]),
    ({"history_interval_seconds": "PT1S"}, "float_parsing", ["history_interval_seconds"]),
    ({"history_interval_seconds": {}}, "float_type", ["history_interval_seconds"]),
    ({"history_interval_seconds": []}, "float_type", ["history_interval_seconds"]),
    ({"history_interval_seconds": "inf"}, "finite_number", ["history_interval_seconds"]),
    ({"history_interval_seconds": "nan"}, "finite_number", ["history_interval_seconds"]),
    ({"history_interval_seconds": 8.64e13}, "less_than", ["history_interval_seconds"]),
    ({"history_interval_seconds": 10**400}, "float_type", ["history_interval_seconds"]),
    ({"flows": 5}, "model_attributes_type", ["flows"]),
    ({"flows": []}, "model_attributes_type", ["flows"]),
    (one("flows.foo", 1), "extra_forbidden", ["flows", "foo"]),
    (one("flows.tags.any_", ["a"]), "extra_forbidden", ["flows", "tags", "any_"]),
    (one("flows.id.operator", "and_"), "extra_forbidden", ["flows", "id", "operator"]),
    (one("flows.operator", None), "enum", ["flows", "operator"]),
    (one("flows.operator", "OR"), "enum", ["flows", "operator"]),
    (one("flows.operator", "and"), "enum", ["flows", "operator"]),
    (one("flows.id.any_", "x"), "list_type", ["flows", "id", "any_"]),
    (one("flows.id.any_", [ID, "x"]), "uuid_parsing", ["flows", "id", "any_", 1]),
    (one("flows.id.any_", [5]), "uuid_type", ["flows", "id", "any_", 0]),
    (one("flows.name.any_", "x"), "list_type", ["flows", "name", "any_"]),
    (one("flows.name.any_", [1]), "string_type", ["flows", "name", "any_", 0]),
    (one("flows.name.any_", [None]), "string_type", ["flows", "name", "any_", 0]),
    (one("flows.name.any_", [True]), "string_type", ["flows", "name", "any_", 0]),
    (one("flows.name.like_", 1), "string_type", ["flows", "name", "like_"]),
    (one("flows.name", "x"), "model_attributes_type", ["flows", "name"]),
    (one("flow_runs.state.type.any_", ["Completed"]), "enum", ["flow_runs", "state", "type", "any_", 0]),
    (one("flow_runs.state.type.any_", [None]), "enum", ["flow_runs", "state", "type", "any_", 0]),
    (one("flow_runs.expected_start_time.is_null_", True), "extra_forbidden",
     ["flow_runs", "expected_start_time", "is_null_"]),
    (one("flow_runs.next_scheduled_start_time.is_null_", True), "extra_forbidden",
     ["flow_runs", "next_scheduled_start_time", "is_null_"]),
    (one("flow_runs.parent_flow_run_id.is_null_", True), "extra_forbidden",
     ["flow_runs", "parent_flow_run_id", "is_null_"]),
    (one("flow_runs.start_time.before_", "x"), "value_error", ["flow_runs", "start_time", "before_"]),
    (one("flow_runs.start_time.before_", "now"), "value_error", ["flow_runs", "start_time", "before_"]),
    (one("task_runs.start_time.after_", False), "value_error", ["task_runs", "start_time", "after_"]),
    (one("task_runs.id.not_any_", [ID]), "extra_forbidden", ["task_runs", "id", "not_any_"]),
    (one("task_runs.tags.any_", ["a"]), "extra_forbidden", ["task_runs", "tags", "any_"]),
    (one("task_runs.state.type.not_any_", ["FAILED"]), "extra_forbidden",
     ["task_runs", "state", "type", "not_any_"]),
    (one("task_runs.state.name.not_any_", ["x"]), "extra_forbidden", ["task_runs", "state", "name", "not_any_"]),
    (one("task_runs.expected_start_time.is_null_", True), "extra_forbidden",
     ["task_runs", "expected_start_time", "is_null_"]),
    (one("task_runs.start_time.operator", "or_"), "extra_forbidden", ["task_runs", "start_time", "operator"]),
    (one("task_runs.subflow_runs.exists_", 2), "bool_parsing", ["task_runs", "subflow_runs", "exists_"]),
    (one("task_runs.subflow_runs.exists_", "maybe"), "bool_parsing", ["task_runs", "subflow_runs", "exists_"]),
    (one("task_runs.subflow_runs.exists_", []), "bool_type", ["task_runs", "subflow_runs", "exists_"]),
    (one("task_runs.name.any_", ["\ud800"]), "value_error", ["task_runs", "name", "any_", 0]),
    (one("task_runs.\ud800", 1), "string_unicode", ["task_runs"]),
    (one("deployments.concurrency_limit.ge_", 1.5), "int_from_float", ["deployments", "concurrency_limit", "ge_"]),
    (one("deployments.concurrency_limit.ge_", "x"), "int_parsing", ["deployments", "concurrency_limit", "ge_"]),
    (one("deployments.paused.eq_", "maybe"), "bool_parsing", ["deployments", "paused", "eq_"]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "kind", "loc"), REFUSED, ids=lambda value: ascii(value)[:60])
async def test_a_refused_body_says_what_and_where(client, service, change, kind, loc):
    body = GOOD | change
    answer = await client.post(HISTORY, content=json.dumps(body))
    assert answer.status_code == 422
    said = answer.json()
    assert list(said) == ["exception_message", "exception_detail", "request_body"]
    assert said["exception_message"] == "Invalid request received."
    assert [(error["type"], error["loc"]) for error in said["exception_detail"]] == [(kind, ["body", *loc])]
    assert said["request_body"] == body
    assert service.requests == []


async def test_all_errors_are_collected_in_declared_order(client):
    body = {
        "task_runs": {"foo": 1, "state": {"type": {"any_": ["x", "FAILED", "y"]}}, "bar": 2, "id": {"any_": 1}},
        "flows": 1,
        "history_end": "x",
        "history_interval_seconds": 0,
    }
    said = (await client.post(HISTORY, json=body)).json()["exception_detail"]
    assert [error["loc"][1:] for error in said] == [
        ["history_start"],
        ["history_end"],
        ["flows"],
        ["task_runs", "id", "any_"],
        ["task_runs", "state", "type", "any_", 0],
        ["task_runs", "state", "type", "any_", 2],
        ["task_runs", "foo"],
        ["task_runs", "bar"],
    ]
    assert said[0] == {"type": "missing", "loc": ["body", "history_start"], "msg": "Field required", "input": None}
    assert said[1]["ctx"] == {"error": {}}
    assert said[4]["ctx"]["expected"].startswith("'SCHEDULED'")
    assert said[6]["msg"] == "Extra inputs are not permitted"


@pytest.mark.parametrize("width", [0.9, 0, -5, 0.9999994, "0.5", False, -1e300])
async def test_a_width_below_a_second_has_a_body_of_its_own(client, width):
    answer = await client.post(HISTORY, json=GOOD | {"history_interval_seconds": width})
    assert answer.status_code == 422
    assert answer.json() == {"detail": "History interval must not be less than 1 second."}


@pytest.mark.parametrize(
    "body",
    [
        GOOD | {"history_interval_seconds": 8e12},
        GOOD | {"history_end": "9999-12-31T23:59:59.9Z", "history_start": "9999-12-31T23:59:59.5Z"},
    ],
)
async def test_a_bin_beyond_year_9999_is_refused(client, body):
    answer = await client.post(HISTORY, json=body)
    assert answer.status_code == 422
    assert "9999" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "missing"),
    [
        (b"", REQUIRED),
        (b"null", REQUIRED),
        (b"{}", REQUIRED),
        (b"[]", REQUIRED + FILTERS),
        (b'["a"]', REQUIRED + FILTERS),
        (b'"text"', REQUIRED + FILTERS),
        (b"5", REQUIRED + FILTERS),
    ],
)
async def test_bodies_that_are_no_object(client, body, missing):
    answer = await client.post(HISTORY, content=body)
    assert answer.status_code == 422
    said = answer.json()
    assert [(error["type"], error["loc"][1]) for error in said["exception_detail"]] == [("missing", n) for n in missing]
    assert said["request_body"] == json.loads(body or b"null")


@pytest.mark.parametrize(
    ("content", "offset"),
    [
        (b"{", 1),
        (b'{"a":1,}', 7),
        (b" ", 1),
        (b"\xff\xfe{", 0),
        (b'{"a": "\xff"}', 7),
        (b'{"history_interval_seconds": NaN}', 0),
        (b'{"history_interval_seconds": -Infinity}', 0),
        (b"1" * 5000, 0),
        (b"[" * 100_000, 0),
        (b"[" * 900 + b"]" * 900, 0),
        (b'{"a":' * 70 + b"1" + b"}" * 70, 0),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_what_is_no_json_is_said_with_its_offset(client, content, offset):
    answer = await client.post(HISTORY, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    (error,) = answer.json()["exception_detail"]
    assert (error["type"], error["input"], error["msg"]) == ("json_invalid", {}, "JSON decode error")
    assert error["loc"][0] == "body"
    assert error["loc"][1] == offset or content.startswith(b"\xff")
    assert set(error["ctx"]) == {"error"}


async def test_a_number_beyond_a_double_is_refused_and_shown_as_null(client):
    content = json.dumps(GOOD)[:-2] + "1e400}"
    answer = await client.post(HISTORY, content=content)
    assert answer.status_code == 422
    said = answer.json()
    assert said["exception_detail"][0]["type"] == "finite_number"
    assert said["request_body"]["history_interval_seconds"] is None


async def test_a_key_given_twice_keeps_its_last_value(client, service):
    content = json.dumps(GOOD)[:-1] + ', "history_interval_seconds": 0, "history_interval_seconds": 2}'
    assert (await client.post(HISTORY, content=content)).status_code == 200
    assert service.requests[-1].width_us == 2_000_000


async def test_unknown_keys_beside_the_filters_are_ignored(client):
    body = GOOD | {"work_pool_queues": {"bogus": 1}, "work_pools": 5, "work_queues": [1]}
    assert (await client.post(HISTORY, json=body)).status_code == 200


WIDTHS = [(1, 10**6), (1.5, 1_500_000), ("1.5", 1_500_000), (True, 10**6), ("1", 10**6), (4319.99995, 4_319_999_950)]


@pytest.mark.parametrize(("width", "expected"), WIDTHS)
async def test_widths_that_are_accepted(client, service, width, expected):
    assert (await client.post(HISTORY, json=GOOD | {"history_interval_seconds": width})).status_code == 200
    assert service.requests[-1].width_us == expected


TRUE_SPELLINGS = [True, 1, 1.0, "true", "TRUE", "t", "yes", "Y", "on", "1"]
FALSE_SPELLINGS = [False, 0, 0.0, "false", "F", "no", "n", "Off", "0"]


@pytest.mark.parametrize("value", TRUE_SPELLINGS + FALSE_SPELLINGS, ids=repr)
async def test_booleans_that_are_accepted(client, service, value):
    assert (await client.post(COUNT, json=one("task_runs.subflow_runs.exists_", value))).status_code == 200
    part = SubFilter("subflow_runs", values=(("exists_", any(value is each for each in TRUE_SPELLINGS)),))
    assert service.filters[-1] == Filters(task_runs=EntityFilter(parts=(part,)))


@pytest.mark.parametrize(
    "spelled", [ID, ID.upper(), ID.replace("-", ""), f"urn:uuid:{ID}", f"{{{ID}}}", ID.replace("-", "").upper()]
)
async def test_uuids_that_are_accepted(client, service, spelled):
    assert (await client.post(COUNT, json=one("flows.id.any_", [spelled, ID]))).status_code == 200
    part = SubFilter("id", values=(("any_", frozenset({ID_BYTES})),))
    assert service.filters[-1] == Filters(flows=EntityFilter(parts=(part,)))


@pytest.mark.parametrize("value", [1, 1.0, "1", " 1 ", None, True])
async def test_integers_that_are_accepted(client, value):
    assert (await client.post(COUNT, json=one("deployments.concurrency_limit.ge_", value))).status_code == 200


async def test_null_is_absent_and_empty_is_not(client, service):
    await client.post(COUNT, json={"flows": None, "flow_runs": {}, "task_runs": {"tags": None, "name": {"any_": None}}})
    assert service.filters[-1] == Filters(flow_runs=EntityFilter(), task_runs=EntityFilter(parts=(SubFilter("name"),)))


@pytest.mark.parametrize(("given", "held"), [({}, False), ({"is_null_": None}, None), ({"is_null_": True}, True)])
async def test_null_and_absent_differ_for_the_flow_run_id(client, service, given, held):
    await client.post(COUNT, json=one("task_runs.flow_run_id", given))
    assert service.filters[-1].task_runs == EntityFilter(
        parts=(SubFilter("flow_run_id", values=(("is_null_", held),)),)
    )


async def test_filters_that_mean_the_same_are_equal(client, service):
    await client.post(COUNT, json={"flow_runs": {"operator": "or_", "tags": {"any_": ["a", "b", "a"]}}})
    await client.post(COUNT, json={"flow_runs": {"tags": {"any_": ["b", "a"], "all_": None}, "operator": "or_"}})
    first, second = service.filters
    assert first == second
    assert hash(first) == hash(second)
    assert first.flow_runs.operator is Operator.OR


@pytest.mark.parametrize("content", [b"", b"null", b"{}"])
async def test_a_count_needs_no_body(client, service, content):
    answer = await client.post(COUNT, content=content)
    assert (answer.status_code, answer.json()) == (200, 7)
    assert service.filters[-1] == Filters()

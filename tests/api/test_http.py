"""Paths, methods, headers, content types, compression and errors."""

from __future__ import annotations

import json

import msgspec
import pytest

from runtally.api.encode import seconds
from runtally.core.combine import Entry
from runtally.errors import (
    BadRequestError,
    BusyError,
    LedgerTroubleError,
    NotReadyError,
    ServerLostError,
    TooLargeError,
)

from .fakes import Service, client_of
from .test_bodies import COUNT, GOOD, HISTORY


@pytest.mark.parametrize("path", [HISTORY, "/task_runs/history"])
async def test_an_answer_word_for_word(client, service, path):
    service.states = [
        Entry(("COMPLETED", 'Größe "1"'), 5, 12_500_000, 0),
        Entry(("RUNNING", "Running"), 1, 141_472_562_198_213, 3_456_000_000_000),
    ]
    answer = await client.post(
        path, json=GOOD | {"history_end": "2021-07-01T00:00:01Z", "history_interval_seconds": 1.5}
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.text == (
        '[{"interval_start":"2021-07-01T00:00:00Z","interval_end":"2021-07-01T00:00:01.500000Z","states":['
        '{"state_type":"COMPLETED","state_name":"Gr\\u00f6\\u00dfe \\"1\\"","count_runs":5,'
        '"sum_estimated_run_time":12.5,"sum_estimated_lateness":0.0},'
        '{"state_type":"RUNNING","state_name":"Running","count_runs":1,'
        '"sum_estimated_run_time":141472562.198213,"sum_estimated_lateness":3456000.0}]}]'
    )


async def test_an_answer_names_its_state_of_the_log(client):
    answer = await client.post(HISTORY, json=GOOD)
    assert answer.headers["x-runtally-at"] == "now=2021-07-01T00:00:00Z; ledger=c:3,2:20,10:1"
    assert "x-runtally-exact" not in answer.headers


async def test_an_inexact_answer_says_so(client, service):
    service.exact = False
    answer = await client.post(COUNT)
    assert answer.headers["x-runtally-exact"] == "false; frozen before 2021-06-30T23:59:59Z"


@pytest.mark.parametrize("end", ["2021-07-01T00:00:00Z", "2021-06-30T23:59:50Z"])
async def test_no_range_no_bins(client, end):
    answer = await client.post(HISTORY, json=GOOD | {"history_end": end, "history_interval_seconds": 8e13})
    assert (answer.status_code, answer.text) == (200, "[]")


async def test_a_range_relative_to_now(client):
    body = {"history_start": "-PT1M", "history_end": "now", "history_interval_seconds": 30}
    answer = (await client.post(HISTORY, json=body)).json()
    assert [each["interval_end"] for each in answer] == ["2021-06-30T23:59:30Z", "2021-07-01T00:00:00Z"]


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "0.0"),
        (1, "0.000001"),
        (10, "0.00001"),
        (1_200_000, "1.2"),
        (99, "0.000099"),
        (100, "0.0001"),
        (10**7, "10.0"),
        (10**15 - 1, "999999999.999999"),
        (10**15 + 1, "1000000000.000001"),
        (10**24 + 1, f"{10**18}.000001"),
    ],
)
def test_seconds_are_exact_and_always_have_a_fraction(us, text):
    assert msgspec.json.encode(seconds(us)) == text.encode()


@pytest.mark.parametrize("path", [HISTORY, "/task_runs/history", COUNT, "/task_runs/count", "/runtally/api/events"])
async def test_a_trailing_slash_is_redirected_and_other_methods_are_refused(client, path):
    answer = await client.post(f"{path}/", json={})
    assert (answer.status_code, answer.content) == (307, b"")
    assert answer.headers["location"].endswith(path)
    answer = await client.get(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json() == {"detail": "Method Not Allowed"}


@pytest.mark.parametrize("path", ["/nothing", "/api/nothing", "/health", "/version", "/api/task_runs"])
async def test_an_unknown_path(client, path):
    answer = await client.get(path)
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


async def test_small_routes(client):
    assert (await client.get("/api/health")).text == "true"
    assert (await client.head("/api/health")).status_code == 405
    assert (await client.get("/api/ready")).json() == {"message": "OK"}
    assert (await client.get("/api/version")).text == '"0.8.4"'
    assert (await client.get("/runtally/api/version")).json() == {"version": "0.1.0", "api_version": "0.8.4"}


async def test_ready_says_what_is_missing(client, service):
    service.trouble = NotReadyError("shard 3 has no ledger")
    answer = await client.get("/api/ready")
    assert (answer.status_code, answer.json()) == (503, {"message": "shard 3 has no ledger"})
    assert (await client.get("/api/health")).status_code == 200


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 200),
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("application/vnd.x+json", 200),
        ("text/plain", 422),
        ("application/x-www-form-urlencoded", 422),
        ("text/json", 422),
    ],
)
async def test_only_json_is_parsed(client, content_type, status):
    headers = {} if content_type is None else {"Content-Type": content_type}
    content = json.dumps(GOOD)
    answer = await client.post(HISTORY, content=content, headers=headers)
    assert answer.status_code == status
    if status == 422:
        said = answer.json()
        assert [error["type"] for error in said["exception_detail"]] == ["missing"] * 3
        assert said["request_body"] == content


VERSION = "X-PREFECT-API-VERSION"


@pytest.mark.parametrize("version", ["", "0.8.0", "0.8.4", "0.10.0", "1.0.0", "99.0.0"])
async def test_versions_that_pass(client, version):
    assert (await client.post(HISTORY, json=GOOD, headers={VERSION: version})).status_code == 200


@pytest.mark.parametrize("version", ["0.8", "0.8.4.1", "a.b.c", "0.8.x", "..", "1" * 5000 + ".0.0"])
async def test_a_malformed_version_is_refused_before_the_body(client, version):
    answer = await client.post(HISTORY, content=b"{", headers={VERSION: version})
    assert answer.status_code == 400
    assert answer.json()["detail"] == (
        f"Invalid X-PREFECT-API-VERSION header format.Expected header in format 'x.y.z' but received {version}"
    )


@pytest.mark.parametrize("version", ["0.7.9", "0.0.0", "-1.0.0"])
async def test_an_old_version_is_refused(client, version):
    answer = await client.post(COUNT, headers={VERSION: version})
    assert answer.status_code == 400
    assert answer.json()["detail"] == (
        f"The request specified API version {version} but this server requires version 0.8.0 or higher."
    )


async def test_health_and_version_ignore_the_version_header(client):
    for path in ("/api/health", "/api/version"):
        assert (await client.get(path, headers={VERSION: "x"})).status_code == 200


async def test_any_origin_may_read(client):
    answer = await client.post(HISTORY, json=GOOD, headers={"Origin": "http://dashboard"})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    assert "X-Runtally-At" in answer.headers["access-control-expose-headers"]
    refused = await client.post(HISTORY, json={}, headers={"Origin": "http://dashboard"})
    assert refused.headers["access-control-allow-origin"] == "*"


async def test_preflight(client):
    headers = {
        "Origin": "http://dashboard",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type, x-mine",
    }
    answer = await client.options(HISTORY, headers=headers)
    assert (answer.status_code, answer.text) == (200, "OK")
    assert answer.headers["access-control-allow-methods"] == "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
    assert answer.headers["access-control-max-age"] == "600"
    assert answer.headers["access-control-allow-headers"] == "content-type, x-mine"


async def test_long_answers_are_compressed_for_those_who_take_it(client):
    body = GOOD | {"history_end": "2021-07-01T00:01:00Z"}
    packed = await client.post(HISTORY, json=body, headers={"Accept-Encoding": "gzip"})
    plain = await client.post(HISTORY, json=body, headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content
    assert all("Accept-Encoding" in answer.headers["vary"] for answer in (packed, plain))
    short = await client.post(COUNT, headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in short.headers


async def test_a_body_over_the_limit():
    async def chunks():
        for _ in range(8):
            yield b" " * 512

    async with client_of(Service(), max_body="1KiB") as client:
        assert (await client.post(HISTORY, json=GOOD)).status_code == 200
        for content in (b" " * 1025, chunks()):
            answer = await client.post(HISTORY, content=content)
            assert answer.status_code == 413
            assert "1024 bytes" in answer.json()["detail"]


UNAVAILABLE = "Service Unavailable"
TROUBLES = [
    (BadRequestError("choose less"), 422, {"detail": "choose less"}, None),
    (TooLargeError("scan of 9 runs"), 422, {"detail": "scan of 9 runs"}, None),
    (NotReadyError("no ledger"), 503, {"exception_message": UNAVAILABLE, "detail": "no ledger"}, "2"),
    (BusyError("wait", 7), 503, {"exception_message": UNAVAILABLE, "detail": "wait"}, "7"),
    (ServerLostError("Redis"), 503, {"exception_message": UNAVAILABLE, "detail": "Redis"}, "5"),
    (LedgerTroubleError("3", "no"), 503, {"exception_message": UNAVAILABLE, "detail": "shard 3: no"}, "5"),
    (ValueError("secret"), 500, {"exception_message": "Internal Server Error"}, None),
]


@pytest.mark.parametrize("path", [HISTORY, COUNT])
@pytest.mark.parametrize(("trouble", "status", "body", "retry"), TROUBLES, ids=lambda value: type(value).__name__)
async def test_what_goes_wrong_behind(client, service, path, trouble, status, body, retry):
    service.trouble = trouble
    answer = await client.post(path, json=GOOD)
    assert (answer.status_code, answer.json(), answer.headers.get("retry-after")) == (status, body, retry)


async def test_the_service_lives_as_long_as_the_application(service):
    async with client_of(service):
        assert service.running
    assert not service.running


@pytest.mark.parametrize(
    ("content", "index"),
    [
        (b"[1]", 0),
        (b'{"entity":"task_run"', 0),
        (b'{"entity":"comet","action":"upsert","occurred":"2021-07-01T00:00:00Z","data":{}}', 0),
        (b"[", None),
    ],
)
async def test_bad_events_are_named_by_their_index(client, content, index):
    answer = await client.post("/runtally/api/events", content=content)
    assert answer.status_code == 422
    assert answer.json()["index"] == index


@pytest.mark.parametrize("content", [b" " * ((8 << 20) + 1), b"1\n" * 10_001])
async def test_too_many_events_at_once(client, content):
    assert (await client.post("/runtally/api/events", content=content)).status_code == 413


async def test_no_events_are_accepted_without_a_broker(client):
    answer = await client.post("/runtally/api/events", content=b"[]")
    assert (answer.status_code, answer.json()) == (202, {"accepted": 0, "ignored": 0})

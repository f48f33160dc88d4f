"""A request's events: all of them or none, and the bad one is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runtally.errors import BadEventError, TooLargeError
from runtally.events.intake import MAX_BODY_BYTES, MAX_EVENTS, check_all, read_body
from runtally.settings import Settings

from .samples import FLOW, FLOW_RUN, T_US, event, raw

EVENTS = [event(), event("flow"), event("flow_run", name="a\nb")]
NDJSON = b"\n".join(raw(each) for each in EVENTS)


@pytest.fixture
def told() -> Settings:
    return Settings(topic_prefix="t")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (json.dumps(EVENTS).encode(), "application/json"),
        (json.dumps(EVENTS, indent=2).encode(), "Application/JSON; charset=utf-8"),
        (b" \n" + json.dumps(EVENTS).encode() + b"\n", None),
        (NDJSON, "application/x-ndjson"),
        (NDJSON, "application/json"),
        (NDJSON, None),
        (NDJSON.replace(b"\n", b"\r\n\r\n") + b"\n", "application/jsonl"),
    ],
)
def test_an_array_and_lines_are_the_same_events(body: bytes, content_type: str | None) -> None:
    assert [json.loads(each) for each in read_body(body, content_type)] == EVENTS


def test_one_event_needs_no_array() -> None:
    body = json.dumps(event(), indent=2).encode()
    assert [json.loads(each) for each in read_body(body, "application/json")] == [event()]


@pytest.mark.parametrize("body", [b"", b" \n", b"[]"])
def test_nothing_is_no_events(body: bytes) -> None:
    assert read_body(body, None) == []


@pytest.mark.parametrize("body", [b"[", b"[1,]", b"[" * 100_000, b"[{}] x"])
def test_a_broken_array_is_bad_as_a_whole(body: bytes) -> None:
    with pytest.raises(BadEventError, match="not JSON: the body is no JSON array") as caught:
        read_body(body, "application/json")
    assert caught.value.index is None


def test_the_body_is_bounded() -> None:
    assert read_body(b"[" + b" " * (MAX_BODY_BYTES - 2) + b"]", None) == []
    with pytest.raises(TooLargeError, match="more than 8 MiB") as caught:
        read_body(b" " * (MAX_BODY_BYTES + 1), None)
    assert caught.value.status == 413


@pytest.mark.parametrize("separator", [b",", b"\n"])
def test_the_number_of_events_is_bounded(separator: bytes) -> None:
    def body(count: int) -> bytes:
        lines = separator.join([b"{}"] * count)
        return b"[" + lines + b"]" if separator == b"," else lines

    assert len(read_body(body(MAX_EVENTS), None)) == MAX_EVENTS
    with pytest.raises(TooLargeError, match="10,001 events") as caught:
        read_body(body(MAX_EVENTS + 1), None)
    assert caught.value.status == 413


def test_good_events_become_messages(told: Settings) -> None:
    heartbeat = {"event": "prefect.flow-run.heartbeat", "resource": {}, "payload": {}}
    lines = [raw(each) for each in (event(), event("flow"), heartbeat)]
    checked = check_all(lines, told, T_US)
    assert checked.ignored == 1
    assert checked.messages == [
        ("t.runs", FLOW_RUN.encode(), lines[0]),
        ("t.catalog", FLOW.encode(), lines[1]),
    ]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_first_bad_one_is_named(told: Settings, index: int) -> None:
    lines: list[Any] = [event(), event("flow"), event("flow_run")]
    lines[index]["data"]["id"] = 5
    lines.append([])
    with pytest.raises(BadEventError, match=rf"^event {index}: wrong type: data\.id: Expected") as caught:
        check_all([raw(each) for each in lines], told, T_US)
    assert (caught.value.index, caught.value.reason) == (index, "wrong type")


def test_an_event_that_kafka_would_not_take_is_too_large(told: Settings) -> None:
    def sized(size: int) -> bytes:
        return raw(event(name="x" * (size - len(raw(event(name=""))))))

    assert check_all([sized((1 << 20) - 1024)], told, T_US).messages
    with pytest.raises(BadEventError, match="event 0: over 1 MiB"):
        check_all([sized((1 << 20) - 1023)], told, T_US)


def test_the_clock_is_now_unless_said(told: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: (T_US - told.max_clock_skew) * 1000)
    assert check_all([raw(event("flow"))], told).messages
    monkeypatch.setattr("time.time_ns", lambda: (T_US - told.max_clock_skew - 1) * 1000)
    with pytest.raises(BadEventError, match="occurred lies further ahead"):
        check_all([raw(event("flow"))], told)

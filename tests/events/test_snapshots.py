"""Many messages at once mean what each of them means by itself."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtally.core.changes import Change
from runtally.errors import BadEventError
from runtally.events import snapshots, wire
from runtally.events.snapshots import parse_all
from runtally.events.wire import MAX_EVENT_BYTES, Ignored, Topic

from ..conftest import examples
from ..strategies import estates
from .samples import DATA, DAY_US, FLOW_RUN, PREFECT_EVENTS, RUN, STATE, T_US, T, event, raw
from .test_agreement import ANYTHING, JUNK

TEXTS = st.sampled_from(
    [
        *(T, T + "\0", T + "x", T.replace("Z", "+00:00"), T.replace("Z", "+00:00\0"), "2026-11-24T10:01:33.118Z"),
        *("2026-02-29T10:01:33.118006Z", "2026-12-31T23:59:59.999999Z", "2026-13-01T10:01:33.118006Z"),
        *("2026-11-00T10:01:33.118006Z", "2026-11-24T24:01:33.118006Z", "2026-11-24T10:60:33.118006Z"),
        *("1969-12-31T23:59:59.999999Z", "1969-11-30T00:00:00.000000Z", "0000-01-01T00:00:00.000000Z"),
        *("2199-12-31T23:59:59.999999Z", "2200-01-01T00:00:00.000000Z", "None"),
        *("2026-11-24T10:01:33.11800٦Z", "2026-11-27T10:01:33.118006Z", "2024-02-29T10:01:33.118006+00:00"),
        *(RUN, RUN.upper(), RUN + "\0", RUN[:-1] + "g", RUN.replace("-", "_"), RUN + "a", "é", "\0", ""),
    ]
)
NO_TIMES = (
    *("2026-02-29T10:01:33.118006Z", "2026-11-00T10:01:33.118006Z", "2026-11-31T10:01:33.118006Z"),
    *("2026-00-24T10:01:33.118006Z", "2026-13-24T10:01:33.118006Z", "2026-11-24T24:01:33.118006Z"),
    *("2026-11-24T10:60:33.118006Z", "2026-11-24T10:01:60.118006Z", "2026-11-24T10:01:33.11800x+00:00"),
    *("1969-12-31T23:59:59.999999Z", "1969-11-30T00:00:00.000000Z", "0000-01-01T00:00:00.000000Z"),
    *("2200-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"),
)
MESSAGES = (
    st.sampled_from(
        [None, b"", b"{}", b" " * (MAX_EVENT_BYTES + 1), b'{"entity":"task_run","action":"upsert","\xff":1}']
    )
    | st.sampled_from(PREFECT_EVENTS)
    | JUNK.map(lambda value: json.dumps(value).encode())
)


@st.composite
def events(draw: st.DrawFn) -> bytes:
    entity = draw(st.sampled_from(["task_run"] * 6 + ["flow_run", "flow"]))
    names = [*DATA[entity], *STATE, "flow_run_id", "child_flow_run_id", "start_time", "end_time", "expected_start_time"]
    over = draw(
        st.dictionaries(
            st.sampled_from([*names, "total_run_time", "tags"]),
            TEXTS | ANYTHING | st.floats(allow_nan=False, allow_infinity=False),
            max_size=3,
        )
    )
    message = event(entity, draw(st.sampled_from(["upsert"] * 6 + ["patch", "delete"])), **over)
    if draw(st.integers(0, 9)) == 0:
        message["occurred"] = draw(TEXTS)
    return json.dumps(message, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


def one_by_one(values: list[bytes | None], topic: Topic, records_us: list[int]) -> list[Any]:
    found: list[Any] = []
    for value, record_us in zip(values, records_us, strict=True):
        try:
            found.append(wire.parse(value, topic=topic, record_us=record_us, max_clock_skew_us=DAY_US))
        except BadEventError as error:
            found.append(error)
    return found


def same(values: list[bytes | None], topic: Topic, records_us: list[int]) -> None:
    found = parse_all(values, topic=topic, records_us=records_us, max_clock_skew_us=DAY_US)
    for ours, theirs in zip(found, one_by_one(values, topic, records_us), strict=True):
        assert type(ours) is type(theirs)
        if isinstance(ours, BadEventError):
            assert (ours.reason, ours.detail) == (theirs.reason, theirs.detail)
        else:
            assert ours == theirs
            assert types_of(ours) == types_of(theirs)


def types_of(value: Any) -> Any:
    return [type(value), *map(types_of, value)] if isinstance(value, tuple) else type(value)


@examples(2000)
@given(
    st.lists(
        st.tuples(events() | MESSAGES, st.sampled_from([T_US, T_US - DAY_US // 2, T_US - 3 * DAY_US])),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from(get_args(Topic)),
)
def test_any_messages_together_are_what_each_is_alone(messages: list[tuple[bytes | None, int]], topic: Topic) -> None:
    for few in (0, len(messages)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(snapshots, "_FEW", few)
            same([value for value, _ in messages], topic, [record_us for _, record_us in messages])


@examples(200)
@given(estates())
def test_estates_together_are_what_each_event_is_alone(told: list[dict[str, Any]]) -> None:
    same([raw(each) for each in told], "runs", [T_US] * len(told))


def test_a_bad_one_among_many_is_the_only_bad_one() -> None:
    good = raw(event(flow_run_id=FLOW_RUN, start_time=T))
    values: list[bytes | None] = [good] * 40
    values[17] = raw(event(start_time="yesterday"))
    for at, time in enumerate(NO_TIMES):
        values[at] = raw(event(start_time=time))
    values[23] = raw(event("flow_run", state_type="RUNNING"))
    values[29] = PREFECT_EVENTS[0]
    found = parse_all(values, topic="runs", records_us=[T_US] * 40, max_clock_skew_us=DAY_US)
    wrong = [*range(len(NO_TIMES)), 17, 23]
    assert [at for at, one in enumerate(found) if isinstance(one, BadEventError)] == wrong
    assert all(isinstance(one, Change | Ignored) for at, one in enumerate(found) if at not in wrong)
    assert parse_all([], topic="runs", records_us=[], max_clock_skew_us=DAY_US) == []

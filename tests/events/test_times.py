"""Times are exact to the µs, and what is no time is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runtally.errors import BadEventError
from runtally.events.times import LAST_US, NULL, duration_us, micros, micros_of

from ..conftest import examples
from ..reference.times import event_time_us

INSTANTS = st.integers(0, LAST_US - 1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@examples(4000)
@given(INSTANTS, st.integers(-1439, 1439), st.sampled_from("Tt "), st.text("0123456789", max_size=4))
@example(0, 0, "T", "")
@example(LAST_US - 1, 1439, " ", "9999")
def test_every_microsecond_of_the_range_comes_out_exactly(us: int, offset_min: int, separator: str, more: str) -> None:
    there = (EPOCH + timedelta(microseconds=us)).astimezone(timezone(timedelta(minutes=offset_min)))
    text = there.isoformat(separator, "microseconds")
    assert micros(text[:26] + more + text[26:], "x") == us
    # The second time the minute is known.
    assert micros(text[:26] + more + text[26:], "x") == us


@examples(1000)
@given(st.lists(st.none() | st.tuples(INSTANTS, st.sampled_from(["Z", "+00:00", "z", "-00:00"])), max_size=30))
@example([(0, "Z"), (LAST_US - 1, "Z")])
@example([(951_782_400_000_000, "+00:00"), None, (4_107_542_399_999_999, "Z")])
def test_many_at_once_are_what_each_is_alone(told: list[tuple[int, str] | None]) -> None:
    texts = [
        one and (EPOCH + timedelta(microseconds=one[0])).isoformat(timespec="microseconds")[:26] + one[1]
        for one in told
    ]
    assert micros_of(texts).tolist() == [NULL if one is None else one[0] for one in told]


@examples(4000)
@given(INSTANTS, st.integers(0, 6))
def test_fewer_digits_are_the_same_instant(us: int, digits: int) -> None:
    us -= us % 10 ** (6 - digits)
    text = (EPOCH + timedelta(microseconds=us)).isoformat(timespec="microseconds")
    short = text[: 19 + digits + (digits > 0)]
    assert {micros(short + offset, "x") for offset in ("Z", "z", "+00:00", "-00:00")} == {us}


@examples(4000)
@given(
    st.from_regex(r"\A(20|19|22)\d\d-[01]\d-[0-3]\d[T ][0-2]\d:[0-6]\d:[0-6]\d(\.\d{1,8})?(Z|[+-][0-2]\d:[0-6]\d)\Z")
)
def test_what_the_reference_refuses_is_refused(text: str) -> None:
    try:
        expected = event_time_us(text)
    except ValueError:
        with pytest.raises(BadEventError):
            micros(text, "x")
    else:
        assert micros(text, "x") == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "2026-11-24", "2026-11-24T10:01Z", "2026-11-24T10:01:33", "20261124T100133Z", "2026-W48-2T10:01:33Z"),
        *("2026-11-24T24:00:00Z", "2026-11-24T10:60:00Z", "2026-11-24T10:01:60Z", "2026-11-24T10:01:33,5Z"),
        *(
            "2026-11-24T10:01:33.Z",
            "2026-11-24T10:01:33+0530",
            "2026-11-24T10:01:33+24:00",
            "2026-11-24T10:01:33+00:60",
        ),
        *("2026-02-29T00:00:00Z", "2026-11-24T10:01:33.118006Z ", "٢٠٢٦-11-24T10:01:33Z", "2026-11-24_10:01:33Z"),
        *("2026-11-24T10:01:33.118006Zx", "2026-11-24T10:01:33.11800Z6", "2026-11-24T10:01:3٣.118006Z"),
    ],
)
def test_no_other_spelling_is_a_time(text: str) -> None:
    micros("2026-11-24T10:01:33.118006Z", "x")
    with pytest.raises(BadEventError, match="x is no time with an offset"):
        micros(text, "x")


def test_seconds_become_microseconds_by_rounding() -> None:
    assert [duration_us(each, "x") for each in (0, 1, 2.5e-6, 0.1, -1.25, 3_155_760_000)] == [
        0,
        1_000_000,
        2,
        100_000,
        -1_250_000,
        3_155_760_000_000_000,
    ]
    for each in (3_155_760_001, -1e300, 1e308):
        with pytest.raises(BadEventError, match="x is longer than 100 years"):
            duration_us(each, "x")

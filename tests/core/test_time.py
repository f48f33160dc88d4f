"""Instants, durations and widths as requests spell them (the specification's tables)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtally.core.request import (
    FIRST_INSTANT_US,
    LAST_INSTANT_US,
    NOW,
    BeforeEnd,
    HistoryRequest,
    width_of,
)
from runtally.core.time import end_of, instant_of, start_of, text_of
from runtally.errors import BadRequestError

JULY = 1_625_097_600_000_000

ACCEPTED = [
    ("2021-07-01T00:00:00Z", JULY),
    ("2021-07-01t00:00:00z", JULY),
    ("2021-07-01 00:00:00+00:00", JULY),
    ("2021-07-01T00:00:00", JULY),
    ("2021-07-01 00:00:00", JULY),
    ("2021-07-01", JULY),
    ("2021-07-01T00:00Z", JULY),
    ("2021-07-01T00:00", JULY),
    ("2021-07-01T02:00:00+02:00", JULY),
    ("2021-06-30T18:30:00-0530", JULY),
    ("2021-07-01T00:00:00.1Z", JULY + 100_000),
    ("2021-07-01T00:00:00,123Z", JULY + 123_000),
    ("2021-07-01T00:00:00.1239999Z", JULY + 123_999),
    ("2021-07-01T00:00:00.123456789", JULY + 123_456),
    (1_625_097_600, JULY),
    (1_625_097_600.5, JULY + 500_000),
    (1_625_097_600.123456, JULY + 123_456),
    ("1625097600", JULY),
    ("1625097600.25", JULY + 250_000),
    (1_625_097_600_000, JULY),
    ("1625097600000", JULY),
    (1_625_097_600_000.5, JULY + 500),
    (20_000_000_000, 20_000_000_000_000_000),
    (20_000_000_001, 20_000_000_001_000),
    (-1, -1_000_000),
    (0, 0),
    ("0001-01-01T00:00:00Z", FIRST_INSTANT_US),
    ("9999-12-31T23:59:59.999999Z", LAST_INSTANT_US),
]
REFUSED = [
    "",
    " 2021-07-01T00:00:00Z",
    "2021-07-01T00:00:00Z ",
    "2021-07-01T00:00:00 Z",
    "2021-07-01T00:00:00Z\n",
    "2021-07-01T24:00:00Z",
    "2021-07-01T00:00:60Z",
    "2021-07-01T00:60:00Z",
    "2021-02-30",
    "2021-13-01",
    "2021-07-01T00:00:00[Europe/Paris]",
    "2021-07-01T00:00:00+02:00[Europe/Paris]",
    "Thu, 01 Jul 2021 00:00:00 GMT",
    "10000-01-01T00:00:00Z",
    "0000-01-01",
    "0001-01-01T00:00:00+02:00",
    "9999-12-31T23:59:59-01:00",
    "2021-07-01T00:00:00+24:00",
    "2021-07-01T00:00:00+02:60",
    "٢٠٢١-07-01",
    "now",
    "-PT1H",
    "nan",
    "inf",
    True,
    False,
    None,
    {},
    [],
    float("nan"),
    float("inf"),
    -float("inf"),
    1e300,
    10**400,
    253_402_300_800_000,
    "9" * 5000,
]


@pytest.mark.parametrize(("spelled", "expected"), ACCEPTED, ids=str)
def test_accepted_spellings(spelled, expected):
    assert instant_of(spelled) == expected


@pytest.mark.parametrize("spelled", REFUSED, ids=lambda value: repr(value)[:40])
def test_refused_spellings(spelled):
    with pytest.raises(ValueError):
        instant_of(spelled)


@pytest.mark.parametrize(
    ("spelled", "expected"),
    [
        ("-PT24H", 86_400_000_000),
        ("-P7D", 7 * 86_400_000_000),
        ("-P2W", 14 * 86_400_000_000),
        ("-P1DT1H1M1.5S", 90_061_500_000),
        ("-PT0S", 0),
    ],
)
def test_a_start_may_be_a_duration_before_the_end(spelled, expected):
    assert start_of(spelled) == BeforeEnd(expected)


@pytest.mark.parametrize(
    "spelled", ["-P", "-PT", "-P1DT", "-P1M", "-P1Y", "PT1H", "-PT1.5H", "-P1W1D", "-pt1h", "-PT1H "]
)
def test_other_durations_are_refused(spelled):
    with pytest.raises(ValueError):
        start_of(spelled)


def test_an_end_may_be_now():
    assert end_of("now") is NOW
    assert end_of("2021-07-01") == JULY
    with pytest.raises(ValueError):
        end_of("Now")
    with pytest.raises(ValueError):
        start_of("now")


@pytest.mark.parametrize(
    ("instant", "expected"),
    [
        (JULY, "2021-07-01T00:00:00Z"),
        (JULY + 1_500_000, "2021-07-01T00:00:01.500000Z"),
        (JULY + 123_000, "2021-07-01T00:00:00.123000Z"),
        (FIRST_INSTANT_US, "0001-01-01T00:00:00Z"),
        (LAST_INSTANT_US, "9999-12-31T23:59:59.999999Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
    ],
)
def test_instants_are_written_in_utc(instant, expected):
    assert text_of(instant) == expected


@given(st.integers(FIRST_INSTANT_US, LAST_INSTANT_US))
def test_what_is_written_reads_as_itself(instant):
    assert instant_of(text_of(instant)) == instant


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (4319.99995, 4_319_999_950),
        (1.0000005, 1_000_001),
        (1.0000015, 1_000_001),
        (3.0000025, 3_000_002),
        (0.9999999, 1_000_000),
        (1, 1_000_000),
    ],
)
def test_widths_are_rounded_half_to_even(seconds, expected):
    assert width_of(seconds) == expected


@given(st.floats(1, 8e13))
def test_widths_are_python_s_timedelta(seconds):
    assert width_of(seconds) == timedelta(seconds=seconds) // timedelta(microseconds=1)


@pytest.mark.parametrize("seconds", [0.9999994, 0.9, 0, -1, -1e300])
def test_less_than_a_second_is_refused(seconds):
    with pytest.raises(BadRequestError, match=r"^History interval must not be less than 1 second\.$"):
        width_of(seconds)


def test_a_relative_range_follows_the_clock():
    bins = HistoryRequest(BeforeEnd(3_600_000_000), NOW, 60_000_000).resolve(JULY)
    assert (bins.start, bins.width, bins.count) == (JULY - 3_600_000_000, 60_000_000, 60)


@pytest.mark.parametrize(
    "request_",
    [
        HistoryRequest(LAST_INSTANT_US - 1, LAST_INSTANT_US, 1_000_000),
        HistoryRequest(0, 1, 8_600_000_000_000_000_000_0),
        HistoryRequest(BeforeEnd(10**18), 0, 1_000_000),
    ],
)
def test_bins_outside_the_calendar_are_refused(request_):
    with pytest.raises(BadRequestError):
        request_.resolve(0)


def test_bins_that_are_not_emitted_may_lie_anywhere():
    bins = HistoryRequest(0, 0, 10**19).resolve(0)
    assert bins.count == 0
    assert len(bins.edges()) == 1

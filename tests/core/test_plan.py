"""A cover names every run of the bins once, with few buckets."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from runtally.core.bins import Bins
from runtally.core.levels import COARSEST, LEVELS
from runtally.core.plan import Cover, cover, days_between

DAY = COARSEST.width_us
BASE = 20_600 * DAY


def cover_of(bins: Bins, now: int, days: Iterable[int]) -> Cover:
    return cover(days, [*bins.edges(), now], (bins.start, bins.end))


@given(
    st.integers(-2 * DAY, 2 * DAY),
    st.integers(1_000_000, 3 * DAY),
    st.integers(0, 40),
    st.integers(-3 * DAY, 3 * DAY),
    st.lists(st.integers(0, 10 * DAY), max_size=20),
)
def test_every_instant_of_the_bins_lies_in_exactly_one_bucket_of_the_cover(
    start: int, width: int, count: int, now: int, offsets: list[int]
) -> None:
    bins = Bins(BASE + start, width, count)
    chosen = cover_of(bins, BASE + now, days_between(bins.start, bins.end) if count else [])
    for offset in offsets:
        time = bins.start + offset
        hits = sum(int(np.isin(time // level.width_us, chosen[level.number])) for level in LEVELS)
        if time < bins.end:
            assert hits == 1
        else:
            assert hits <= 1


@given(st.integers(0, DAY), st.integers(1_000_000, 2 * DAY), st.integers(1, 40), st.integers(-DAY, 3 * DAY))
def test_no_cut_divides_a_bucket_coarser_than_a_minute(start: int, width: int, count: int, now: int) -> None:
    bins = Bins(BASE + start, width, count)
    cuts = np.append(bins.edges(), BASE + now)
    chosen = cover_of(bins, BASE + now, days_between(bins.start, bins.end))
    for level in LEVELS[1:]:
        for bucket in chosen[level.number].tolist():
            begin = bucket * level.width_us
            assert not ((cuts > begin) & (cuts < begin + level.width_us)).any()


def test_an_unaligned_week_in_20_bins_needs_a_few_hundred_buckets() -> None:
    bins = Bins(BASE + 123_456_789, 7 * DAY // 20, 20)
    chosen = cover_of(bins, bins.end, days_between(bins.start, bins.end))
    assert sum(map(len, chosen)) < 500


def test_days_that_hold_nothing_cost_nothing() -> None:
    bins = Bins(0, 36_525 * DAY, 2)
    chosen = cover_of(bins, BASE, [20_600])
    assert sum(map(len, chosen)) <= 1


def test_bins_are_capped_and_none_when_the_end_is_not_after_the_start() -> None:
    assert Bins.of(0, 10 * DAY, 60_000_000).count == 500
    assert Bins.of(5, 5, 1_000_000).count == 0
    assert Bins.of(5, 4, 1_000_000).count == 0
    assert Bins.of(0, 1_000_001, 1_000_000).count == 2
    assert Bins.of(0, 1_000_000, 1_000_000).count == 1

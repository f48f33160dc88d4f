"""Folding, storing and lifting cells keeps their sums exact and their bounds true."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtally.core.bins import Bins
from runtally.core.cells import CELL, Kinds, Sums, merged, of_level, pack, summed, unpack
from runtally.core.compare import differences
from runtally.core.fold import fold
from runtally.core.groups import FLAG_BITS, OTHER, STARTED, States
from runtally.core.levels import LEVELS
from runtally.core.plan import undecided
from runtally.core.rows import NULL, Rows, concat
from runtally.core.scopes import ALL

STATES = States([("RUNNING", "Running"), ("COMPLETED", "Completed"), ("SCHEDULED", "Late")])
BASE = 1_780_000_000_000_000
LAST = 7_258_118_399_999_999


def at_edges() -> st.SearchStrategy[int]:
    """Times close to where buckets of some level begin or end, and far ones."""
    near = st.builds(
        lambda level, step, off: (BASE // level.width_us + step) * level.width_us + off,
        st.sampled_from(LEVELS),
        st.integers(0, 2),
        st.sampled_from([-1, 0, 1]),
    )
    return near | st.sampled_from([0, 1, LAST])


RUN = st.tuples(
    at_edges() | st.just(NULL),
    at_edges() | st.just(NULL),
    at_edges(),
    st.sampled_from([0, 1, -1, 5_000_000, -5_000_000, 3_155_760_000_000_000, -3_155_760_000_000_000]),
    st.integers(0, len(STATES) - 1),
    st.integers(0, 7),
)
RUNS = st.lists(RUN, max_size=12)


def rows_of(runs: list[tuple[int, ...]]) -> Rows:
    table = np.array(runs, dtype=object).reshape(-1, 6).T
    expected, start, state_time, total, state, flags = (column.astype(np.int64) for column in table)
    group = (state << FLAG_BITS) | (flags << 1) | np.where(start != NULL, STARTED, 0)
    return Rows(expected, start, state_time, total, group.astype(np.uint32))


def empty(level: int) -> Sums:
    nothing = np.zeros(0, np.int64)
    return unpack(np.zeros(0, CELL), nothing, nothing, level)


def change_of(new: Rows, old: Rows) -> list[Sums]:
    """The change to the scope `all`; the rows are in two cohorts."""
    cohorts = np.concatenate([new.total, old.total]) % 2
    change = fold(concat([new, old]), len(new), cohorts, {ALL: np.zeros(2, np.int64)}, STATES.type_codes)
    return [of_level(change, level.number) for level in LEVELS]


def folded(rows: Rows) -> list[Sums]:
    return [merged(empty(level), sums) for level, sums in enumerate(change_of(rows, rows_of([])))]


def stored(sums: Sums, level: int) -> Sums:
    """Through Redis' form and back."""
    return unpack(pack(sums, level), sums.bucket, sums.scope, level)


@given(RUNS, RUNS, RUNS)
def test_cells_after_changes_equal_cells_made_anew(kept: list, gone: list, came: list) -> None:
    before = [stored(sums, level) for level, sums in enumerate(folded(rows_of(kept + gone)))]
    change = change_of(rows_of(came), rows_of(gone))
    anew = folded(rows_of(kept + came))
    for level in range(len(LEVELS)):
        after = stored(merged(before[level], change[level]), level)
        assert differences(after, anew[level], STATES) == []


@given(RUNS, RUNS)
def test_many_rows_change_cells_as_few_do(came: list, gone: list) -> None:
    few = change_of(rows_of(came), rows_of(gone))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runtally.core.fold._FEW", -1)
        many = change_of(rows_of(came), rows_of(gone))
    for one, other in zip(map(summed, few), map(summed, many), strict=True):
        # How large the parts of a sum were depends on how they were added up.
        one.size = other.size
        assert (one.table == other.table).all()


@given(RUNS)
def test_bounds_do_not_loosen_by_being_read_and_written_again(runs: list) -> None:
    for level, sums in enumerate(folded(rows_of(runs))):
        cells = pack(sums, level)
        assert pack(unpack(cells, sums.bucket, sums.scope, level), level).tobytes() == cells.tobytes()


@given(RUNS)
def test_bounds_hold_every_run_and_sums_are_those_of_the_rows(runs: list) -> None:
    rows = rows_of(runs)
    kinds = Kinds(rows.group, STATES.type_codes)
    for level, sums in zip(LEVELS, folded(rows), strict=True):
        back = stored(sums, level.number)
        for at in range(len(back)):
            bucket = int(back.bucket[at])
            timed = rows.expected != NULL
            in_bucket = np.where(timed, rows.expected // level.width_us == bucket, bucket == -1)
            mine = rows.take(in_bucket & (rows.group == back.group[at]))
            running = kinds.running[in_bucket & (rows.group == back.group[at])]
            assert int(back.n[at]) == len(mine)
            if bucket >= 0:
                assert back.expected_lo[at] <= mine.expected.min()
                assert back.expected_hi[at] >= mine.expected.max()
                assert back.expected_lo[at] >= bucket * level.width_us
                assert back.expected_hi[at] < (bucket + 1) * level.width_us
            if back.group[at] & STARTED:
                assert back.start_lo[at] <= mine.start.min()
                assert back.start_hi[at] >= mine.start.max()
            if running.any():
                assert back.turn_hi[at] >= (mine.state_time - mine.total).max()


def test_a_sum_that_would_leave_64_bits_makes_the_cell_wide_not_wrong() -> None:
    run = (BASE, BASE, BASE, 3_155_760_000_000_000, 3, 0)
    sums = folded(rows_of([run] * 2000))[0]
    assert sums.wide.all()
    assert sums.n.tolist() == [2000]


def test_a_state_past_the_cap_is_never_believed() -> None:
    sums = folded(rows_of([(BASE, NULL, BASE, 0, OTHER, 0)]))[0]
    assert sums.wide.all()


@given(RUNS, RUNS)
def test_taking_back_what_was_added_leaves_nothing(kept: list, passing: list) -> None:
    nothing = rows_of([])
    added = change_of(rows_of(passing), nothing)
    taken = change_of(nothing, rows_of(passing))
    for level, sums in enumerate(folded(rows_of(kept))):
        after = merged(merged(sums, added[level]), taken[level])
        assert differences(after, sums, STATES) == []


def test_concat_of_nothing_is_empty() -> None:
    assert len(concat([])) == 0


def test_a_cell_with_a_run_that_is_expected_just_now_is_undecided_until_now_has_passed() -> None:
    begin = BASE // LEVELS[0].width_us * LEVELS[0].width_us
    early, late = begin + 15_000_000, begin + 30_000_000
    scheduled = STATES.number(("SCHEDULED", "Late"))
    cells = folded(rows_of([(when, NULL, BASE, 0, scheduled, 0) for when in (early, late)]))[0]
    kinds, bins = Kinds(cells.group, STATES.type_codes), Bins(begin, LEVELS[0].width_us, 1)
    when = (early, early + 1, late, late + 1)
    assert [undecided(cells, kinds, bins, now).tolist() for now in when] == [[False], [True], [True], [False]]

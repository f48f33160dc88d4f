"""What is stored is what comes back."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from runtally.core.changes import TASK_RUN, Change
from runtally.core.groups import NO_STATE, OTHER, States
from runtally.core.versions import Stored, merge
from runtally.store.records import decode_entity, decode_task_run, encode_entity, encode_task_run, minute_of

STATES = States([("RUNNING", "Running"), ("COMPLETED", "Fertig ✓")])
TIME = st.integers(0, 7_258_118_399_999_999)
FIELDS: list[st.SearchStrategy] = [
    st.tuples(st.sampled_from(["RUNNING", "COMPLETED"]), st.sampled_from(["Running", "Fertig ✓", "beyond"]), TIME),
    TIME | st.none(),
    TIME | st.none(),
    st.integers(-(10**15), 10**15) | st.none(),
    st.text() | st.none(),
    st.lists(st.text(), max_size=3).map(tuple),
    TIME | st.none(),
    st.binary(min_size=16, max_size=16) | st.none(),
]


@st.composite
def task_runs(draw: st.DrawFn) -> Stored:
    stored: Stored | None = None
    for _ in range(draw(st.integers(1, 4))):
        mask = draw(st.just(TASK_RUN.all_given) | st.integers(0, TASK_RUN.all_given))
        if mask & 0b1111:
            mask |= 1
        values = tuple(draw(s) if mask >> at & 1 else None for at, s in enumerate(FIELDS))
        occurred = draw(TIME)
        if draw(st.booleans()) and values[0] is not None:
            occurred = values[0][2]
        change = Change("task_run", "patch", bytes(16), None, occurred, mask, values)
        stored = merge(TASK_RUN, stored, change)
    assert stored is not None
    return stored


@given(task_runs(), st.none() | st.binary(min_size=16, max_size=16))
def test_a_task_run_comes_back_with_its_versions(stored: Stored, flow_run: bytes | None) -> None:
    state = stored.values[0]
    number = NO_STATE if state is None else STATES.number(state[:2])
    record = encode_task_run(stored, OTHER if number is None else number, flow_run)
    assert decode_task_run(record, STATES.names) == stored
    expected = stored.values[6]
    assert minute_of(record) == (-1 if expected is None else expected // 60_000_000)


@given(task_runs(), st.randoms(use_true_random=False))
def test_other_entities_come_back_with_their_versions(stored: Stored, rng: random.Random) -> None:
    assert decode_entity(encode_entity(stored), len(TASK_RUN.state_fields)) == stored

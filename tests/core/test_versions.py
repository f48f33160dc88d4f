"""Order of arrival, duplicates and ties do not matter."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from runtally.core.changes import ENTITIES, Change, Entity, canonical
from runtally.core.versions import NEVER, Stored, field_versions, merge

TIMES = st.integers(0, 3)
WORDS = st.sampled_from([None, "a", "b", "ü"])
STATES = st.tuples(st.sampled_from(["RUNNING", "COMPLETED"]), st.sampled_from(["x", "y"]), TIMES)


@st.composite
def changes(draw: st.DrawFn, entity: Entity) -> Change:
    snapshot = draw(st.booleans())
    states = len(entity.state_fields)
    stateless = states and entity.name == "flow_run" and draw(st.booleans())
    mask = entity.all_given if snapshot else draw(st.integers(0, entity.all_given))
    if states and mask & ((1 << states) - 1):
        mask |= 1
    values = []
    for number in range(len(entity.fields)):
        if not mask >> number & 1 or (stateless and snapshot and number < states):
            values.append(None)
        elif number == 0 and states:
            values.append(draw(STATES))
        else:
            values.append(draw(TIMES if number < states else WORDS))
    return Change(entity.name, "upsert" if snapshot else "patch", bytes(16), None, draw(TIMES), mask, tuple(values))


@st.composite
def histories(draw: st.DrawFn) -> tuple[Entity, list[Change], random.Random]:
    entity = draw(st.sampled_from(list(ENTITIES.values())))
    return entity, draw(st.lists(changes(entity), min_size=1, max_size=6)), draw(st.randoms(use_true_random=False))


def merged(entity: Entity, history: list[Change]) -> Stored:
    stored: Stored | None = None
    for change in history:
        stored = merge(entity, stored, change)
    assert stored is not None
    return stored


@given(histories())
def test_any_order_with_any_duplicates_gives_the_same(case: tuple[Entity, list[Change], random.Random]) -> None:
    entity, history, rng = case
    shuffled = history + [rng.choice(history) for _ in range(3)]
    rng.shuffle(shuffled)
    assert merged(entity, shuffled) == merged(entity, history)


@given(histories())
def test_each_field_is_the_greatest_of_its_versions_then_bytes(
    case: tuple[Entity, list[Change], random.Random],
) -> None:
    entity, history, _ = case
    stored = merged(entity, history)
    states = len(entity.state_fields)
    for number in range(len(entity.fields)):
        said = []
        for change in history:
            if change.given >> number & 1:
                state = change.values[0]
                version = (
                    (NEVER if state is None else state[2], change.occurred) if number < states else change.occurred
                )
                said.append((version, canonical(change.values[number]), change.values[number]))
        if said:
            version, _, value = max(said, key=lambda entry: entry[:2])
            assert stored.values[number] == value
            assert field_versions(entity, stored)[number] == version
        else:
            assert stored.values[number] is None


@given(histories())
def test_a_change_that_says_nothing_newer_returns_the_same_object(
    case: tuple[Entity, list[Change], random.Random],
) -> None:
    entity, history, _ = case
    stored = merged(entity, history)
    for change in history:
        assert merge(entity, stored, change) is stored


def test_null_loses_every_tie() -> None:
    assert canonical(None) < canonical("") < canonical("a")

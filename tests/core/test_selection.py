"""The predicate tree selects what the naive reference selects, for estates and filters of every shape."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from runtally.api.models import CountBody, HistoryBody, filters_of
from runtally.core.groups import FLAG_BITS, OTHER, States
from runtally.core.predicate import atoms, compile_filters, evaluate
from runtally.core.selection import Extent, expected_range, selection_of, verdict
from tests.conftest import examples
from tests.reference import Reference
from tests.reference.filters import selection
from tests.strategies import estates, requests

COLUMNS_OF_NOBODY = {
    "flow_run": {},
    "flow": {"flow.exists": False},
    "deployment": {"deployment.exists": False},
}


def as_evaluated(joined: dict[str, dict[str, Any] | None]) -> dict[str, Any]:
    """A row of the reference as `evaluate` takes it."""
    row: dict[str, Any] = {}
    for entity, columns in joined.items():
        if columns is None:
            row |= COLUMNS_OF_NOBODY[entity]
            continue
        for name, value in columns.items():
            is_id = (name == "id" or name.endswith("_id")) and value is not None
            row[f"{entity}.{name}"] = uuid.UUID(value).bytes if is_id else value
        row[f"{entity}.exists"] = True
    if joined["flow_run"] is not None:
        run = joined["flow_run"]
        row["flow_run.start_or_expected"] = (
            run["expected_start_time"] if run["start_time"] is None else run["start_time"]
        )
        row["flow_run.created_by_id"], row["flow_run.created_by_type"] = run["created_by"] or (None, None)
    if joined["flow"] is not None:
        row["flow.any_deployment"] = b"some" if joined["flow"]["has_deployment"] else None
    return row


@pytest.mark.property
@examples(200)
@given(estates(), requests(50))
def test_the_tree_selects_what_the_reference_selects(events, questions):
    reference = Reference()
    for event in events:
        reference.apply(event)
    joined = reference.task_runs()
    rows = [as_evaluated(each) for each in joined]
    for body, _ in questions:
        given_ = {name: value for name, value in body.items() if value is not None}
        tree = compile_filters(filters_of(HistoryBody.model_validate(given_)))
        expected = [selection(body, short_cut=True)(each) for each in joined]
        assert [evaluate(tree, row) is True for row in rows] == expected, list(atoms(tree))


def compiled(body: dict[str, Any]):
    return selection_of(compile_filters(filters_of(CountBody.model_validate(body))))


def test_only_a_range_that_all_runs_must_lie_in_narrows_the_bins():
    task_runs = {
        "expected_start_time": {"after_": "1970-01-01T00:00:03Z", "before_": "1970-01-01T00:00:05Z"},
        "state": {"name": {"any_": ["Late"]}},
    }
    assert expected_range(compiled({"task_runs": task_runs}), 0, 9_000_000) == (3_000_000, 5_000_001)
    task_runs["expected_start_time"] = {"after_": "1970-01-01T00:00:03Z"}
    either = compiled({"task_runs": {"operator": "or_", **task_runs}})
    assert expected_range(either, 0, 9_000_000) == (0, 9_000_000)


def test_runs_of_states_past_the_cap_may_be_of_any_name_that_is_asked_for():
    states = States()
    states.extend([("COMPLETED", "Completed"), ("FAILED", "Failed")])
    known = [number for number, state in enumerate(states.names) if state is not None]
    group = np.array([number << FLAG_BITS for number in [*known, OTHER]], np.uint32)
    nothing = np.zeros(len(group), np.int64)
    entries = Extent(group, nothing, nothing.astype(bool), *[nothing] * 4)
    asked = compiled({"task_runs": {"state": {"name": {"any_": ["Completed"]}}}})
    found = verdict(asked, entries, states)
    assert (found.possible.tolist(), found.certain.tolist()) == ([True, False, True], [True, False, False])

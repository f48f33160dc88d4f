"""The predicate tree selects what the naive reference selects, for estates and filters of every shape."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given

from runtally.api.models import HistoryBody, filters_of
from runtally.core.predicate import atoms, compile_filters, evaluate
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

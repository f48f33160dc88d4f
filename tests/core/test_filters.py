"""Every row of the table of filter fields becomes atoms on its own columns."""

from __future__ import annotations

import pytest

from runtally.core.attributes import RULES, By, Kind, Test
from runtally.core.filters import FILTERS
from runtally.core.predicate import DEPLOYMENT_EXISTS, FLOW_EXISTS, HAS_FLOW_RUN, Atom, atoms, compile_filters
from runtally.core.request import EntityFilter, Filters, SubFilter

ROWS = [
    pytest.param(entity, part, attribute, id=f"{entity}.{part.name}.{attribute.path}")
    for entity, row in FILTERS.items()
    for part in row.parts
    for attribute in part.attributes
]
SAMPLES = {
    Kind.UUIDS: frozenset({bytes(16)}),
    Kind.TEXTS: frozenset({"a"}),
    Kind.STATE_TYPES: frozenset({"FAILED"}),
    Kind.LIKE: "a",
    Kind.BOOL: True,
    Kind.TIME: 1,
    Kind.INT: 1,
}


def test_every_test_has_a_rule():
    assert set(RULES) == set(Test)


@pytest.mark.parametrize(("entity", "part", "attribute"), ROWS)
def test_every_attribute_compiles_to_atoms_on_its_own_columns(entity, part, attribute):
    given = EntityFilter(parts=(SubFilter(part.name, values=((attribute.path, SAMPLES[attribute.kind]),)),))
    tree = compile_filters(Filters(**{entity: given}))
    existence = {HAS_FLOW_RUN, FLOW_EXISTS, DEPLOYMENT_EXISTS}
    asked = [atom for atom in atoms(tree) if atom not in existence]
    if attribute.by is By.NOTHING:
        assert asked == []
        return
    columns = attribute.columns
    if (entity, part.name, attribute.path) == ("flow_runs", "id", "any_"):
        columns = ("task_run.flow_run_id",)  # the short cut
    value = False if attribute.inverted else SAMPLES[attribute.kind]
    assert asked == [Atom(column, attribute.test, value) for column in columns]
    assert attribute.description.endswith(".")

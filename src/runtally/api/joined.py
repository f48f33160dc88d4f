"""A shard's flow runs joined with their flows and deployments as they are now, as columns.

A flow run that is only referred to exists with every attribute NULL and no tags, and so does its flow; a deployment
exists if the catalog knows it; a deleted one of either does not.

A column is made when it is first asked for: distinct keys and, for each flow run, a number among them. What a key
says is looked up in the catalog at the question, so that a change there makes no column anew.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..core.attributes import Test
from ..core.changes import DEPLOYMENT, FLOW, FLOW_RUN
from ..core.predicate import Atom, Node
from ..core.rows import Ints
from ..store.blocks import Numbers
from ..store.catalog_copy import CatalogCopy
from ..store.flow_runs import FlowRuns
from .masks import Mask, answer, by_value, of_times, times

Values = tuple[Any, ...]
KeyOf = Callable[[bytes, Values], Hashable]
_NOTHING: Final[Values] = (None,) * len(FLOW_RUN.fields)
_AT: Final = {name: number for number, name in enumerate(FLOW_RUN.fields)}


def _part(name: str, number: int) -> KeyOf:
    at = _AT[name]
    return lambda _, values: values[at] and values[at][number]


def _plain(name: str) -> KeyOf:
    at = _AT[name]
    return lambda _, values: values[at]


def _start_or_expected(_: bytes, values: Values) -> Hashable:
    start: Hashable = values[_AT["start_time"]]
    return values[_AT["expected_start_time"]] if start is None else start


_FLOW_RUN_KEYS: Final[Mapping[str, KeyOf]] = {
    **{name: _plain(name) for name in FLOW_RUN.fields},
    "id": lambda identity, _: identity,
    "tags": lambda _, values: values[_AT["tags"]] or (),
    "state_type": _part("state", 0),
    "state_name": _part("state", 1),
    "start_or_expected": _start_or_expected,
    "created_by_id": _part("created_by", 0),
    "created_by_type": _part("created_by", 1),
}


def _flow_key(_: bytes, values: Values) -> Hashable:
    return values[_AT["flow_id"]], values[_AT["flow_name"]]


class Joined:
    """Flows and deployments as a flow run sees them, in one state of the catalog."""

    def __init__(self, catalog: CatalogCopy) -> None:
        self.version = catalog.version
        self._flows = catalog.flows
        self._deployments = catalog.deployments
        self._deployed = {
            deployment.values[DEPLOYMENT.fields.index("flow_id")]
            for deployment in catalog.deployments.values()
            if deployment is not None
        } - {None}
        # By hand, since a cache of methods would keep the catalog alive.
        self._known: dict[Hashable, Mapping[str, Any]] = {}

    def rows(self, entity: str, keys: Sequence[Any]) -> list[Mapping[str, Any]]:
        """The flows or deployments that keys of such a column name."""
        make: Callable[[Any], Mapping[str, Any]] = self.flow if entity == "flow" else self.deployment
        known = self._known
        return [known.get((entity, key)) or known.setdefault((entity, key), make(key)) for key in keys]

    def flow(self, key: tuple[bytes | None, str | None]) -> Mapping[str, Any]:
        """The flow of a flow run that names it by this id and name."""
        flow_id, name = key
        known = self._flows.get(flow_id) if flow_id is not None else None
        deleted = known is None and flow_id in self._flows
        return {
            "flow.exists": not deleted,
            "flow.id": flow_id,
            "flow.any_deployment": True if flow_id in self._deployed else None,
            "flow.name": known.values[0] if known else name,
            "flow.tags": (known.values[1] or ()) if known else (),
        }

    def deployment(self, deployment_id: bytes | None) -> Mapping[str, Any]:
        """The deployment of a flow run that names it by this id."""
        known = self._deployments.get(deployment_id) if deployment_id is not None else None
        values = (None,) * len(DEPLOYMENT.fields) if known is None else known.values
        row = {f"deployment.{name}": value for name, value in zip(DEPLOYMENT.fields, values, strict=True)}
        flow = self._flows.get(row["deployment.flow_id"])
        return {
            **row,
            "deployment.exists": known is not None,
            "deployment.id": deployment_id,
            "deployment.tags": row["deployment.tags"] or (),
            "deployment.flow_name": None if flow is None else flow.values[FLOW.fields.index("name")],
        }


class _Keys:
    """Distinct keys of a column in the order in which they came; shared by all tables that have the column."""

    def __init__(self) -> None:
        self.keys: list[Any] = []
        self._numbers: dict[Hashable, int] = {}
        self._times = times(())

    def times(self) -> Ints:
        """The keys as times."""
        known = self._times
        if len(known) != len(self.keys):
            known = self._times = np.concatenate([known, times(self.keys[len(known) :])])
        return known

    def number(self, key: Hashable) -> int:
        known = self._numbers.get(key)
        if known is None:
            # In this order: another thread may look a number up in between.
            self.keys.append(key)
            known = self._numbers[key] = len(self.keys) - 1
        return known


Column = tuple[_Keys, npt.NDArray[np.int32]]


@dataclass(frozen=True, slots=True)
class Table:
    """One state of the flow runs of a shard, by the numbers that its blocks give them; number 0 is none.

    `rows` are (id, values). Nothing in it changes but `columns`, which grows.
    """

    rows: Sequence[tuple[bytes, Values]]
    joined: Joined
    columns: dict[str, Column] = field(default_factory=dict)

    def selected(self, tree: Node) -> Mask:
        """Which numbers the tree selects; never 0. Raises `BadRequestError` as `masks.of_names` does."""
        found = answer(tree, np.ones(len(self.rows), np.bool_), self._ask)
        found[:1] = False
        return found

    def _ask(self, atom: Atom, _: Mask) -> Mask:
        entity = atom.column.partition(".")[0]
        keys, numbers = self._column(atom.column if entity == "flow_run" else entity)
        if atom.test in (Test.BEFORE, Test.AFTER):
            return of_times(atom, keys.times())[numbers]
        values = keys.keys[: 1 + int(numbers.max(initial=-1))]
        if entity != "flow_run":
            values = [row[atom.column] for row in self.joined.rows(entity, values)]
        return by_value(atom, values)[numbers]

    def _column(self, name: str) -> Column:
        known = self.columns.get(name)
        if known is None:
            keys, key_of = _Keys(), _key_of(name)
            numbers = np.fromiter((keys.number(key_of(*row)) for row in self.rows), np.int32, len(self.rows))
            known = self.columns[name] = (keys, numbers)
        return known


class Tables:
    """The newest table of a shard, made anew only for what has changed."""

    def __init__(self) -> None:
        self._of: FlowRuns | None = None
        self._read = 0
        self._table: Table | None = None

    def update(self, numbers: Numbers[bytes], flow_runs: FlowRuns, joined: Joined) -> Table:
        """The table of now; `numbers` only grow as long as it is about the same `flow_runs`."""
        table = self._table
        if table is None or self._of is not flow_runs:
            table = Table([_row(identity, flow_runs) for identity in numbers.values], joined)
        else:
            changed = set(flow_runs.journal[self._read :])
            if changed or len(numbers.values) != len(table.rows) or table.joined is not joined:
                table = _changed(table, numbers, changed, flow_runs, joined)
        self._of, self._read = flow_runs, len(flow_runs.journal)
        self._table = table
        return table


def _changed(table: Table, numbers: Numbers[bytes], changed: set[bytes], flow_runs: FlowRuns, joined: Joined) -> Table:
    old = len(table.rows)
    known = (numbers.by_value.get(identity, old) for identity in changed)
    moved = [number for number in known if number < old]
    moved += range(old, len(numbers.values))
    rows = [*table.rows, *((identity, _NOTHING) for identity in numbers.values[old:])]
    for number in moved:
        rows[number] = _row(numbers.values[number], flow_runs)
    columns: dict[str, Column] = {}
    for name, (keys, before) in dict(table.columns).items():
        grown = np.zeros(len(rows), np.int32)
        grown[:old] = before
        key_of = _key_of(name)
        grown[moved] = [keys.number(key_of(*rows[number])) for number in moved]
        columns[name] = (keys, grown)
    return Table(rows, joined, columns)


def _row(identity: bytes, flow_runs: FlowRuns) -> tuple[bytes, Values]:
    stored = flow_runs.by_id.get(identity)
    return identity, _NOTHING if stored is None else stored


def _key_of(column: str) -> KeyOf:
    if column == "flow":
        return _flow_key
    return _plain("deployment_id") if column == "deployment" else _FLOW_RUN_KEYS[column.removeprefix("flow_run.")]

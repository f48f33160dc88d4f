"""Flow runs joined with their flows and deployments as they are now, and which of them a predicate selects.

A flow run that is only referred to exists with every attribute NULL and no tags, and so does its flow; a deployment
exists if the catalog knows it; a deleted one of either does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ..core.changes import DEPLOYMENT, FLOW, FLOW_RUN
from ..core.predicate import Node, evaluate
from ..core.versions import Stored
from ..store.catalog_copy import CatalogCopy
from ..store.flow_runs import FlowRuns

Row = Mapping[str, Any]
_FLOW_RUN_COLUMNS: Final = tuple(f"flow_run.{field}" for field in FLOW_RUN.fields)
_UNKNOWN: Final = (None,) * len(FLOW_RUN.fields)


class Joined:
    """The rows of one state of a shard's flow runs and the catalog."""

    def __init__(self, catalog: CatalogCopy) -> None:
        self._catalog = catalog
        self._deployed = {
            deployment.values[DEPLOYMENT.fields.index("flow_id")]
            for deployment in catalog.deployments.values()
            if deployment is not None
        } - {None}

    def row(self, identity: bytes, stored: Stored | None) -> Row:
        """One flow run's columns by name, with those of its flow and deployment."""
        values = _UNKNOWN if stored is None else stored.values
        row: dict[str, Any] = dict(zip(_FLOW_RUN_COLUMNS, values, strict=True))
        state = row["flow_run.state"] or (None, None, None)
        created_by = row["flow_run.created_by"]
        start = row["flow_run.start_time"]
        row |= {
            "flow_run.id": identity,
            "flow_run.tags": row["flow_run.tags"] or (),
            "flow_run.state_type": state[0],
            "flow_run.state_name": state[1],
            "flow_run.start_or_expected": row["flow_run.expected_start_time"] if start is None else start,
            "flow_run.created_by_id": created_by and created_by[0],
            "flow_run.created_by_type": created_by and created_by[1],
        }
        self._add_flow(row)
        self._add_deployment(row)
        return row

    def selects(self, tree: Node, identity: bytes) -> bool:
        """Whether the tree selects a flow run that is only referred to."""
        return evaluate(tree, self.row(identity, None)) is True

    def _add_flow(self, row: dict[str, Any]) -> None:
        flow_id = row["flow_run.flow_id"]
        known = self._catalog.flows.get(flow_id, ...) if flow_id is not None else ...
        row["flow.exists"] = known is not None
        row["flow.id"] = flow_id
        row["flow.any_deployment"] = True if flow_id in self._deployed else None
        if isinstance(known, Stored):
            row |= {"flow.name": known.values[0], "flow.tags": known.values[1] or ()}
        else:
            row |= {"flow.name": row["flow_run.flow_name"], "flow.tags": ()}

    def _add_deployment(self, row: dict[str, Any]) -> None:
        deployment_id = row["flow_run.deployment_id"]
        known = self._catalog.deployments.get(deployment_id)
        row["deployment.exists"] = known is not None
        values = (None,) * len(DEPLOYMENT.fields) if known is None else known.values
        row |= {f"deployment.{field}": value for field, value in zip(DEPLOYMENT.fields, values, strict=True)}
        row["deployment.id"] = deployment_id
        row["deployment.tags"] = row["deployment.tags"] or ()
        flow = self._catalog.flows.get(row["deployment.flow_id"])
        row["deployment.flow_name"] = None if flow is None else flow.values[FLOW.fields.index("name")]


class Selection:
    """Which flow runs of one shard a predicate selects; kept, and made anew only for what has changed."""

    def __init__(self, tree: Node) -> None:
        self._tree = tree
        self._selected: dict[bytes, bool] = {}
        self._of: FlowRuns | None = None
        self._read = 0
        self._version = -1

    def update(self, flow_runs: FlowRuns, catalog: CatalogCopy) -> Mapping[bytes, bool]:
        """The verdict on every known flow run, as of now."""
        if self._of is not flow_runs or self._version != catalog.version:
            self._selected, self._of, self._read, self._version = {}, flow_runs, 0, catalog.version
            changed: Iterable[bytes] = list(flow_runs.by_id)
        else:
            changed = flow_runs.journal[self._read :]
        if changed:
            joined = Joined(catalog)
            fresh = {
                identity: evaluate(self._tree, joined.row(identity, flow_runs.by_id[identity])) is True
                for identity in changed
                if identity not in self._selected or flow_runs.by_id[identity] is not None
            }
            # A new mapping: a scan in another thread may be reading the old one.
            self._selected = {**self._selected, **fresh}
        self._read = len(flow_runs.journal)
        return self._selected

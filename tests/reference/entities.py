"""What is known of every entity, and which rows exist: last writer wins per field, deletes are final."""

from __future__ import annotations

import json
from typing import Any

from .events import ATTRIBUTES, STATE_FIELDS, Fact

Row = dict[str, Any]


class Estate:
    """All entities as the events have left them; their order makes no difference."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Row]] = {entity: {} for entity in ATTRIBUTES}
        self.deleted: dict[str, set[str]] = {entity: set() for entity in ATTRIBUTES}
        self.flow_run_of: dict[str, str | None] = {}

    def apply(self, fact: Fact) -> None:
        """Take in one event."""
        if fact.action == "delete":
            self.deleted[fact.entity].add(fact.id)
            return
        if fact.entity == "task_run":
            self.flow_run_of[fact.id] = fact.flow_run_id
        fields = self.known[fact.entity].setdefault(fact.id, {})
        for name, (version, value) in fact.fields.items():
            if name not in fields or (version, _rank(value)) > (fields[name][0], _rank(fields[name][1])):
                fields[name] = (version, value)

    def rows(self) -> list[dict[str, Row | None]]:
        """Every task run that exists, by id, with what it is joined to now.

        Keys: task_run, flow_run, flow, deployment; None = there is no such row.
        """
        deployments = {own_id: self._deployment(own_id) for own_id in self._existing("deployment")}
        deployed = {deployment["flow_id"] for deployment in deployments.values()} - {None}
        around: dict[str | None, dict[str, Row | None]] = {None: {"flow_run": None, "flow": None, "deployment": None}}
        rows = []
        for own_id in self._existing("task_run"):
            flow_run_id = self.flow_run_of[own_id]
            if flow_run_id in self.deleted["flow_run"]:
                continue
            if flow_run_id not in around:
                flow_run = self._values("flow_run", flow_run_id)
                flow = self._flow(flow_run, deployed)
                deployment = deployments.get(flow_run["deployment_id"])
                around[flow_run_id] = {"flow_run": flow_run, "flow": flow, "deployment": deployment}
            task_run = {**self._values("task_run", own_id), "flow_run_id": flow_run_id}
            rows.append({"task_run": task_run, **around[flow_run_id]})
        return rows

    def _existing(self, entity: str) -> list[str]:
        """What an event has described and none has deleted."""
        return sorted(self.known[entity].keys() - self.deleted[entity])

    def _flow(self, flow_run: Row, deployed: set[str]) -> Row | None:
        """The flow of a flow run: it exists although nothing is known of it, unless it was deleted."""
        flow_id = flow_run["flow_id"]
        if flow_id in self.deleted["flow"]:
            return None
        flow = self._values("flow", flow_id)
        if flow_id not in self.known["flow"]:
            flow["name"] = flow_run["flow_name"]
        flow["has_deployment"] = flow_id in deployed
        return flow

    def _deployment(self, own_id: str) -> Row:
        """A deployment with its flow's name; unlike a flow it exists only if the catalog knows it."""
        deployment = self._values("deployment", own_id)
        flow_id = deployment["flow_id"]
        gone = flow_id in self.deleted["flow"]
        deployment["flow_name"] = None if gone else self._values("flow", flow_id)["name"]
        return deployment

    def _values(self, entity: str, own_id: str | None) -> Row:
        """An entity's columns; what no event has spoken of is NULL, and tags are [] then."""
        fields = self.known[entity].get(own_id, {}) if own_id is not None else {}
        names = [*STATE_FIELDS[entity], *ATTRIBUTES[entity]]
        row = {name: fields[name][1] if name in fields else None for name in names}
        row["id"] = own_id
        row["tags"] = row["tags"] or []
        if STATE_FIELDS[entity]:
            state = fields["state"][1] if "state" in fields else None
            row["state_type"], row["state_name"], row["state_timestamp"] = state or (None, None, None)
        return row


def _rank(value: Any) -> bytes:
    """Decides between two values of one version: NULL is lowest, then the order of their compact JSON's bytes."""
    if value is None:
        return b""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

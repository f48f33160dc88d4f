"""The estate that the simulator plays: flows, their deployments, and how their runs behave.

Everything is a row of `FLOWS`; ids follow from the seed and the names, so that the same seed is the same estate.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Final

OCCURRED: Final = "2026-01-01T00:00:00Z"
"""When the catalog was made: fixed, so that publishing it again changes nothing."""


@dataclass(frozen=True, slots=True)
class FlowKind:
    """One flow. `weight`: how often it runs, relative to the others · `tasks`: their names, in order · `fan`: task runs
    of a flow run, at least and at most · `seconds`: mean duration of a task run · `fails`, `retries`, `cached`: the
    share of its task runs · `custom`: (state type, name, share of its ended task runs) · `child`: the flow that a
    subflow run of it belongs to · `deployments`: (name, tags, work queue); none: started by hand."""

    name: str
    tags: tuple[str, ...]
    weight: int
    tasks: tuple[str, ...]
    fan: tuple[int, int]
    seconds: float
    deployments: tuple[tuple[str, tuple[str, ...], str | None], ...] = ()
    fails: float = 0.01
    retries: float = 0.01
    cached: float = 0.0
    custom: tuple[str, str, float] | None = None
    child: str | None = None
    paused: bool = False


FLOWS: Final = (
    FlowKind(
        "sync-orders",
        ("etl", "sales"),
        10,
        ("fetch_page", "validate_orders", "upsert_orders"),
        (8, 20),
        4,
        (("sync-orders-eu", ("prod", "eu"), "default"), ("sync-orders-us", ("prod", "us"), "default")),
        retries=0.04,
    ),
    FlowKind(
        "ingest-clickstream",
        ("etl", "web"),
        9,
        ("list_files", "parse_file", "load_partition"),
        (12, 26),
        9,
        (("clickstream-hourly", ("prod",), "high-throughput"),),
        fails=0.02,
        cached=0.05,
    ),
    FlowKind(
        "train-recommender",
        ("ml",),
        2,
        ("build_features", "train_fold", "evaluate"),
        (6, 14),
        75,
        (("recommender-nightly", ("prod", "gpu"), "gpu"),),
        fails=0.06,
        custom=("FAILED", "BelowQualityGate", 0.04),
    ),
    FlowKind(
        "refresh-dashboards",
        ("reporting",),
        6,
        ("query_warehouse", "render_chart", "upload_report"),
        (5, 16),
        3,
        (("dashboards-every-15m", ("prod",), "default"), ("dashboards-staging", ("staging",), "default")),
        cached=0.30,
        custom=("COMPLETED", "Skipped", 0.06),
    ),
    FlowKind(
        "monthly-close",
        ("finance", "critical"),
        2,
        ("lock_period", "reconcile_account", "post_journal"),
        (10, 24),
        14,
        (("close-all-entities", ("prod", "critical"), "finance"),),
        fails=0.005,
        child="reconcile-ledger",
    ),
    FlowKind(
        "reconcile-ledger",
        ("finance",),
        2,
        ("load_ledger", "match_entries"),
        (4, 10),
        8,
        (("reconcile-adhoc", ("prod",), "finance"),),
        fails=0.03,
        custom=("FAILED", "TimedOut", 0.01),
    ),
    FlowKind(
        "dbt-transform",
        ("dbt", "etl"),
        5,
        ("dbt_run_model", "dbt_test_model"),
        (14, 28),
        11,
        (("dbt-core", ("prod",), "high-throughput"), ("dbt-experimental", (), None)),
        fails=0.03,
        child="ingest-clickstream",
    ),
    FlowKind(
        "notify-customers",
        ("messaging", "sales"),
        5,
        ("select_segment", "send_batch"),
        (6, 22),
        2,
        (("notify-hourly", ("prod", "eu"), "default"),),
        retries=0.07,
        custom=("COMPLETED", "Delivered", 0.40),
    ),
    FlowKind(
        "scrape-competitors",
        ("web",),
        3,
        ("fetch_page", "extract_prices"),
        (8, 24),
        6,
        (("scrape-daily", ("best-effort",), "default"),),
        fails=0.12,
        retries=0.15,
    ),
    FlowKind("backfill-events", ("etl",), 1, ("copy_partition", "verify_partition"), (10, 28), 25, fails=0.02),
    FlowKind("anonymise-users", ("gdpr", "critical"), 1, ("find_user_rows", "erase_rows"), (3, 9), 5),
    FlowKind(
        "warm-caches", (), 3, ("warm_key",), (4, 12), 1, (("warm-caches", (), "default"),), cached=0.5, paused=True
    ),
)

BACKGROUND_TASKS: Final = ("send_welcome_mail", "resize_image", "rebuild_search_index", "export_csv")
"""Task runs without a flow run."""
ADJECTIVES: Final = ("amber", "brave", "calm", "dapper", "eager", "frosty", "gentle", "hazel", "ivory", "jolly")
ANIMALS: Final = ("otter", "heron", "lynx", "marmot", "newt", "osprey", "puffin", "quokka", "raven", "stoat")


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment of a flow, with its id as text."""

    id: str
    name: str
    tags: tuple[str, ...]
    work_queue_name: str | None


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow with its id as text."""

    id: str
    kind: FlowKind
    deployments: tuple[Deployment, ...]


@dataclass(frozen=True, slots=True)
class Estate:
    """All flows of one seed, by name."""

    seed: int
    flows: dict[str, Flow]

    def catalog(self) -> list[dict[str, Any]]:
        """The events that make the flows and deployments known."""
        events: list[dict[str, Any]] = []
        for flow in self.flows.values():
            events.append(_upsert("flow", {"id": flow.id, "name": flow.kind.name, "tags": flow.kind.tags}))
            events.extend(
                _upsert(
                    "deployment",
                    {
                        "id": deployment.id,
                        "flow_id": flow.id,
                        "name": deployment.name,
                        "tags": deployment.tags,
                        "paused": flow.kind.paused,
                        "work_queue_name": deployment.work_queue_name,
                    },
                )
                for deployment in flow.deployments
            )
        return events


def make(seed: int) -> Estate:
    """The estate of a seed."""
    space = uuid.uuid5(uuid.NAMESPACE_URL, f"runtally:demo:{seed}")
    flows = {}
    for kind in FLOWS:
        deployments = tuple(
            Deployment(str(uuid.uuid5(space, f"deployment:{kind.name}:{name}")), name, tags, queue)
            for name, tags, queue in kind.deployments
        )
        flows[kind.name] = Flow(str(uuid.uuid5(space, f"flow:{kind.name}")), kind, deployments)
    return Estate(seed, flows)


def _upsert(entity: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"entity": entity, "action": "upsert", "occurred": OCCURRED, "data": data}

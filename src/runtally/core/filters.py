"""The table of filter fields: what may be asked of flows, flow runs, task runs and deployments.

Everything about a filter follows from its row: the request's models, the OpenAPI schema, the predicate tree
and the table in docs/filters.md. Rows stand in the order in which errors are reported.
"""

from __future__ import annotations

from typing import Final

from .attributes import NO_RULE, RULES, Attribute, By, FilterRow, Kind, SubFilterRow, Test
from .changes import STATE_TYPES
from .request import FilterName


def _ids(path: str, test: Test, column: str, by: By, note: str = "") -> Attribute:
    return Attribute(path, Kind.UUIDS, test, (column,), by, note)


def _texts(path: str, test: Test, column: str, by: By, note: str = "") -> Attribute:
    return Attribute(path, Kind.TEXTS, test, (column,), by, note)


def _is_null(column: str, by: By, note: str = "") -> Attribute:
    return Attribute("is_null_", Kind.BOOL, Test.IS_NULL, (column,), by, note)


def _name(column: str, by: By) -> SubFilterRow:
    like = Attribute("like_", Kind.LIKE, Test.LIKE, (column,), by, "A backslash makes a wildcard ordinary.")
    return SubFilterRow("name", "The name.", (_texts("any_", Test.IN, column, by, "Case matters."), like))


def _tags(column: str, by: By, *, any_: bool) -> SubFilterRow:
    attributes = (
        _texts("all_", Test.TAGS_ALL, column, by),
        *((_texts("any_", Test.TAGS_ANY, column, by),) if any_ else ()),
        Attribute("is_null_", Kind.BOOL, Test.TAGS_EMPTY, (column,), by),
    )
    return SubFilterRow("tags", "The tags; order and duplicates do not matter.", attributes, operator=True)


def _time(name: str, column: str, by: By, note: str = "", is_null: Attribute | None = None) -> SubFilterRow:
    attributes = (
        Attribute("before_", Kind.TIME, Test.BEFORE, (column,), by, note),
        Attribute("after_", Kind.TIME, Test.AFTER, (column,), by, note),
        *((is_null,) if is_null else ()),
    )
    return SubFilterRow(name, f"The {name.replace('_', ' ')}.", attributes)


def _state(entity: str, by: By, *, not_any: bool) -> SubFilterRow:
    kinds = (("type", Kind.STATE_TYPES), ("name", Kind.TEXTS))
    tests = (("any_", Test.IN), ("not_any_", Test.NOT_IN))[: 1 + not_any]
    attributes = tuple(
        Attribute(f"{part}.{path}", kind, test, (f"{entity}.state_{part}",), by)
        for part, kind in kinds
        for path, test in tests
    )
    subject = "The current state. A `type` or `name` that gives nothing, or both of its lists, is left out."
    return SubFilterRow("state", subject, attributes, operator=True)


_SUBFLOW: Final = "The task run in the parent flow run that a subflow run belongs to."

FLOWS: Final = FilterRow(
    "flows",
    "FlowFilter",
    "The flow of the task run's flow run.",
    (
        SubFilterRow(
            "id",
            "The id.",
            (_ids("any_", Test.IN, "flow.id", By.COHORT), _ids("not_any_", Test.NOT_IN, "flow.id", By.COHORT)),
        ),
        SubFilterRow(
            "deployment",
            "Whether the flow has deployments, whatever the run's own deployment is.",
            (_is_null("flow.any_deployment", By.COHORT, "NULL is a flow without any deployment."),),
            operator=True,
        ),
        _name("flow.name", By.COHORT),
        _tags("flow.tags", By.COHORT, any_=False),
    ),
)
FLOW_RUNS: Final = FilterRow(
    "flow_runs",
    "FlowRunFilter",
    "The flow run of the task run.",
    (
        SubFilterRow(
            "id",
            "The id.",
            (_ids("any_", Test.IN, "flow_run.id", By.RAW), _ids("not_any_", Test.NOT_IN, "flow_run.id", By.RAW)),
        ),
        _name("flow_run.name", By.RAW),
        _tags("flow_run.tags", By.COHORT, any_=True),
        SubFilterRow(
            "deployment_id",
            "The deployment's id, also when that deployment is deleted.",
            (_ids("any_", Test.IN, "flow_run.deployment_id", By.COHORT), _is_null("flow_run.deployment_id", By.COHORT)),
            operator=True,
        ),
        SubFilterRow(
            "work_queue_name",
            "The name of the flow run's work queue.",
            (
                _texts("any_", Test.IN, "flow_run.work_queue_name", By.COHORT),
                _is_null("flow_run.work_queue_name", By.COHORT),
            ),
            operator=True,
        ),
        _state("flow_run", By.RAW, not_any=True),
        SubFilterRow(
            "flow_version", "The flow's version.", (_texts("any_", Test.IN, "flow_run.flow_version", By.RAW),)
        ),
        _time(
            "start_time",
            "flow_run.start_or_expected",
            By.RAW,
            "Without a start time the expected one counts.",
            _is_null("flow_run.start_time", By.RAW, "The expected start time does not count here."),
        ),
        _time("end_time", "flow_run.end_time", By.RAW, is_null=_is_null("flow_run.end_time", By.RAW)),
        _time("expected_start_time", "flow_run.expected_start_time", By.RAW),
        _time("next_scheduled_start_time", "flow_run.next_scheduled_start_time", By.RAW),
        SubFilterRow(
            "parent_flow_run_id",
            "The flow run that this one is a subflow run of, as its producer says.",
            (_ids("any_", Test.IN, "flow_run.parent_flow_run_id", By.RAW),),
            operator=True,
        ),
        SubFilterRow(
            "parent_task_run_id",
            _SUBFLOW,
            (
                _ids("any_", Test.IN, "flow_run.parent_task_run_id", By.RAW),
                _is_null("flow_run.parent_task_run_id", By.GROUP, "True hides subflow runs."),
            ),
            operator=True,
        ),
        SubFilterRow(
            "idempotency_key",
            "The idempotency key.",
            (
                _texts("any_", Test.IN, "flow_run.idempotency_key", By.RAW),
                _texts("not_any_", Test.NOT_IN, "flow_run.idempotency_key", By.RAW),
            ),
        ),
        SubFilterRow(
            "created_by",
            "Who or what created the flow run.",
            (
                _ids("id_", Test.IN, "flow_run.created_by_id", By.RAW),
                _texts("type_", Test.IN, "flow_run.created_by_type", By.RAW),
                _is_null("flow_run.created_by", By.RAW),
            ),
            operator=True,
        ),
    ),
)
TASK_RUNS: Final = FilterRow(
    "task_runs",
    "TaskRunFilter",
    "The task run itself.",
    (
        SubFilterRow("id", "The id.", (_ids("any_", Test.IN, "task_run.id", By.RAW),)),
        _name("task_run.name", By.RAW),
        _tags("task_run.tags", By.RAW, any_=False),
        _state("task_run", By.GROUP, not_any=False),
        _time("start_time", "task_run.start_time", By.ZONE, is_null=_is_null("task_run.start_time", By.GROUP)),
        _time("end_time", "task_run.end_time", By.RAW, is_null=_is_null("task_run.end_time", By.RAW)),
        _time("expected_start_time", "task_run.expected_start_time", By.ZONE),
        SubFilterRow(
            "subflow_runs",
            "Whether the task run stands for a subflow run, as its producer says by `child_flow_run_id`.",
            (
                Attribute(
                    "exists_",
                    Kind.BOOL,
                    Test.IS_NULL,
                    ("task_run.child_flow_run_id",),
                    By.GROUP,
                    "True: it does; false: it does not.",
                    inverted=True,
                ),
            ),
        ),
        SubFilterRow(
            "flow_run_id",
            "The flow run's id. Its operator has no effect: `is_null_` true wins over `any_`.",
            (
                _ids("any_", Test.IN, "task_run.flow_run_id", By.RAW),
                Attribute(
                    "is_null_",
                    Kind.BOOL,
                    Test.IS_NULL,
                    ("task_run.flow_run_id",),
                    By.GROUP,
                    "Default false, so `{}` leaves out task runs without a flow run; null lets them in.",
                    default=False,
                ),
            ),
            operator=True,
        ),
    ),
)
DEPLOYMENTS: Final = FilterRow(
    "deployments",
    "DeploymentFilter",
    "The deployment of the task run's flow run; a deleted one matches nothing.",
    (
        SubFilterRow(
            "id",
            "The id.",
            (
                _ids("any_", Test.IN, "deployment.id", By.COHORT),
                _ids("not_any_", Test.NOT_IN, "deployment.id", By.COHORT),
            ),
        ),
        _name("deployment.name", By.COHORT),
        SubFilterRow(
            "flow_or_deployment_name",
            "The deployment's name or that of the flow it belongs to.",
            (
                Attribute(
                    "like_",
                    Kind.LIKE,
                    Test.LIKE,
                    ("deployment.name", "deployment.flow_name"),
                    By.COHORT,
                    "Either may match.",
                ),
            ),
        ),
        SubFilterRow(
            "paused",
            "Whether the deployment is paused now.",
            (Attribute("eq_", Kind.BOOL, Test.IS, ("deployment.paused",), By.COHORT),),
        ),
        _tags("deployment.tags", By.COHORT, any_=True),
        SubFilterRow(
            "work_queue_name",
            "The name of the deployment's own work queue.",
            (_texts("any_", Test.IN, "deployment.work_queue_name", By.COHORT),),
        ),
        SubFilterRow(
            "concurrency_limit",
            "Checked and then ignored, as in Prefect; not even a term of the operator.",
            tuple(
                Attribute(path, kind, None, (), By.NOTHING)
                for path, kind in (("ge_", Kind.INT), ("le_", Kind.INT), ("is_null_", Kind.BOOL))
            ),
        ),
    ),
)
FILTERS: Final[dict[FilterName, FilterRow]] = {row.name: row for row in (FLOWS, FLOW_RUNS, TASK_RUNS, DEPLOYMENTS)}


def markdown() -> str:
    """The table as docs/filters.md shows it: a row for each sub-filter, and below it one for each attribute."""
    lines: list[str] = []
    for row in FILTERS.values():
        lines += [f"### `{row.name}`", "", row.subject, ""]
        lines += ["| filter | value | holds when it | NULL | empty | answered by |"]
        lines += ["| --- | --- | --- | --- | --- | --- |"]
        for part in row.parts:
            name = f"**`{part.name}`**" + (" (op)" if part.operator else "")
            lines.append(f"| {name} | | *{part.subject}* | | | |")
            lines += [_line(f"`{part.name}.{attribute.path}`", attribute) for attribute in part.attributes]
        lines.append("")
    lines.append("State types: " + ", ".join(f"`{name}`" for name in STATE_TYPES) + ".")
    return "\n".join(lines)


def _line(path: str, attribute: Attribute) -> str:
    rule = RULES[attribute.test] if attribute.test else NO_RULE
    meaning = attribute.note if attribute.inverted else f"{rule.words}. {attribute.note}".strip(". ")
    cells = (path, attribute.kind.value, meaning, rule.on_null, rule.on_empty, attribute.by.value)
    return "| " + " | ".join(cells) + " |"

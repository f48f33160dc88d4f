"""Filters in three-valued logic: True, False and None for SQL's unknown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .entities import Row
from .events import uuid_of
from .like import like
from .times import body_time_us

Truth = bool | None
Filter = dict[str, Any]
Term = Callable[[Row], Truth]
Joined = dict[str, Row | None]


def selection(body: Filter, *, short_cut: bool) -> Callable[[Joined], bool]:
    """Which task runs a request selects: a test of what `Estate.rows` gives.

    A filter on flow runs, flows or deployments, even an empty one, asks that such a row exists.
    """
    filters = {entity: body[f"{entity}s"] for entity in SUB_FILTERS if body.get(f"{entity}s") is not None}
    terms = {entity: predicate(entity, filter_) for entity, filter_ in filters.items()}
    around = [entity for entity in terms if entity != "task_run"]
    ids = _only_ids(filters["flow_run"]) if short_cut and around == ["flow_run"] else None

    def selected(row: Joined) -> bool:
        if "task_run" in terms and terms["task_run"](row["task_run"]) is not True:
            return False
        if ids is not None:
            return is_in(row["task_run"]["flow_run_id"], ids) is True
        if around and row["flow_run"] is None:
            return False
        return all(row[entity] is not None and terms[entity](row[entity]) is True for entity in around)

    return selected


def _only_ids(flow_runs: Filter) -> list[str] | None:
    """The ids, if the filter gives nothing but a non-empty `id.any_`, else None.

    Prefect then compares the task run's own flow_run_id and needs no flow-run row.
    """
    others = [name for name, value in flow_runs.items() if name not in ("id", "operator") and value is not None]
    ids = flow_runs.get("id") or {}
    if others or not ids.get("any_") or ids.get("not_any_"):
        return None
    return _uuids(ids["any_"])


def predicate(entity: str, filter_: Filter) -> Term:
    """An entity filter: its own AND/OR of the given sub-filters, TRUE without any."""
    parts = []
    for name, make in SUB_FILTERS[entity].items():
        sub = filter_.get(name)
        if sub is not None:
            parts.append(make(sub))
    return combined(filter_, parts)


def combined(filter_: Filter, terms: list[Term]) -> Term:
    """AND, or OR where `filter_` says so; no term at all restricts nothing."""
    if not terms:
        return lambda row: True
    if filter_.get("operator", "and_") == "or_":
        return lambda row: or_(term(row) for term in terms)
    return lambda row: and_(term(row) for term in terms)


def and_(truths: Iterable[Truth]) -> Truth:
    seen = list(truths)
    if False in seen:
        return False
    return None if None in seen else True


def or_(truths: Iterable[Truth]) -> Truth:
    seen = list(truths)
    if True in seen:
        return True
    return None if None in seen else False


def not_(truth: Truth) -> Truth:
    return None if truth is None else not truth


def is_in(value: Any, wanted: Iterable[Any]) -> Truth:
    return None if value is None else value in wanted


# -- the tests an attribute can make, each as (value in the filter) -> a term or None where it restricts nothing


def _any(column: str, of: Callable[[list[str]], list[str]] = list) -> Callable[[Any], Term | None]:
    def make(value: Any) -> Term | None:
        if value is None:
            return None
        wanted = of(value)
        return lambda row: is_in(row[column], wanted)

    return make


def _not_any(column: str, of: Callable[[list[str]], list[str]] = list) -> Callable[[Any], Term | None]:
    def make(value: Any) -> Term | None:
        if not value:
            return None
        unwanted = of(value)
        return lambda row: not_(is_in(row[column], unwanted))

    return make


def _like(*columns: str) -> Callable[[Any], Term | None]:
    def make(value: Any) -> Term | None:
        if not value:
            return None
        return lambda row: or_(None if row[column] is None else like(row[column], value) for column in columns)

    return make


def _tags_all(value: Any) -> Term | None:
    return (lambda row: all(tag in row["tags"] for tag in value)) if value else None


def _tags_any(value: Any) -> Term | None:
    return None if value is None else (lambda row: any(tag in row["tags"] for tag in value))


def _flag(test: Callable[[Row], bool]) -> Callable[[Any], Term | None]:
    """A yes-or-no attribute: true wants the rows that pass the test, false the others."""
    return lambda value: None if value is None else (lambda row: test(row) == as_bool(value))


def _null(column: str) -> Callable[[Any], Term | None]:
    return _flag(lambda row: row[column] is None)


def _paused(value: Any) -> Term | None:
    return None if value is None else (lambda row: None if row["paused"] is None else row["paused"] == as_bool(value))


def _before(*columns: str) -> Callable[[Any], Term | None]:
    return _compared(columns, lambda instant, bound: instant <= bound)


def _after(*columns: str) -> Callable[[Any], Term | None]:
    return _compared(columns, lambda instant, bound: instant >= bound)


def _compared(columns: tuple[str, ...], holds: Callable[[int, int], bool]) -> Callable[[Any], Term | None]:
    """Compares the first of the columns that is not NULL."""

    def make(value: Any) -> Term | None:
        if value is None:
            return None
        bound = body_time_us(value)

        def term(row: Row) -> Truth:
            known = [row[column] for column in columns if row[column] is not None]
            return holds(known[0], bound) if known else None

        return term

    return make


def _creator(part: int, of: Callable[[list[str]], list[str]] = list) -> Callable[[Any], Term | None]:
    def make(value: Any) -> Term | None:
        if value is None:
            return None
        wanted = of(value)
        return lambda row: None if row["created_by"] is None else is_in(row["created_by"][part], wanted)

    return make


def _uuids(texts: list[str]) -> list[str]:
    known = [uuid_of(text) for text in texts]
    return [text for text in known if text is not None]


def as_bool(value: Any) -> bool:
    """A boolean in any of the spellings that pydantic's lax mode accepts."""
    if isinstance(value, str):
        return value.lower() in ("true", "t", "yes", "y", "on", "1")
    return bool(value)


# -- sub-filters


def _sub(**attributes: Callable[[Any], Term | None]) -> Callable[[Filter], Term]:
    """A sub-filter is the AND, or by its operator the OR, of the attributes that restrict."""

    def make(filter_: Filter) -> Term:
        terms = [attribute(filter_.get(name)) for name, attribute in attributes.items()]
        return combined(filter_, [term for term in terms if term is not None])

    return make


def _state(filter_: Filter) -> Term:
    """`type` and `name` count only where they restrict by exactly one attribute: a quirk of Prefect's, kept."""
    parts: list[Term] = []
    for part in ("type", "name"):
        given = filter_.get(part) or {}
        terms = [_any(f"state_{part}")(given.get("any_")), _not_any(f"state_{part}")(given.get("not_any_"))]
        restricting = [term for term in terms if term is not None]
        if len(restricting) == 1:
            parts += restricting
    return combined(filter_, parts)


def _flow_run_id(filter_: Filter) -> Term:
    """`is_null_` is false unless given, and true beats `any_`; the operator has no effect."""
    is_null = filter_.get("is_null_", False)
    wanted = filter_.get("any_")
    if is_null is not None and as_bool(is_null):
        return lambda row: row["flow_run_id"] is None
    if wanted is not None:
        ids = _uuids(wanted)
        return lambda row: is_in(row["flow_run_id"], ids)
    if is_null is None:
        return lambda row: True
    return lambda row: row["flow_run_id"] is not None


_NO_TAGS = _flag(lambda row: row["tags"] == [])
_TAGS = _sub(all_=_tags_all, any_=_tags_any, is_null_=_NO_TAGS)
_NAME = _sub(any_=_any("name"), like_=_like("name"))
_ID = _sub(any_=_any("id", _uuids), not_any_=_not_any("id", _uuids))


def _time(column: str) -> Callable[[Filter], Term]:
    return _sub(before_=_before(column), after_=_after(column), is_null_=_null(column))


SUB_FILTERS: dict[str, dict[str, Callable[[Filter], Term]]] = {
    "flow": {
        "id": _ID,
        "deployment": _sub(is_null_=_flag(lambda row: not row["has_deployment"])),
        "name": _NAME,
        "tags": _sub(all_=_tags_all, is_null_=_NO_TAGS),
    },
    "flow_run": {
        "id": _ID,
        "name": _NAME,
        "tags": _TAGS,
        "deployment_id": _sub(any_=_any("deployment_id", _uuids), is_null_=_null("deployment_id")),
        "work_queue_name": _sub(any_=_any("work_queue_name"), is_null_=_null("work_queue_name")),
        "state": _state,
        "flow_version": _sub(any_=_any("flow_version")),
        "start_time": _sub(
            before_=_before("start_time", "expected_start_time"),
            after_=_after("start_time", "expected_start_time"),
            is_null_=_null("start_time"),
        ),
        "end_time": _time("end_time"),
        "expected_start_time": _sub(before_=_before("expected_start_time"), after_=_after("expected_start_time")),
        "next_scheduled_start_time": _sub(
            before_=_before("next_scheduled_start_time"), after_=_after("next_scheduled_start_time")
        ),
        "parent_flow_run_id": _sub(any_=_any("parent_flow_run_id", _uuids)),
        "parent_task_run_id": _sub(any_=_any("parent_task_run_id", _uuids), is_null_=_null("parent_task_run_id")),
        "idempotency_key": _sub(any_=_any("idempotency_key"), not_any_=_not_any("idempotency_key")),
        "created_by": _sub(id_=_creator(0, _uuids), type_=_creator(1), is_null_=_null("created_by")),
    },
    "task_run": {
        "id": _sub(any_=_any("id", _uuids)),
        "name": _NAME,
        "tags": _sub(all_=_tags_all, is_null_=_NO_TAGS),
        "state": _state,
        "start_time": _time("start_time"),
        "end_time": _time("end_time"),
        "expected_start_time": _sub(before_=_before("expected_start_time"), after_=_after("expected_start_time")),
        "subflow_runs": _sub(exists_=_flag(lambda row: row["child_flow_run_id"] is not None)),
        "flow_run_id": _flow_run_id,
    },
    # `concurrency_limit` is validated and never a term, so it has no row here.
    "deployment": {
        "id": _ID,
        "name": _NAME,
        "flow_or_deployment_name": _sub(like_=_like("name", "flow_name")),
        "paused": _sub(eq_=_paused),
        "tags": _TAGS,
        "work_queue_name": _sub(any_=_any("work_queue_name")),
    },
}

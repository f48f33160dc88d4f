"""The models of request bodies, made from the table of filter fields, and the way from a body to core values.

Validation is pydantic's lax mode, as in Prefect; the one model per route also gives the OpenAPI schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, create_model

from ..core.attributes import Attribute, FilterRow, Kind, SubFilterRow
from ..core.changes import STATE_TYPES
from ..core.filters import FILTERS
from ..core.request import EntityFilter, Filters, HistoryRequest, Operator, SubFilter, Value, width_of
from ..core.time import end_of, instant_of, start_of

StateType = StrEnum("StateType", {name: name for name in STATE_TYPES})  # type: ignore[misc]


class _Closed(BaseModel):
    """A filter object: a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _encodable(text: str) -> str:
    """Refuse a lone surrogate, which no name can hold and no column of text either."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text holds half of a surrogate pair") from None
    return text


_TEXT = Annotated[str, AfterValidator(_encodable)]
_YEARS_1_TO_9999_MS: Final = {"minimum": -62_135_596_800_000, "maximum": 253_402_300_799_999}
_INSTANT_SCHEMA: Final = [{"type": "string", "format": "date-time"}, {"type": "number", **_YEARS_1_TO_9999_MS}]
_INSTANT = Annotated[int, PlainValidator(instant_of), WithJsonSchema({"anyOf": _INSTANT_SCHEMA})]

_TYPES: Final[dict[Kind, Any]] = {
    Kind.UUIDS: list[UUID],
    Kind.TEXTS: list[_TEXT],
    Kind.STATE_TYPES: list[StateType],
    Kind.LIKE: _TEXT,
    Kind.BOOL: bool,
    Kind.TIME: _INSTANT,
    Kind.INT: int,
}
_EXAMPLES: Final[dict[Kind, Any]] = {
    Kind.UUIDS: ["8f1ffbd2-8d8c-4d0e-9f0a-2b0c0f3e9b11"],
    Kind.TEXTS: ["etl"],
    Kind.STATE_TYPES: ["COMPLETED", "FAILED"],
    Kind.LIKE: "etl",
    Kind.BOOL: True,
    Kind.TIME: "2026-11-24T08:00:00Z",
    Kind.INT: 1,
}
_OPERATOR: Final = (
    Operator,
    Field(default=Operator.AND, description="Whether all terms must hold (`and_`) or one is enough (`or_`)."),
)


def _field(attribute: Attribute) -> Any:
    described = Field(
        default=attribute.default,
        description=attribute.description,
        examples=[_EXAMPLES[attribute.kind]],
    )
    return (_TYPES[attribute.kind] | None, described)


def _sub_filter_model(prefix: str, row: SubFilterRow) -> type[_Closed]:
    """A model for a sub-filter; parts of a path such as `type` in `type.any_` become models of their own."""
    name = prefix + "".join(word.capitalize() for word in row.name.split("_"))
    fields: dict[str, Any] = {"operator": _OPERATOR} if row.operator else {}
    nested: dict[str, dict[str, Any]] = {}
    for attribute in row.attributes:
        part, _, leaf = attribute.path.rpartition(".")
        (nested.setdefault(part, {}) if part else fields)[leaf] = _field(attribute)
    for part, part_fields in nested.items():
        model = create_model(f"{name}{part.capitalize()}", __base__=_Closed, **part_fields)
        fields[part] = (model | None, Field(default=None, description=f"The {part} of the state."))
    return create_model(name, __base__=_Closed, __doc__=row.subject, **fields)


def _filter_model(row: FilterRow) -> type[_Closed]:
    fields: dict[str, Any] = {"operator": _OPERATOR}
    for part in row.parts:
        model = _sub_filter_model(row.model, part)
        fields[part.name] = (model | None, Field(default=None, description=part.subject))
    return create_model(row.model, __base__=_Closed, __doc__=row.subject, **fields)


_FILTER_FIELDS: Final[dict[str, Any]] = {
    name: (_filter_model(row) | None, Field(default=None, description=row.subject)) for name, row in FILTERS.items()
}
_START = Annotated[
    Any,
    PlainValidator(start_of),
    WithJsonSchema({"anyOf": [*_INSTANT_SCHEMA, {"type": "string", "pattern": "^-P"}]}),
]
_END = Annotated[
    Any,
    PlainValidator(end_of),
    WithJsonSchema({"anyOf": [*_INSTANT_SCHEMA, {"type": "string", "enum": ["now"]}]}),
]
# Python's timedelta, which Prefect turns the number into, ends here.
_WIDTH_LIMIT_S: Final = 86_400 * 1e9

_HISTORY_FIELDS: Final[dict[str, Any]] = {
    "history_start": (
        _START,
        Field(
            description="Start of the first bin: a time (UTC without an offset; a number is Unix seconds, or "
            "milliseconds above 2e10), or a duration before `history_end`, such as `-PT24H`.",
            examples=["2026-11-23T08:00:00Z", "-PT24H"],
        ),
    ),
    "history_end": (
        _END,
        Field(
            description="Bins start strictly before this time; the word `now` is the time of the request.",
            examples=["2026-11-24T08:00:00Z", "now"],
        ),
    ),
    "history_interval_seconds": (
        float,
        Field(
            allow_inf_nan=False,
            lt=_WIDTH_LIMIT_S,
            description="Width of a bin, at least 1; fractions are rounded to microseconds.",
            examples=[4320],
        ),
    ),
}

CountBody: Final = create_model(
    "TaskRunCount",
    __doc__="Which task runs to count. Unknown keys are ignored here, and refused inside the filters.",
    **_FILTER_FIELDS,
)
HistoryBody: Final = create_model(
    "TaskRunHistory",
    __doc__="The range, the width of a bin, and which task runs to count. Unknown keys are ignored here, and "
    "refused inside the filters.",
    **_HISTORY_FIELDS,
    **_FILTER_FIELDS,
)


def history_request(body: BaseModel) -> HistoryRequest:
    """The request that a valid `HistoryBody` makes; raises `BadRequestError` for a width below a second."""
    start, end, seconds = (getattr(body, name) for name in _HISTORY_FIELDS)
    return HistoryRequest(start, end, width_of(seconds), filters_of(body))


def filters_of(body: BaseModel) -> Filters:
    """The filters of a valid body."""
    given = {name: getattr(body, name) for name in FILTERS}
    return Filters(**{name: _entity(FILTERS[name], model) for name, model in given.items() if model is not None})


def _entity(row: FilterRow, model: BaseModel) -> EntityFilter:
    parts = ((part, getattr(model, part.name)) for part in row.parts)
    given = (_sub_filter(part, found) for part, found in parts if found is not None)
    return EntityFilter(getattr(model, "operator"), tuple(given))  # noqa: B009 - the model is made from the table


def _sub_filter(row: SubFilterRow, model: BaseModel) -> SubFilter:
    return SubFilter(row.name, getattr(model, "operator", Operator.AND), tuple(_values(row.attributes, model)))


def _values(attributes: Iterable[Attribute], model: BaseModel) -> Iterator[tuple[str, Value]]:
    for attribute in attributes:
        found: Any = model
        for step in attribute.path.split("."):
            found = getattr(found, step, None)
        if found is not None:
            yield attribute.path, _value(attribute, found)
        elif attribute.default is not None:
            yield attribute.path, None


def _value(attribute: Attribute, found: Any) -> Value:
    match attribute.kind:
        case Kind.UUIDS if attribute.columns == ("flow_run.created_by_id",):
            return frozenset(str(entry) for entry in found)
        case Kind.UUIDS:
            return frozenset(entry.bytes for entry in found)
        case Kind.TEXTS | Kind.STATE_TYPES:
            return frozenset(str(entry) for entry in found)
        case _:
            value: Value = found
            return value

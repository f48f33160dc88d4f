"""Cohorts: the runs whose flow runs share every declared attribute.

Every run is in exactly one cohort, so whatever is asked of these attributes, or of the flows and deployments behind
them, in any combination, selects a set of cohorts, hence a sum of cells. A shard numbers the cohorts it meets; the
numbering is append-only and part of the shard's committed state.

A further attribute is one more row of `ATTRIBUTES` (and of `attributes.By` in the filter table); stored cohorts that do
not give it are UNKNOWN there until a rebuild, and what is unknown is answered from raw runs.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Mapping
from enum import Enum
from typing import Any, Final

from .changes import FLOW_RUN

Values = tuple[Any, ...]
"""A flow run's fields, in the order of `changes.FLOW_RUN`."""


class Unknown(Enum):
    """The value of an attribute that a cohort does not tell."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN
Cohort = tuple[Hashable, ...]
"""The attributes in the order of `ATTRIBUTES`."""


def _field(name: str) -> Callable[[Values], Hashable]:
    at = FLOW_RUN.fields.index(name)
    return lambda values: values[at]


def _tag_set(values: Values) -> Hashable:
    tags = values[_TAGS]
    return tuple(sorted(set(tags))) if tags else ()


def _is_child(values: Values) -> Hashable:
    return values[_PARENT] is not None


_TAGS: Final = FLOW_RUN.fields.index("tags")
_PARENT: Final = FLOW_RUN.fields.index("parent_task_run_id")

ATTRIBUTES: Final[Mapping[str, Callable[[Values], Hashable]]] = {
    "flow_id": _field("flow_id"),
    "flow_name": _field("flow_name"),
    "deployment_id": _field("deployment_id"),
    "tags": _tag_set,
    "work_queue_name": _field("work_queue_name"),
    "child": _is_child,
}
"""What the runs of a cohort share. The flow's name is the one that the flow run gives, of use while the catalog does
not know the flow; `child`: the flow run is a subflow run."""

NAMES: Final = tuple(ATTRIBUTES)
_AT: Final = {name: number for number, name in enumerate(NAMES)}
_NOTHING: Final[Values] = (None,) * len(FLOW_RUN.fields)

NO_FLOW_RUN: Final[Cohort] = ("no flow run",)
"""The cohort of runs without a flow run; it shares no attribute with any other."""


def cohort_of(values: Values | None) -> Cohort:
    """The cohort of a flow run's task runs; None is a flow run that is only referred to."""
    given = _NOTHING if values is None else values
    return tuple(attribute(given) for attribute in ATTRIBUTES.values())


def attribute(cohort: Cohort, name: str) -> Any:
    """One attribute of a cohort, None for runs without a flow run."""
    return None if cohort == NO_FLOW_RUN else cohort[_AT[name]]


def other_tags(cohort: Cohort) -> Cohort:
    """The cohort that takes what would be one tag set too many."""
    at = _AT["tags"]
    return (*cohort[:at], UNKNOWN, *cohort[at + 1 :])


def knowing(cohort: Cohort, names: Container[str]) -> Cohort:
    """The cohort that holds the same runs where only these attributes are known."""
    if cohort == NO_FLOW_RUN:
        return cohort
    return tuple(value if name in names else UNKNOWN for name, value in zip(_AT, cohort, strict=True))


def is_current(cohort: Cohort) -> bool:
    """Whether a cohort tells every attribute, or all but tags; others hold no runs once a rebuild is over."""
    return cohort == NO_FLOW_RUN or all(cohort[at] is not UNKNOWN for name, at in _AT.items() if name != "tags")


class Cohorts:
    """One shard's dictionary of cohorts: `known[number]`, and for each number the flow and deployment scopes' ids."""

    __slots__ = ("_numbers", "known")

    def __init__(self) -> None:
        self.known: list[Cohort] = []
        self._numbers: dict[Cohort, int] = {}

    def __len__(self) -> int:
        return len(self.known)

    def append(self, cohort: Cohort) -> int:
        """Give a cohort the next number."""
        number = self._numbers[cohort] = len(self.known)
        self.known.append(cohort)
        return number

    def number(self, cohort: Cohort) -> int | None:
        """The number of a cohort, None when it is not in the dictionary."""
        return self._numbers.get(cohort)

"""Scopes: whose runs a cell sums up.

Within a scope kind every *scope* has a number in its shard: `all` has one, a cohort its number in the dictionary, a
flow or deployment the number under which this process first met it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .levels import LEVELS


@dataclass(frozen=True, slots=True, eq=False)  # each is one of a kind: compared as what it is
class Scope:
    """One kind of scope: the letter that names it in keys, and the levels at which it has cells.

    `attribute`: the cohort attribute that tells the scope of a run; None for `all` and for cohorts themselves.
    """

    name: str
    letter: str
    levels: tuple[int, ...]
    attribute: str | None = None


_EVERY: Final = tuple(level.number for level in LEVELS)
_HOURS: Final = _EVERY[2:]

ALL: Final = Scope("all", "a", _EVERY)
COHORT: Final = Scope("cohort", "c", _EVERY)
FLOW: Final = Scope("flow", "f", _HOURS, "flow_id")
DEPLOYMENT: Final = Scope("deployment", "d", _HOURS, "deployment_id")
SCOPES: Final = (ALL, COHORT, FLOW, DEPLOYMENT)
"""A flow or deployment over a long range reads few cells; below an hour its cohorts are few enough."""

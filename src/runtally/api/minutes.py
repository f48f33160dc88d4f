"""Raw runs of single minutes in this process' numbers: what an edge of a bin needs, by minute and shard.

What was made of a copy is kept as long as the view keeps that copy, and the cohorts in it as long as no flow run of
the shard changed: dashboards ask for the same edges again and again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ..core.cohorts import NO_FLOW_RUN, Cohort, attribute
from ..core.groups import CHILD
from ..core.levels import NONE
from ..core.rows import Ints, Rows
from ..store.bounded import Bounded
from ..store.places import FLOW_RUN, Place, RawMinute
from ..store.view import View
from .numbering import Numbering

_RUN_BYTES: Final = 100
_OVERHEAD: Final = 1000


@dataclass(frozen=True, slots=True)
class Runs:
    """Rows with our groups, and the number of each one's cohort; without cohorts the CHILD flag is not set either."""

    rows: Rows
    cohort: Ints


@dataclass(frozen=True, slots=True)
class _Known:
    """`version`: of the shard's flow runs, −1 where it does not matter."""

    raw: RawMinute
    version: int
    runs: Runs


class Minutes:
    """Runs by shard and minute, within a budget of bytes."""

    def __init__(self, budget_bytes: int, numbering: Numbering) -> None:
        self._numbering = numbering
        self._known: Bounded[tuple[int, int, bool], _Known] = Bounded(
            budget_bytes, lambda known: _OVERHEAD + _RUN_BYTES * len(known.raw.ids)
        )

    def trim(self) -> None:
        """Keep within the budget: between answers."""
        self._known.trim()

    def of(self, view: View, position: int, minute: int, raw: RawMinute, *, whose: bool) -> Runs | list[Place]:
        """The runs of a copy, with their cohorts if it matters `whose` they are; or what has to be read for that."""
        key = (position, minute, whose)
        version = view.flow_runs_version if whose else NONE
        known = self._known.get(key)
        if known is not None and known.raw is raw and known.version == version:
            return known.runs
        runs = self._made(view, raw, whose=whose)
        if isinstance(runs, Runs):
            self._known.put(key, _Known(raw, version, runs))
        return runs

    def _made(self, view: View, raw: RawMinute, *, whose: bool) -> Runs | list[Place]:
        rows = raw.rows
        group = self._numbering.group(view, rows.group)
        cohort = np.zeros(len(rows), np.int64)
        if whose:
            found: list[Cohort] = []
            absent: list[Place] = []
            for run in raw.flow_runs:
                of_run = NO_FLOW_RUN if run is None else view.cohort(run)
                if of_run is not None:
                    found.append(of_run)
                elif run is not None:
                    absent.append(Place(FLOW_RUN, 0, field=run))
            if absent:
                return absent
            child = np.array([attribute(each, "child") is True for each in found])
            group = group | np.where(child[raw.flow_run], CHILD, 0).astype(np.uint32)
            cohort = np.array([self._numbering.number(each) for each in found], np.int64)[raw.flow_run]
        return Runs(Rows(rows.expected, rows.start, rows.state_time, rows.total, group), cohort)

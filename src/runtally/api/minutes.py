"""Raw runs of single minutes in this process' numbers: what an edge of a bin needs, by minute and shard.

What was made of a copy is kept until the minute or one of its flow runs changes: dashboards ask for the same edges
again and again.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from typing import Final

import numpy as np

from ..core.cohorts import NO_FLOW_RUN, Cohort, attribute
from ..core.groups import CHILD
from ..core.rows import Ints, Rows, concat
from ..store.hot import Hot
from ..store.places import FLOW_RUN, RAW, Place, RawMinute
from ..store.view import View
from .numbering import Numbering
from .sums import Missing

_OVERHEAD: Final = 400
_A_FLOW_RUN: Final = 300
_COLUMNS: Final = 6

_Key = tuple[int, int]
"""The position of a view, and a minute."""


@dataclass(frozen=True, slots=True)
class Runs:
    """Rows with our groups, and the number of each one's cohort; without cohorts the CHILD flag is not set either."""

    rows: Rows
    cohort: Ints


@dataclass(frozen=True, slots=True)
class _Known:
    """`runs`: packed, run by run; `flow_runs`: those whose cohorts are in it."""

    runs: bytes
    flow_runs: tuple[bytes, ...]

    @property
    def weight(self) -> int:
        return _OVERHEAD + len(self.runs) + _A_FLOW_RUN * len(self.flow_runs)


class Minutes:
    """Runs by shard and minute, with and without their cohorts, within a budget of bytes."""

    def __init__(self, budget_bytes: int, numbering: Numbering) -> None:
        self._numbering = numbering
        self._limit = budget_bytes
        self._weight = 0
        # What was made last stands last.
        self._known: dict[bool, OrderedDict[_Key, _Known]] = {True: OrderedDict(), False: OrderedDict()}
        self._of_flow_run: defaultdict[tuple[int, bytes], set[_Key]] = defaultdict(set)
        self._hot = {True: Hot[_Key](), False: Hot[_Key]()}

    def clear(self) -> None:
        """Forget everything."""
        for known in self._known.values():
            known.clear()
        for hot in self._hot.values():
            hot.clear()
        self._of_flow_run.clear()
        self._weight = 0

    def drop(self, position: int, minutes: Iterable[int], flow_runs: Iterable[bytes]) -> None:
        """Forget what was made of minutes and flow runs of the view at a position, which have changed."""
        for minute in minutes:
            for whose in self._known:
                self._lose((position, minute), whose=whose)
        for flow_run in flow_runs:
            for key in [*self._of_flow_run.get((position, flow_run), ())]:
                self._lose(key, whose=True)

    def trim(self) -> None:
        """Keep within the budget, between answers: what was made first goes."""
        while self._weight > self._limit:
            whose = len(self._known[True]) >= len(self._known[False])
            self._discard(next(iter(self._known[whose])), whose=whose)

    def of(self, views: Sequence[View], minutes: Ints, positions: Ints, missing: Missing, *, whose: bool) -> Runs:
        """The runs of minutes, each of the view at the position of the same index, with their cohorts if it matters
        `whose` they are; what has to be read for the others goes to `missing`."""
        known = self._known[whose]
        keys = [*zip(positions.tolist(), minutes.tolist(), strict=True)]
        self._hot[whose].use(keys)
        found = [*map(known.get, keys)]
        if None in found:
            lacking = [key for key in keys if key not in known]
            self._hot[whose].want(lacking)
            self._make(views, lacking, missing, whose=whose)
            found = [*map(known.get, keys)]
        entries = np.frombuffer(b"".join([each.runs for each in found if each]), np.int64).reshape(-1, _COLUMNS)
        expected, start, state_time, total, group, cohort = np.ascontiguousarray(entries.T)
        return Runs(Rows(expected, start, state_time, total, group.astype(np.uint32)), cohort)

    def remake(self, views: Sequence[View]) -> Iterator[None]:
        """Make what changed lately and is likely to be asked for, a shard after the other."""
        for whose, hot in self._hot.items():
            lacking = sorted(key for key in hot if key not in self._known[whose])
            hot.move()
            for _, of_view in groupby(lacking, itemgetter(0)):
                self._make(views, of_view, defaultdict(list), whose=whose)
                yield

    def _lose(self, key: _Key, *, whose: bool) -> None:
        if key in self._known[whose]:
            self._discard(key, whose=whose)
            self._hot[whose].lose(key)

    def _discard(self, key: _Key, *, whose: bool) -> None:
        known = self._known[whose].pop(key, None)
        if known is None:
            return
        self._weight -= known.weight
        for flow_run in known.flow_runs:
            keys = self._of_flow_run[key[0], flow_run]
            keys.discard(key)
            if not keys:
                del self._of_flow_run[key[0], flow_run]

    def _make(self, views: Sequence[View], keys: Iterable[_Key], missing: Missing, *, whose: bool) -> None:
        """Make what can be made, all at once: most minutes have few runs."""
        ready: list[tuple[_Key, RawMinute, list[Cohort]]] = []
        for position, of_view in groupby(sorted(keys), itemgetter(0)):
            minutes = [minute for _, minute in of_view]
            for minute, raw in zip(minutes, views[position].raw(minutes), strict=True):
                if raw is None:
                    missing[position].append(Place(RAW, minute))
                    continue
                cohorts, absent = _cohorts(views[position], raw) if whose else ([], [])
                if absent:
                    missing[position] += absent
                else:
                    ready.append(((position, minute), raw, cohorts))
        if not ready:
            return
        sizes = [len(raw.rows) for _, raw, _ in ready]
        packed = self._packed(views, ready, np.array(sizes), whose=whose).tobytes()
        width = _COLUMNS * np.dtype(np.int64).itemsize
        end = 0
        for (key, raw, _), size in zip(ready, sizes, strict=True):
            begin, end = end, end + size * width
            flow_runs = tuple(run for run in raw.flow_runs if run is not None) if whose else ()
            known = self._known[whose][key] = _Known(packed[begin:end], flow_runs)
            self._weight += known.weight
            for flow_run in flow_runs:
                self._of_flow_run[key[0], flow_run].add(key)

    def _packed(
        self, views: Sequence[View], ready: Sequence[tuple[_Key, RawMinute, list[Cohort]]], sizes: Ints, *, whose: bool
    ) -> Ints:
        """The runs of minutes, one after the other, as rows of six columns."""
        rows = concat([raw.rows for _, raw, _ in ready])
        group = self._numbering.groups_of(views, np.repeat([key[0] for key, _, _ in ready], sizes), rows.group)
        cohort = np.zeros(len(rows), np.int64)
        if whose:
            cohorts = [*chain.from_iterable(cohorts for _, _, cohorts in ready)]
            first = np.cumsum([0, *(len(cohorts) for _, _, cohorts in ready[:-1])])
            at = np.concatenate([raw.flow_run for _, raw, _ in ready]) + np.repeat(first, sizes)
            child = np.array([attribute(each, "child") is True for each in cohorts])
            group = group | np.where(child[at], CHILD, 0).astype(np.uint32)
            cohort = np.array([*map(self._numbering.number, cohorts)], np.int64)[at]
        return np.array((rows.expected, rows.start, rows.state_time, rows.total, group, cohort), np.int64).T


def _cohorts(view: View, raw: RawMinute) -> tuple[list[Cohort], list[Place]]:
    """The cohort of each of a minute's flow runs, or what has to be read first."""
    places = [Place(FLOW_RUN, 0, name=run) for run in raw.flow_runs if run is not None]
    cohorts = view.cohorts_at(places)
    absent = [place for place, cohort in zip(places, cohorts, strict=True) if cohort is None]
    return [NO_FLOW_RUN, *(cohort for cohort in cohorts if cohort is not None)], absent

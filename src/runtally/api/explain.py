"""How an answer is found, in words and numbers: the line of its header, and the explanation that a person asks for.

Filters are named as they were written, `task_runs.name.like_`, and not by the atoms that they became.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from ..core.attributes import Attribute, By
from ..core.filters import FILTERS
from ..core.levels import bucket_of_place, level_of
from ..core.plan import divided
from ..core.predicate import Atom
from ..core.request import Filters, Value
from ..core.rows import Ints
from ..core.scopes import ALL, COHORT
from ..core.selection import MAX_SETS, Selection
from ..core.time import text_of
from .answer import Attempt, Question
from .service import Explanation, Reason, Share, Stand, Way, Work

SCAN: Final = "scan"
MAX_LINE: Final = 200
"""Characters of the header's line."""


class Size(NamedTuple):
    """About how many raw runs there are in a range, and in how many minutes (each counts once a shard)."""

    rows: int
    minutes: int


class Unknown(NamedTuple):
    """What no cell knows of its runs, and filters that cells can answer and that often say what is meant."""

    what: str
    instead: tuple[str, ...]


_STATES: Final = ("task_runs.state",)
_TIMES: Final = ("task_runs.expected_start_time", "task_runs.start_time")
_MARKS: Final = ("flow_runs.tags", "flows.name", "deployments.name")

UNKNOWN: Final[dict[str, Unknown]] = {
    "task_run.id": Unknown("ids of task runs", _MARKS),
    "task_run.name": Unknown("names of task runs", _MARKS),
    "task_run.tags": Unknown("tags of task runs", ("flow_runs.tags",)),
    "task_run.end_time": Unknown("end times of task runs", (*_TIMES, *_STATES)),
    "task_run.flow_run_id": Unknown("ids of flow runs", _MARKS),
    "flow_run.id": Unknown("ids of flow runs", _MARKS),
    "flow_run.name": Unknown("names of flow runs", _MARKS),
    "flow_run.state_type": Unknown("states of flow runs", _STATES),
    "flow_run.state_name": Unknown("states of flow runs", _STATES),
    "flow_run.flow_version": Unknown("versions of flows", ("flow_runs.tags",)),
    "flow_run.start_or_expected": Unknown("start times of flow runs", _TIMES),
    "flow_run.start_time": Unknown("start times of flow runs", _TIMES),
    "flow_run.end_time": Unknown("end times of flow runs", _TIMES),
    "flow_run.expected_start_time": Unknown("expected start times of flow runs", _TIMES),
    "flow_run.next_scheduled_start_time": Unknown("next start times of flow runs", _TIMES),
    "flow_run.parent_flow_run_id": Unknown("parents of flow runs", ("task_runs.subflow_runs",)),
    "flow_run.parent_task_run_id": Unknown("which task run a flow run belongs to", ("task_runs.subflow_runs",)),
    "flow_run.idempotency_key": Unknown("idempotency keys", ("flow_runs.tags",)),
    "flow_run.created_by": Unknown("who created a flow run", ("flow_runs.deployment_id",)),
    "flow_run.created_by_id": Unknown("who created a flow run", ("flow_runs.deployment_id",)),
    "flow_run.created_by_type": Unknown("who created a flow run", ("flow_runs.deployment_id",)),
}
"""By column, for every column that only raw runs can answer."""

_ALSO_ASKED: Final[dict[tuple[str, ...], tuple[str, ...]]] = {("flow_run.id",): ("task_run.flow_run_id",)}
"""Where the compiler asks another column than the attribute's own."""


def raw_filters(filters: Filters, selection: Selection) -> tuple[str, ...]:
    """The filters of a request that take a scan of raw runs."""
    return tuple(name for name, _ in _scanned(filters, selection)) or ("filters",)


def line_of_cells(found: Attempt) -> str:
    """An answer from cells in a line."""
    words = [f"cells={sum(part.cells for part in found.parts.values())}"]
    if found.parts:
        words.append("scopes=" + ",".join(f"{kind}:{level}" for kind, level in found.parts))
    if found.raw_minutes:
        words.append(f"raw={len(found.raw_minutes)}m/{found.raw_rows}r")
    if found.frozen_minutes:
        words.append(f"frozen={len(found.frozen_minutes)}m")
    return " ".join(words)


def line_of_scan(rows: int, because: Sequence[str]) -> str:
    """A scan in a line, with as many of the filters as fit."""
    line = f"scan rows={rows} because={because[0]}"
    for number, name in enumerate(because[1:], 1):
        more = f",+{len(because) - number}"
        if len(line) + 1 + len(name) + len(more) > MAX_LINE:
            return line + more
        line += f",{name}"
    return line


def explain_cells(
    question: Question, filters: Filters, found: Attempt, shards: int, known_cohorts: int, size: Size, stand: Stand
) -> Explanation:
    """An answer from cells; `size` is that of a scan instead, `known_cohorts` how many a bucket can hold cells of."""
    assert question.bins is not None
    minutes = bucket_of_place(found.cover[level_of(found.cover) == 0], 0)
    cut = shards * int(divided(minutes, 0, _sorted(question.cuts())).sum())
    rows = round(size.rows * cut / size.minutes) if size.minutes else 0
    shares = [Share(kind, level, part.buckets, part.cells) for (kind, level), part in found.parts.items()]
    return Explanation(
        question.bins,
        False,
        shares,
        Work(len(found.cover), cut, rows),
        Work(sum(share.buckets for share in shares), len(found.raw_minutes), found.raw_rows),
        _ways(found, shards, known_cohorts, rows, size),
        _edges(question, filters, found),
        stand,
    )


def explain_scan(question: Question, filters: Filters, estimated: Size, real: Size, stand: Stand) -> Explanation:
    """A scan."""
    assert question.bins is not None
    return Explanation(
        question.bins,
        True,
        (),
        Work(0, estimated.minutes, estimated.rows),
        Work(0, real.minutes, real.rows),
        [Way(SCAN, 0, 0, estimated.rows, taken=True)],
        _unknown(filters, question.selection),
        stand,
    )


def _ways(found: Attempt, shards: int, known_cohorts: int, rows: int, size: Size) -> list[Way]:
    """Every way in which the answer can be found, the one that was taken first."""
    buckets = len(found.cover)
    by_cohorts = buckets * shards * known_cohorts
    scan = Way(SCAN, 0, 0, size.rows, taken=False)
    cohorts = Way(COHORT.name, buckets, by_cohorts, rows, taken=False)
    single = found.resolved.single
    if found.resolved.code is None:
        return [Way(ALL.name, buckets, buckets * shards, rows, taken=True), cohorts, scan]
    if single is None:
        return [Way(COHORT.name, buckets, by_cohorts, rows, taken=True), scan]
    at_levels = int(np.isin(level_of(found.cover), single[0].levels).sum())
    values = shards * (at_levels + (buckets - at_levels) * known_cohorts)
    return [Way(single[0].name, buckets, values, rows, taken=True), cohorts, scan]


def _unknown(filters: Filters, selection: Selection) -> list[Reason]:
    """Why a scan was needed."""
    reasons = []
    for name, column in _scanned(filters, selection):
        unknown = UNKNOWN[column]
        why = f"No cell knows {unknown.what}, so every run of the range is looked at."
        instead = f"Leave it out, or say it by {' or '.join(unknown.instead)}, which cells know."
        reasons.append(Reason(name, None, why, instead))
    conditions = (
        f"They make {len(selection.sets)} conditions on flows, deployments and tags that cannot be taken together; "
        f"cells take {MAX_SETS}."
    )
    return reasons or [Reason("filters", None, conditions, "Ask with fewer and_ and or_ inside each other.")]


def _edges(question: Question, filters: Filters, found: Attempt) -> list[Reason]:
    """Why some minutes' raw runs were needed; each minute has the first reason that fits."""
    assert question.bins is not None
    minutes = np.array(found.raw_minutes, np.int64)
    ranges = [name for name, attribute, _ in _written(filters) if attribute.by is By.ZONE]
    of_bins = divided(minutes, 0, _sorted(question.bins.edges().tolist()))
    of_now = divided(minutes, 0, _sorted([question.now]))
    of_range = np.full(len(minutes), bool(ranges))
    of_rest = np.ones(len(minutes), np.bool_)
    both_sides = "with runs on both sides, which the bounds of their cells do not tell apart"
    rows = (
        (of_bins, "edges of bins", f"at bin edges {both_sides}", "Bins that begin at whole minutes avoid it."),
        (of_now, "now", f"near now {both_sides}", "Nothing has to be done: it is one minute a shard."),
        (
            of_range,
            ", ".join(ranges),
            f"near the ends of a range {both_sides}",
            "Leave the range out where the bins say the same.",
        ),
        (
            of_rest,
            "runs",
            "with runs that began to run after now, or with more states or sets of tags than a shard counts apart",
            "A few minutes cost little; of many, raise RUNTALLY_MAX_STATES or RUNTALLY_MAX_COHORTS.",
        ),
    )
    reasons = []
    left = np.ones(len(minutes), np.bool_)
    for mask, about, words, instead in rows:
        count = int((left & mask).sum())
        left &= ~mask
        if count:
            reasons.append(Reason(about, count, f"{count:,} {'minute' if count == 1 else 'minutes'} {words}.", instead))
    if found.frozen_minutes:
        count = len(found.frozen_minutes)
        why = (
            f"{count:,} {'minute' if count == 1 else 'minutes'} before {text_of(found.horizon)} would have needed raw "
            "runs, which are gone: each counts as a whole, in the bin that holds its start."
        )
        instead = "Bins and ranges that begin at whole minutes avoid it."
        reasons.append(Reason("frozen runs", None, why, instead))
    return reasons


def _scanned(filters: Filters, selection: Selection) -> Iterator[tuple[str, str]]:
    """The filters that only raw runs can answer, each with its column."""
    raw = set(selection.raw)
    for name, attribute, value in _written(filters):
        for column in (*attribute.columns, *_ALSO_ASKED.get(attribute.columns, ())):
            if attribute.test is not None and Atom(column, attribute.test, value) in raw:
                yield name, column
                break


def _written(filters: Filters) -> Iterator[tuple[str, Attribute, Value]]:
    """Every attribute of a request that restricts something, by the path at which it was written."""
    for entity in filters.given():
        rows = {row.name: row for row in FILTERS[entity].parts}
        for part in getattr(filters, entity).parts:
            for attribute in rows[part.name].attributes:
                value = part.get(attribute.path)
                if attribute.restricts(value):
                    yield f"{entity}.{part.name}.{attribute.path}", attribute, value


def _sorted(cuts: list[int]) -> Ints:
    return np.unique(np.array(cuts, np.int64))

"""Many messages at once: what `wire.parse` says of each, at a third of its cost.

The common event, a full snapshot of a task run, is decoded straight into its struct, and then times and ids are made
of whole columns. Whatever a struct or a column refuses is left to `wire.parse`, which finds the words for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import repeat
from typing import Any, Final, Literal, cast

import msgspec
import numpy as np
from msgspec import Struct

from ..core.changes import TASK_RUN, Change, EntityName
from ..errors import BadEventError
from .contract import StateType
from .ids import Mask, identities, known_identity
from .times import BAD, MAX_DURATION_US, NULL, Ints, micros_of
from .wire import MAX_EVENT_BYTES, NOT_JSON, STRUCTS, Ignored, Topic, of_snapshot, parse

Parsed = Change | Ignored | BadEventError

_FEW: Final = 24
"""Up to so many messages, columns cost more than they save."""


class _TaskRun(Struct, gc=False):
    id: str
    flow_run_id: str | None
    name: str
    state_type: StateType
    state_name: str
    state_timestamp: str
    tags: tuple[str, ...] | None = ()
    expected_start_time: str | None = None
    start_time: str | None = None
    end_time: str | None = None
    total_run_time: float | None = None
    child_flow_run_id: str | None = None


class _TaskRunSnapshot(Struct, gc=False, tag_field="entity", tag="task_run"):
    action: Literal["upsert"]
    occurred: str
    data: _TaskRun


_TaskRunData: Any = STRUCTS["task_run"]
_FlowRunData: Any = STRUCTS["flow_run"]


class _SingleTaskRunSnapshot(Struct, gc=False, tag_field="entity", tag="task_run"):
    action: Literal["upsert"]
    occurred: str
    data: _TaskRunData


class _FlowRunSnapshot(Struct, gc=False, tag_field="entity", tag="flow_run"):
    action: Literal["upsert"]
    occurred: str
    data: _FlowRunData


_Snapshot = _TaskRunSnapshot | _SingleTaskRunSnapshot | _FlowRunSnapshot
_Decode = Callable[[bytes], _Snapshot]
_decode_many: Final[_Decode] = msgspec.json.Decoder(_TaskRunSnapshot | _FlowRunSnapshot).decode
_decode_few: Final[_Decode] = msgspec.json.Decoder(_SingleTaskRunSnapshot | _FlowRunSnapshot).decode
_SINGLE: Final[dict[type[Any], EntityName]] = {_SingleTaskRunSnapshot: "task_run", _FlowRunSnapshot: "flow_run"}
"""Snapshots that are looked at one by one."""


def parse_all(
    values: Sequence[bytes | None], *, topic: Topic, records_us: Sequence[int], max_clock_skew_us: int
) -> Sequence[Parsed]:
    """What each message is; `records_us` are the timestamps of their records. See `wire.parse`."""

    def one(at: int, snapshot: _Snapshot | None) -> Parsed:
        record_us = records_us[at]
        entity = _SINGLE.get(type(snapshot))
        try:
            if snapshot is not None and entity is not None:
                return of_snapshot(entity, snapshot.occurred, snapshot.data, record_us + max_clock_skew_us)
            return parse(values[at], topic=topic, record_us=record_us, max_clock_skew_us=max_clock_skew_us)
        except BadEventError as error:
            return error

    if topic != "runs":
        return [one(at, None) for at in range(len(values))]
    if len(values) <= _FEW:
        return [one(at, snapshot) for at, snapshot in enumerate(_decoded(values, _decode_few))]
    snapshots = _decoded(values, _decode_many)
    task_runs = [at for at, snapshot in enumerate(snapshots) if type(snapshot) is _TaskRunSnapshot]
    found: list[Parsed | None] = [None] * len(values)
    if task_runs:
        latest_us = np.array(records_us, np.int64)[task_runs] + max_clock_skew_us
        changes, good = _changes([cast(_TaskRunSnapshot, snapshots[at]) for at in task_runs], latest_us)
        for at, change, is_good in zip(task_runs, changes, good.tolist(), strict=True):
            if is_good:
                found[at] = change
    return [one(at, snapshots[at]) if known is None else known for at, known in enumerate(found)]


def _decoded(values: Sequence[bytes | None], decode: _Decode) -> list[_Snapshot | None]:
    """The snapshots, None for what is no such."""
    if None not in values:
        known = cast(Sequence[bytes], values)
        with suppress(*NOT_JSON):
            # msgspec does not look into the texts of keys that it skips.
            if max(map(len, known), default=0) <= MAX_EVENT_BYTES and all(map(bytes.isascii, known)):
                return list(map(decode, known))
    return [_decoded_one(value, decode) for value in values]


def _decoded_one(value: bytes | None, decode: _Decode) -> _Snapshot | None:
    if value is None or len(value) > MAX_EVENT_BYTES:
        return None
    try:
        value.isascii() or value.decode()
        return decode(value)
    except NOT_JSON:
        return None


def _changes(snapshots: Sequence[_TaskRunSnapshot], latest_us: Ints) -> tuple[list[Change], Mask]:
    """A change for each snapshot, and for which of them it is right."""
    occurred = [snapshot.occurred for snapshot in snapshots]
    columns: Any = zip(*[msgspec.structs.astuple(snapshot.data) for snapshot in snapshots], strict=True)
    ids, flow_runs, names, types, state_names, states, tags, expected, starts, ends, totals, children = columns
    times = micros_of([*occurred, *states, *expected, *starts, *ends]).reshape(5, -1)
    occurred_us, states_us = times[0], times[1]
    own, good = identities("task_run", ids)
    named = {None, *flow_runs, *children}
    known = _flow_runs(named)
    with np.errstate(over="ignore"):
        durations_us = np.array(totals, np.float64) * 1_000_000
    good &= (times != BAD).all(axis=0) & (occurred_us <= latest_us) & (states_us <= latest_us)
    good &= ~(np.abs(durations_us) > MAX_DURATION_US)
    if len(known) < len(named):
        good &= [flow_run in known and child in known for flow_run, child in zip(flow_runs, children, strict=True)]
    values = zip(
        zip(types, state_names, states_us.tolist(), strict=True),
        _or_none(times[3], times[3] == NULL),
        _or_none(times[4], times[4] == NULL),
        _or_none(np.where(good, np.rint(durations_us), 0.0), np.isnan(durations_us)),
        names,
        [each or () for each in tags],
        _or_none(times[2], times[2] == NULL),
        map(known.get, children),
        strict=True,
    )
    rows = zip(
        repeat("task_run"),
        repeat("upsert"),
        own,
        map(known.get, flow_runs),
        occurred_us.tolist(),
        repeat(TASK_RUN.all_given),
        values,
    )
    # Half the cost of calling `Change`.
    return list(map(tuple.__new__, repeat(Change), rows)), good


def _flow_runs(texts: Iterable[str | None]) -> dict[str | None, bytes | None]:
    """The bytes of those ids that are right, and None for None."""
    known: dict[str | None, bytes | None] = {None: None}
    for text in texts:
        if text is not None:
            try:
                known[text] = known_identity("flow_run", text)
            except BadEventError:
                continue
    return known


def _or_none(numbers: Any, nulls: Mask) -> list[int | None]:
    """Whole numbers as integers, None where they are null."""
    if nulls.all():
        return [None] * len(nulls)
    column: Any = np.where(nulls, 0, numbers).astype(np.int64)
    if nulls.any():
        column = column.astype(object)
        column[nulls] = None
    found: list[int | None] = column.tolist()
    return found

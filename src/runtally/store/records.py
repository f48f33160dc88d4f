"""The stored form of entities.

A task run is a fixed-width part, the same for all, so that many decode at once as columns, and a tail:

    flags       u8    1 = has a child flow run · 4 = has a flow run · and which tail: 0 short, 2 long, 8 with versions
    state       u16   number in the shard's states; OTHER: the state is in the tail
    expected, start, end, state_time, total    i64 each, µs, NULL = −2⁶³
    flow_run    16 bytes, zero without one
    tail        MessagePack, one of
                short   [name, tags], when all events' `occurred` was the state's own timestamp
                with versions   [name, tags, attribute_version, state_occurred]
                long    [name, tags, attribute_version, state_version, child, state | nil, never, {field: version}],
                        where `never` is a bit mask of fields that no event has spoken of

All other entities are MessagePack of `Stored`, an empty value is a tombstone. Where a task run's record is
tells the `index`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from ..core.changes import FLOW_RUN, TASK_RUN
from ..core.cohorts import NAMES, NO_FLOW_RUN, UNKNOWN, Cohort
from ..core.groups import CHILD, IN_FLOW, NO_STATE, OTHER, PARENT, State
from ..core.levels import MINUTE_US, NONE
from ..core.rows import NULL, Rows, effective_total, pack_groups
from ..core.versions import NEVER, NEVER_STATE, Stored

_FIXED: Final = struct.Struct("<BH5q16s")
_EXPECTED: Final = struct.Struct("<q")
_EXPECTED_AT: Final = 3
"""Where in a record its expected time begins, an i64."""
WIDTH: Final = _FIXED.size
FLOW_RUN_AT: Final = WIDTH - 16
"""Where in a record the id of its flow run begins; it ends at WIDTH."""
_COLUMNS: Final = np.dtype(
    [
        ("flags", "u1"),
        ("state", "<u2"),
        ("expected", "<i8"),
        ("start", "<i8"),
        ("end", "<i8"),
        ("state_time", "<i8"),
        ("total", "<i8"),
        ("flow_run", "V16"),
    ]
)
_HAS_CHILD: Final = 1
_LONG: Final = 2
HAS_FLOW_RUN: Final = 4
"""The bit of a record's first byte that says that it has one."""
_VERSIONS: Final = 8
_NO_FLOW_RUN: Final = bytes(16)
_STATE_FIELDS: Final = len(TASK_RUN.state_fields)

DEAD: Final = b""
"""A tombstone: what is stored of a deleted entity."""

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


def minute_of(record: bytes) -> int:
    """The minute in which a task run is expected; NONE without an expected time."""
    expected: int = _EXPECTED.unpack_from(record, _EXPECTED_AT)[0]
    return NONE if expected == NULL else expected // MINUTE_US


def flow_run_of(record: bytes) -> bytes | None:
    """The id of a task run's flow run, None without one."""
    return record[FLOW_RUN_AT:WIDTH] if record[0] & HAS_FLOW_RUN else None


def encode_task_run(stored: Stored, state_number: int, flow_run: bytes | None) -> bytes:
    """The record of a task run; `state_number` is its state's number in the shard (OTHER: past the cap)."""
    state, start, end, total, name, tags, expected, child = stored.values
    own = stored.own
    flags = (0 if child is None else _HAS_CHILD) | (0 if flow_run is None else HAS_FLOW_RUN)
    attribute_version, state_version = stored.attribute_version, stored.state_version
    if own is None and child is None and state is not None and state_number != OTHER:
        if attribute_version == state_version[1] == state[2]:
            tail = _pack((name, tags))
        else:
            flags |= _VERSIONS
            tail = _pack((name, tags, attribute_version, state_version[1]))
    else:
        flags |= _LONG
        never = 0
        others = {}
        for field, version in (own or {}).items():
            if version in (NEVER, NEVER_STATE):
                never |= 1 << field
            else:
                others[field] = version
        kept = state if state_number == OTHER else None
        tail = _pack((name, tags, attribute_version, state_version, child, kept, never, others))
    return (
        _FIXED.pack(
            flags,
            state_number,
            NULL if expected is None else expected,
            NULL if start is None else start,
            NULL if end is None else end,
            NULL if state is None else state[2],
            NULL if total is None else total,
            flow_run or _NO_FLOW_RUN,
        )
        + tail
    )


def decode_task_run(record: bytes, names: Sequence[State | None]) -> Stored:
    """A task run from its record; `names` is the shard's `States.names`."""
    flags, number, expected, start, end, state_time, total, _ = _FIXED.unpack_from(record)
    tail = _unpack(memoryview(record)[WIDTH:])
    name, tags = tail[0], tail[1]
    child = None
    own: dict[int, Any] | None = None
    attribute_version = state_time
    state_version = (state_time, state_time)
    if flags & _VERSIONS:
        attribute_version = tail[2]
        state_version = (state_time, tail[3])
    elif flags & _LONG:
        attribute_version, version, child, _, never, others = tail[2:]
        state_version = (version[0], version[1])
        own = _own_versions(never, others) if never or others else None
    state: tuple[str, str, int] | None
    if number == NO_STATE:
        state = None
    elif number == OTHER:
        state = (*state_in_tail(record), state_time)
    else:
        known = names[number]
        assert known is not None
        state = (*known, state_time)
    values = (
        state,
        None if start == NULL else start,
        None if end == NULL else end,
        None if total == NULL else total,
        name,
        None if tags is None else tuple(tags),
        None if expected == NULL else expected,
        child,
    )
    return Stored(values, attribute_version, state_version, own)


def _own_versions(never: int, others: dict[int, Any]) -> dict[int, Any]:
    own: dict[int, Any] = {
        field: NEVER_STATE if field < _STATE_FIELDS else NEVER
        for field in range(len(TASK_RUN.fields))
        if never >> field & 1
    }
    for field, version in others.items():
        own[field] = tuple(version) if field < _STATE_FIELDS else version
    return own


def rows_of(records: Sequence[bytes], child: npt.NDArray[np.bool_]) -> Rows:
    """Records as rows; `child` says for each whether its flow run is a subflow run."""
    return rows_of_columns(fixed_columns(records), child)


def rows_of_columns(columns: npt.NDArray[np.void], child: npt.NDArray[np.bool_]) -> Rows:
    """The same from `fixed_columns`."""
    start = columns["start"].astype(np.int64)
    flags = (
        np.where(columns["flags"] & _HAS_CHILD, PARENT, 0)
        | np.where(columns["flags"] & HAS_FLOW_RUN, IN_FLOW, 0)
        | np.where(child, CHILD, 0)
    )
    return Rows(
        columns["expected"].astype(np.int64),
        start,
        columns["state_time"].astype(np.int64),
        effective_total(columns["total"].astype(np.int64), start, columns["end"].astype(np.int64)),
        pack_groups(columns["state"].astype(np.int64), flags, start),
    )


def fixed_columns(records: Sequence[bytes]) -> npt.NDArray[np.void]:
    """The fixed-width parts of many records, as one structured array."""
    return np.frombuffer(b"".join([record[:WIDTH] for record in records]), _COLUMNS)


def columns_of(joined: bytes) -> npt.NDArray[np.void]:
    """Fixed-width parts that follow each other, as such an array."""
    return np.frombuffer(joined, _COLUMNS)


def has_flow_run(columns: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    """Which of such an array belong to a flow run."""
    return (columns["flags"] & HAS_FLOW_RUN).astype(bool)


def encode_entity(stored: Stored) -> bytes:
    """The record of a flow run, flow or deployment."""
    return _pack((stored.values, stored.attribute_version, stored.state_version, stored.own))


def decode_entity(record: bytes, states: int) -> Stored:
    """The reverse of `encode_entity`; `states` is the number of state fields of the entity."""
    values, attribute_version, state_version, own = _unpack(record)
    if own is not None:
        own = {field: tuple(version) if field < states else version for field, version in own.items()}
    frozen = tuple(tuple(value) if type(value) is list else value for value in values)
    return Stored(frozen, attribute_version, (state_version[0], state_version[1]), own)


_FLOW_RUN_TYPES: Final[dict[str, Any]] = {
    "state": tuple[str, str, int] | None,
    "tags": tuple[str, ...] | None,
    "created_by": tuple[str | None, str | None] | None,
}
_flow_runs = msgspec.msgpack.Decoder(
    list[tuple[tuple[*(_FLOW_RUN_TYPES.get(name, Any) for name in FLOW_RUN.fields)], Any, Any, Any]]  # type: ignore[misc]
).decode


def decode_flow_runs(records: Sequence[bytes]) -> list[tuple[Any, ...]]:
    """The values of many flow runs at once, without their versions."""
    return [entity[0] for entity in _flow_runs(b"".join([_array_head(len(records)), *records]))]


def _array_head(size: int) -> bytes:
    return b"\xdd" + size.to_bytes(4, "big")


def encode_state(state: State) -> bytes:
    """An entry of the shard's dictionary of states."""
    return _pack(state)


def decode_states(entries: Sequence[bytes]) -> list[State]:
    """Entries of the dictionary, in order."""
    return [(kind, name) for kind, name in map(_unpack, entries)]


def encode_cohort(cohort: Cohort) -> bytes:
    """An entry of the shard's dictionary of cohorts: attributes by name, without those that are unknown."""
    if cohort == NO_FLOW_RUN:
        return _pack(None)
    return _pack({name: value for name, value in zip(NAMES, cohort, strict=True) if value is not UNKNOWN})


def decode_cohorts(entries: Sequence[bytes]) -> list[Cohort]:
    """Entries of the dictionary, in order."""
    return [*map(_decode_cohort, entries)]


@lru_cache(maxsize=1 << 16)
def _decode_cohort(entry: bytes) -> Cohort:
    # Shards have most of their cohorts in common.
    given = _unpack(entry)
    if given is None:
        return NO_FLOW_RUN
    return tuple(tuple(value) if isinstance(value := given.get(name, UNKNOWN), list) else value for name in NAMES)


def state_in_tail(record: bytes) -> State:
    """The state of a run whose state is past the shard's cap (number OTHER)."""
    kind, name, _ = _unpack(memoryview(record)[WIDTH:])[5]
    return kind, name


class _Tail(msgspec.Struct, array_like=True, gc=False):
    """What all tails begin with."""

    name: str | None
    tags: msgspec.Raw


_tails = msgspec.msgpack.Decoder(list[_Tail]).decode


def names_and_tags(records: Sequence[bytes]) -> tuple[list[str | None], list[bytes]]:
    """Names, and tags as they are packed, of many records."""
    tails = _tails(b"".join([_array_head(len(records)), *[record[WIDTH:] for record in records]]))
    return [tail.name for tail in tails], [bytes(tail.tags) for tail in tails]


def unpack_tags(packed: bytes) -> list[str] | None:
    """Tags as `names_and_tags` gives them."""
    tags: list[str] | None = _unpack(packed)
    return tags

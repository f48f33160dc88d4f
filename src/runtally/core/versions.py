"""Merging changes so that the order of arrival does not matter.

Each field is last-writer-wins by its own version: (state_timestamp, occurred) for state fields, `occurred`
for attributes; between equal versions the greater canonical bytes win. Since "take the greatest (version,
bytes)" is commutative, associative and idempotent for each field, any order of any multiset of changes
gives the same `Stored`.

A `Stored` keeps one version for each of the two groups, the greatest of its fields', and in `own` only the
fields whose version differs: none unless patches came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from .changes import Change, Entity, canonical

NEVER: Final = -(1 << 63)
"""The version part of what no event has spoken of."""

StateVersion = tuple[int, int]
NEVER_STATE: Final[StateVersion] = (NEVER, NEVER)


class Stored(NamedTuple):
    """One entity as merged so far; see `changes.Change` for `values`.

    `own` maps a field's number to its version where it differs from its group's: an int for an attribute,
    a pair for a state field. None when there is no such field.
    """

    values: tuple[Any, ...]
    attribute_version: int
    state_version: StateVersion
    own: dict[int, Any] | None


def merge(entity: Entity, old: Stored | None, change: Change) -> Stored:
    """Apply an upsert or patch; returns `old` itself when the change says nothing newer."""
    _, _, _, _, attribute_version, given, values = change
    if given != entity.all_given or (old is not None and old.own is not None):
        return _merge_fields(entity, old, change)
    states = len(entity.state_fields)
    state_version = _state_version(change) if states else NEVER_STATE
    if old is None:
        return _stored(values, attribute_version, state_version)
    kept, old_attribute_version, old_state_version, _ = old
    if attribute_version > old_attribute_version and (not states or state_version > old_state_version):
        return _stored(values, attribute_version, state_version)
    if attribute_version < old_attribute_version and state_version < old_state_version:
        return old
    merged = _newer(kept[:states], old_state_version, values[:states], state_version) + _newer(
        kept[states:], old_attribute_version, values[states:], attribute_version
    )
    top_attribute = max(attribute_version, old_attribute_version)
    top_state = max(state_version, old_state_version)
    if merged == kept and (top_attribute, top_state) == (old_attribute_version, old_state_version):
        return old
    return _stored(merged, top_attribute, top_state)


def repeats(entity: Entity, old: Stored, change: Change) -> bool:
    """Whether a change that says nothing newer has the times of the newest: a duplicate, not a late arrival."""
    if change.occurred != old.attribute_version:
        return False
    tells_state = entity.state_fields and change.given & 1
    return not tells_state or _state_version(change) == old.state_version


def field_versions(entity: Entity, stored: Stored) -> list[Any]:
    """The version of each field, spelled out."""
    states = len(entity.state_fields)
    versions: list[Any] = [stored.state_version] * states + [stored.attribute_version] * len(entity.attributes)
    for number, version in (stored.own or {}).items():
        versions[number] = version
    return versions


def _stored(values: tuple[Any, ...], attribute_version: int, state_version: StateVersion) -> Stored:
    # Half the cost of calling `Stored`.
    return tuple.__new__(Stored, (values, attribute_version, state_version, None))


def _state_version(change: Change) -> StateVersion:
    state = change.values[0]
    return (NEVER if state is None else state[2], change.occurred)


def _newer(old: tuple[Any, ...], old_version: Any, new: tuple[Any, ...], new_version: Any) -> tuple[Any, ...]:
    if new_version > old_version:
        return new
    if new_version < old_version or old == new:
        return old
    return tuple(a if canonical(a) >= canonical(b) else b for a, b in zip(old, new, strict=True))


def _merge_fields(entity: Entity, old: Stored | None, change: Change) -> Stored:
    """The general form: field by field, for patches and for entities that patches have touched."""
    states = len(entity.state_fields)
    count = len(entity.fields)
    if old is None:
        values: list[Any] = [None] * count
        versions: list[Any] = [NEVER_STATE] * states + [NEVER] * (count - states)
    else:
        values = list(old.values)
        versions = field_versions(entity, old)
    state_version = _state_version(change) if states and change.given & 1 else NEVER_STATE
    for number in range(count):
        if not change.given >> number & 1:
            continue
        version: Any = state_version if number < states else change.occurred
        value = change.values[number]
        if version > versions[number] or (version == versions[number] and canonical(value) > canonical(values[number])):
            values[number] = value
            versions[number] = version
    merged = _compact(tuple(values), versions, states)
    return old if merged == old and old is not None else merged


def _compact(values: tuple[Any, ...], versions: Sequence[Any], states: int) -> Stored:
    state_version = max(versions[:states], default=NEVER_STATE)
    attribute_version = max(versions[states:])
    own = {
        number: version
        for number, version in enumerate(versions)
        if version != (state_version if number < states else attribute_version)
    }
    return Stored(values, attribute_version, state_version, own or None)

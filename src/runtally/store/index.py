"""The index: of every task run that is or was counted, where its record is, or since when it has none.

An entry is a decimal integer, which Redis keeps in a few bytes:

    bucket ≥ 0, or NONE    the record is in the raw hash of that bucket
    −16 − 2·day            frozen: the run was expected on that day, its record is gone and its share of the cells stays
    −17 − 2·day            deleted, on that day of the log

Entries of both kinds go when the cells of their day go. Until then they tell an event of a run that was there from the
first event of an unknown one. So that nobody has to look for them, `leaving` of each day names what to look at then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

_FIRST_FROZEN: Final = -16
_WIDTH: Final = 17

FLOW_RUN: Final = b"f"
"""The field of an index hash that is not about a task run, but about the flow run itself: the day up to which it is
frozen."""

Kind = Literal[b"m", b"s", b"d"]
"""What leaves: entries of the members of a flow run, a single task run's, the tombstone of a flow run."""


class Gone(NamedTuple):
    """Why there is no record, and the day of the entry."""

    deleted: bool
    day: int


def frozen(day: int) -> int:
    """The entry of a frozen run."""
    return _FIRST_FROZEN - 2 * day


def deleted(day: int) -> int:
    """The entry of a deleted run."""
    return _FIRST_FROZEN - 1 - 2 * day


def gone(entry: int) -> Gone | None:
    """What an entry says of a run without record; None where it names a bucket."""
    if entry > _FIRST_FROZEN:
        return None
    day, was_deleted = divmod(_FIRST_FROZEN - entry, 2)
    return Gone(bool(was_deleted), day)


def packed(kind: Kind, identity: bytes) -> bytes:
    """An entry of `leaving`."""
    return kind + identity


def unpacked(leaving: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All entries of `leaving`, each once."""
    seen = dict.fromkeys(leaving[at : at + _WIDTH] for at in range(0, len(leaving), _WIDTH))
    return ((entry[:1], entry[1:]) for entry in seen)

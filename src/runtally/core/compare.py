"""Whether two sets of cells are the same, as far as cells promise anything.

Counts and sums have to be equal by (bucket, scope, type, name, flags); stored bounds have to contain the recomputed
ones, since they are only ever widened; a wide cell promises its count alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from .cells import Sums
from .groups import FLAG_BITS, States


@dataclass(frozen=True, slots=True)
class Difference:
    """One cell that is not as it should be, and how."""

    bucket: int
    scope: int
    group: str
    problem: str


def differences(stored: Sums, recomputed: Sums, states: States) -> list[Difference]:
    """What is wrong with `stored`, held against cells made anew from the raw runs; empty when nothing is."""
    known, wanted = _by_cell(stored), _by_cell(recomputed)
    found: list[Difference] = []
    for place in sorted(known.keys() | wanted.keys()):
        bucket, scope, group = place
        problem = _problem(stored, known.get(place), recomputed, wanted.get(place))
        if problem:
            name = states.names[group >> FLAG_BITS]
            found.append(Difference(bucket, scope, f"{name} flags {group & (1 << FLAG_BITS) - 1:04b}", problem))
    return found


def _by_cell(sums: Sums) -> dict[tuple[int, int, int], int]:
    places = zip(sums.bucket.tolist(), sums.scope.tolist(), sums.group.tolist(), strict=True)
    return {place: at for at, place in enumerate(places)}


def _problem(stored: Sums, at: int | None, recomputed: Sums, other: int | None) -> str:
    if at is None:
        return "missing"
    if other is None:
        return "no run belongs to it"
    columns = ("n",) if stored.wide[at] else ("n", "a", "b")
    for column in columns:
        have, want = int(getattr(stored, column)[at]), int(getattr(recomputed, column)[other])
        if have != want:
            return f"{column} is {have}, should be {want}"
    for column, sign in (("expected_lo", -1), ("expected_hi", 1), ("start_lo", -1), ("start_hi", 1), ("turn_hi", 1)):
        have, want = int(getattr(stored, column)[at]), int(getattr(recomputed, column)[other])
        if sign * have < sign * want:
            return f"{column} is {have}, which excludes {want}"
    return ""

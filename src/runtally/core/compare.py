"""Whether two sets of cells are the same, as far as cells promise anything.

Counts and sums have to be equal by (bucket, scope, type, name, flags); stored bounds have to contain the recomputed
ones, since they are only ever widened; a wide cell promises its count alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .cells import Sums, joined
from .groups import CHILD, FLAG_BITS, IN_FLOW, PARENT, STARTED, States

_FLAGS: Final = ((STARTED, "started"), (IN_FLOW, "in a flow run"), (CHILD, "in a subflow"), (PARENT, "is a subflow"))
_BOUNDS: Final = (("expected_lo", -1), ("expected_hi", 1), ("start_lo", -1), ("start_hi", 1), ("turn_hi", 1))


@dataclass(frozen=True, slots=True)
class Difference:
    """One cell that is not as it should be, and how; `group` in words."""

    bucket: int
    scope: int
    group: str
    problem: str


def differences(stored: Sums, recomputed: Sums, states: States) -> list[Difference]:
    """What is wrong with `stored`, held against cells made anew from the raw runs; empty when nothing is."""
    both = joined([stored, recomputed])
    anew = np.arange(len(both)) >= len(stored)
    order = np.lexsort((anew, both.group, both.scope, both.bucket))
    pairs = np.zeros(len(both), np.bool_)
    if len(both):
        here, following = order[:-1], order[1:]
        same = ~anew[here] & anew[following]
        for column in (both.group, both.scope, both.bucket):
            same &= column[here] == column[following]
        pairs[here[same]] = pairs[following[same]] = True
        have, want = here[same], following[same]
    else:
        have = want = order
    wrong = np.flatnonzero(_unequal(both, have, want))
    found = [_named(both, at, "no run belongs to it", states) for at in np.flatnonzero(~pairs & ~anew).tolist()]
    found += [_named(both, at, "missing", states) for at in np.flatnonzero(~pairs & anew).tolist()]
    found += [
        _named(both, at, _problem(both, at, other), states)
        for at, other in zip(have[wrong].tolist(), want[wrong].tolist(), strict=True)
    ]
    return sorted(found, key=lambda one: (one.bucket, one.scope, one.group))


def group_in_words(group: int, states: States) -> str:
    """A group's state and flags."""
    state = group >> FLAG_BITS
    known = states.names[state] if state < len(states) else ("a state", "that the shard does not know")
    name = "without a state, or beyond the cap of states" if known is None else " ".join(known)
    return ", ".join([name, *(words for flag, words in _FLAGS if group & flag)])


def _unequal(both: Sums, have: npt.NDArray[np.intp], want: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    unequal: npt.NDArray[np.bool_] = both.n[have] != both.n[want]
    unequal |= ~both.wide[have] & ((both.a[have] != both.a[want]) | (both.b[have] != both.b[want]))
    for column, sign in _BOUNDS:
        bound = getattr(both, column)
        unequal |= sign * bound[have] < sign * bound[want]
    return unequal


def _problem(both: Sums, at: int, other: int) -> str:
    for column in ("n",) if both.wide[at] else ("n", "a", "b"):
        have, want = (int(getattr(both, column)[one]) for one in (at, other))
        if have != want:
            return f"{column} is {have}, should be {want}"
    for column, sign in _BOUNDS:
        have, want = (int(getattr(both, column)[one]) for one in (at, other))
        if sign * have < sign * want:
            return f"{column} is {have}, which excludes {want}"
    raise AssertionError("called for a cell that is as it should be")


def _named(both: Sums, at: int, problem: str, states: States) -> Difference:
    group = group_in_words(int(both.group[at]), states)
    return Difference(int(both.bucket[at]), int(both.scope[at]), group, problem)

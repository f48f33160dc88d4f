"""Which buckets answer a request, and what to do where a bucket cannot.

The cover goes down the ladder: a bucket that no *cut* (a bin's edge or `now`) divides is used as it is, a
divided one is replaced by its children. A minute is used even when it is divided: its zone maps may still
say that all of its runs fall on one side. Where they say *some*, `decide` asks for the next finer buckets, in the end
for the raw runs of the minute.

Pure: buckets in, verdicts out; reading them is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from .bins import Bins
from .cells import Kinds, Sums
from .levels import COARSEST, FINEST, LEVELS, PAGE, bucket_of_place, level_of, place_of
from .rows import Ints

Cover = list[Ints]
"""Per level, finest first, the buckets to use."""


def cover(days: Iterable[int], cuts: Iterable[int], within: tuple[int, int] | None) -> Cover:
    """The fewest undivided buckets, and the divided minutes, that hold every run expected `within` a range.

    `days` are the existing buckets of the coarsest level; nothing outside them is named. `cuts` are the instants at
    which answers differ.
    """
    chosen: Cover = [np.empty(0, np.int64) for _ in LEVELS]
    candidates = np.array(sorted(days), dtype=np.int64)
    sorted_cuts = np.array(sorted({*cuts}), np.int64)
    for level in reversed(LEVELS):
        width = level.width_us
        begin = candidates * width
        if within is not None:
            inside = (begin + width > within[0]) & (begin < within[1])
            candidates = candidates[inside]
        if level is FINEST:
            chosen[0] = candidates
        else:
            cut = divided(candidates, level.number, sorted_cuts)
            chosen[level.number] = candidates[~cut]
            candidates = children(candidates[cut], level.number)
    return chosen


def divided(buckets: Ints, level: int, cuts: Ints) -> npt.NDArray[np.bool_]:
    """Which buckets have a cut inside; `cuts` are sorted."""
    begin = buckets * LEVELS[level].width_us
    after_begin = cuts.searchsorted(begin, side="right")
    cut: npt.NDArray[np.bool_] = after_begin < cuts.searchsorted(begin + LEVELS[level].width_us)
    return cut


def children(buckets: Ints, level: int) -> Ints:
    """The buckets one level down that make up the given ones."""
    ratio = PAGE[level - 1]
    return (buckets[:, None] * ratio + np.arange(ratio)).ravel()


def finer(places: Ints, within: tuple[int, int] | None) -> Ints:
    """The places one level down that make up the given ones, which are coarser than a minute, and touch the range."""
    parts = [np.empty(0, np.int64)]
    levels = level_of(places)
    for level in LEVELS[1:] if levels.any() else ():
        coarse = bucket_of_place(places[levels == level.number], level.number)
        fine, width = children(coarse, level.number), LEVELS[level.number - 1].width_us
        if within is not None:
            fine = fine[(fine * width + width > within[0]) & (fine * width < within[1])]
        parts.append(place_of(level.number - 1, fine))
    return np.concatenate(parts)


def undecided(sums: Sums, kinds: Kinds, bins: Bins, now: int) -> npt.NDArray[np.bool_]:
    """Which cells cannot be used as a whole: the bin, the state of a clamp or the sums themselves differ
    from run to run or are not known."""
    first = np.minimum(np.maximum(bins.index(sums.expected_lo), -1), bins.count)
    last = np.minimum(np.maximum(bins.index(sums.expected_hi), -1), bins.count)
    outside = (first == last) & ((first == -1) | (first == bins.count))
    late_for_some = kinds.open & (sums.expected_lo < now) & (sums.expected_hi >= now)
    runs_for_some = kinds.running & (sums.turn_hi > now)
    some: npt.NDArray[np.bool_] = ~outside & ((first != last) | late_for_some | runs_for_some | sums.wide)
    return some


def days_between(start: int, end: int) -> range:
    """The buckets of the coarsest level that touch [start, end)."""
    return range(start // COARSEST.width_us, -(-end // COARSEST.width_us))

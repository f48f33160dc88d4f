"""The cells of a shard as its worker holds them: what a commit makes of them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from ..core.cells import CELL, Sums, joined, merged, pack, selected, unpack
from ..core.levels import LEVELS, PAGE
from ..core.rows import Ints
from ..core.scopes import Scope
from .bounded import Bounded
from .fence import Fence
from .keys import DIGITS
from .link import Command

STRETCH: Final = 10_000
"""So many changes of the finest level are worked on at once, some 50 ms of this process; then others get their turn."""
_WEIGHT: Final = 180
"""Rough memory of one remembered place besides its cells."""
_SCOPE_BITS: Final = 32
_LEVEL_BITS: Final = 3

_PAGE: Final = np.array(PAGE, np.int64)

Names = Sequence[tuple[Scope, bytes]]
"""By scope number: the kind, and the scope's name in the fields of cells."""


class _Touched(NamedTuple):
    """A scope of a bucket: its number in `Rollups`, the key of its hash and its field there."""

    place: int
    key: bytes
    field: bytes


class Rollups:
    """Packed cells by level, bucket and scope, read as they are needed and kept within a budget."""

    def __init__(self, fence: Fence, budget_bytes: int) -> None:
        self._fence = fence
        self._known: Bounded[int, bytes] = Bounded(budget_bytes, lambda cells: len(cells) + _WEIGHT)

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()

    def trim(self, besides: int) -> None:
        """Keep within the budget, of which others take some bytes: between batches."""
        self._known.trim(besides)

    async def apply(self, levels: Sequence[Sums], names: Names) -> list[Command]:
        """Add the changes to each level's cells, sorted by bucket; the commands that write them."""
        if len(levels[0]) <= STRETCH:
            return await self._apply(levels, names)
        commands: list[Command] = []
        for some in _stretches(levels):
            commands += await self._apply(some, names)
            await asyncio.sleep(0)
        return commands

    async def _apply(self, levels: Sequence[Sums], names: Names) -> list[Command]:
        """All levels are worked on at once: for few events the number of steps is the cost, not the number of cells."""
        change = joined(levels)
        level = np.repeat(np.arange(len(levels)), [len(sums) for sums in levels])
        places, first, of_change = np.unique(
            _places(level, change.bucket, change.scope), return_index=True, return_inverse=True
        )
        touched = self._touched(places, level[first], change.bucket[first], change.scope[first], names)
        await self._read([one for one in touched if one.place not in self._known])
        return self._merge(change, of_change, touched, level[first], change.bucket[first])

    def _touched(self, places: Ints, level: Ints, bucket: Ints, scope: Ints, names: Names) -> list[_Touched]:
        """The scopes of buckets that columns of equal length name."""
        keys = self._fence.keys
        named: dict[tuple[Scope, int, int], bytes] = {}
        found: list[_Touched] = []
        page, child = np.divmod(bucket, _PAGE[level])
        columns = (places.tolist(), level.tolist(), page.tolist(), child.tolist(), scope.tolist())
        for place, number, of_page, at, code in zip(*columns, strict=True):
            kind, name = names[code]
            key = named.get((kind, number, of_page))
            if key is None:
                key = named[kind, number, of_page] = keys.cells(kind, number, of_page)
            found.append(_Touched(place, key, name + DIGITS[at]))
        return found

    async def _read(self, missing: Sequence[_Touched]) -> None:
        wanted: defaultdict[bytes, list[_Touched]] = defaultdict(list)
        for one in missing:
            wanted[one.key].append(one)
        replies = await self._fence.read(
            [("HMGET", key, *[one.field for one in found]) for key, found in wanted.items()]
        )
        for found, values in zip(wanted.values(), replies, strict=True):
            for one, cells in zip(found, values, strict=True):
                self._known.put(one.place, cells or b"")

    def _merge(
        self, change: Sums, of_change: Ints, touched: list[_Touched], level: Ints, bucket: Ints
    ) -> list[Command]:
        """`of_change` says which of the touched places each entry of a change belongs to; `level` and `bucket` are the
        places'."""
        known = [self._known.get(one.place) or b"" for one in touched]
        of_cell = np.repeat(np.arange(len(touched)), [len(cells) // CELL.itemsize for cells in known])
        nothing = np.zeros(len(of_cell), np.int64)
        old = unpack(np.frombuffer(b"".join(known), CELL), bucket[of_cell], nothing, level[of_cell])
        # A place stands for its level, bucket and scope while cells are brought together.
        old.bucket, change.bucket, change.scope = of_cell, of_change, np.zeros(len(change), np.int64)
        result = merged(old, change)
        of_result = result.bucket
        result.bucket = bucket[of_result]
        packed = pack(result, level[of_result]).tobytes()
        bounds = (np.searchsorted(of_result, np.arange(len(touched) + 1)) * CELL.itemsize).tolist()
        written: defaultdict[bytes, list[bytes]] = defaultdict(list)
        emptied: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for one, before, begin, end in zip(touched, known, bounds[:-1], bounds[1:], strict=True):
            cells = packed[begin:end]
            if cells == before:
                # Of a flow run that moves, those of all runs.
                continue
            self._known.put(one.place, cells)
            if cells:
                written[one.key] += (one.field, cells)
            else:
                emptied[one.key].append(one.field)
        return [
            *[("HSET", key, *pairs) for key, pairs in written.items()],
            *[("HDEL", key, *fields) for key, fields in emptied.items()],
        ]


def _stretches(levels: Sequence[Sums]) -> Iterator[list[Sums]]:
    """The same changes in stretches of time: those of each bucket are in one of them."""
    cuts = np.unique(levels[0].bucket[STRETCH::STRETCH]) * LEVELS[0].width_us
    bounds = [
        [0, *np.searchsorted(sums.bucket * level.width_us, cuts).tolist(), len(sums)]
        for level, sums in zip(LEVELS, levels, strict=True)
    ]
    for at in range(len(cuts) + 1):
        yield [selected(sums, np.arange(bound[at], bound[at + 1])) for sums, bound in zip(levels, bounds, strict=True)]


def _places(level: Ints, bucket: Ints, scope: Ints) -> Ints:
    """One number for each level, bucket and scope."""
    places: Ints = (((bucket + 1) << _LEVEL_BITS | level) << _SCOPE_BITS) | scope
    return places

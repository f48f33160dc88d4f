"""The cells of a shard as its worker holds them: what a commit makes of them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, cast

import numpy as np

from ..core.cells import CELL, Sums, merged, pack, selected, summed, unpack
from ..core.levels import PAGE_SIZES, bucket_of_place, level_of
from ..core.rows import Ints
from ..core.scopes import Scope
from .bounded import Bounded
from .fence import Fence
from .keys import DIGITS
from .link import Command

STRETCH: Final = 10_000
"""So many changes of cells are worked on at once, some 50 ms of this process; then others get their turn."""
_WEIGHT: Final = 180
"""Rough memory of one remembered place besides its cells."""
_SCOPE_BITS: Final = 32
_ANY: Final = np.zeros(1, np.int64)

Names = Sequence[tuple[Scope, bytes]]
"""By scope number: the kind, and the scope's name in the fields of cells."""


class _Touched(NamedTuple):
    """Scopes at places, as columns: each one's number in `Rollups`, the key of its hash and its field there."""

    numbers: list[int]
    keys: list[bytes]
    fields: list[bytes]


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

    async def apply(self, change: Sums, names: Names) -> list[Command]:
        """Add a change as `fold` gives it to the cells; the commands that write them."""
        if len(change) <= STRETCH:
            return await self._apply(change, names)
        commands: list[Command] = []
        for some in _stretches(await asyncio.to_thread(summed, change)):
            commands += await self._apply(some, names)
            await asyncio.sleep(0)
        return commands

    async def _apply(self, change: Sums, names: Names) -> list[Command]:
        """All levels are worked on at once: for few events the number of steps is the cost, not the number of cells."""
        numbers, of_change = np.unique(change.bucket << _SCOPE_BITS | change.scope, return_inverse=True)
        place, scope = numbers >> _SCOPE_BITS, numbers & (1 << _SCOPE_BITS) - 1
        touched = _Touched(numbers.tolist(), *self._named(place, scope, names))
        known = await self._read(touched)
        level = level_of(place)
        bucket = bucket_of_place(place, level)
        of_cell = np.repeat(np.arange(len(known)), [len(cells) // CELL.itemsize for cells in known])
        old = unpack(np.frombuffer(b"".join(known), CELL), bucket[of_cell], _ANY, level[of_cell])
        # Its number stands for a place and scope while cells are brought together.
        old.bucket, change.bucket, change.scope = of_cell, of_change, _ANY
        result = merged(old, change)
        of_result = result.bucket.copy()
        result.bucket = bucket[of_result]
        packed = pack(result, level[of_result]).tobytes()
        bounds = (np.searchsorted(of_result, np.arange(len(known) + 1)) * CELL.itemsize).tolist()
        return self._written(touched, known, [packed[begin:end] for begin, end in pairwise(bounds)])

    def _named(self, place: Ints, scope: Ints, names: Names) -> tuple[list[bytes], list[bytes]]:
        """The key of the hash that holds the cells of a scope at a place, and the field; of columns of them."""
        level = level_of(place)
        page, child = np.divmod(bucket_of_place(place, level), PAGE_SIZES[level])
        named: dict[tuple[Scope, int, int], bytes] = {}
        keys, fields = [], []
        columns = (level.tolist(), page.tolist(), child.tolist(), scope.tolist())
        for of_level, of_page, at, number in zip(*columns, strict=True):
            kind, name = names[number]
            key = named.get((kind, of_level, of_page))
            if key is None:
                key = named[kind, of_level, of_page] = self._fence.keys.cells(kind, of_level, of_page)
            keys.append(key)
            fields.append(name + DIGITS[at])
        return keys, fields

    async def _read(self, touched: _Touched) -> list[bytes]:
        """The cells that are there now."""
        found = [*map(self._known.get, touched.numbers)]
        wanted: defaultdict[bytes, list[int]] = defaultdict(list)
        for at, cells in enumerate(found):
            if cells is None:
                wanted[touched.keys[at]].append(at)
        replies = await self._fence.read(
            [("HMGET", key, *[touched.fields[at] for at in missing]) for key, missing in wanted.items()]
        )
        for missing, values in zip(wanted.values(), replies, strict=True):
            for at, cells in zip(missing, values, strict=True):
                found[at] = cells or b""
                self._known.put(touched.numbers[at], cells or b"")
        return cast(list[bytes], found)

    def _written(self, touched: _Touched, before: list[bytes], after: list[bytes]) -> list[Command]:
        """Remember cells, and the commands that write them."""
        written: defaultdict[bytes, list[bytes]] = defaultdict(list)
        emptied: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for number, key, field, known, cells in zip(*touched, before, after, strict=True):
            if cells == known:
                # Of a flow run that moves, those of all runs.
                continue
            self._known.put(number, cells)
            if cells:
                written[key] += (field, cells)
            else:
                emptied[key].append(field)
        return [
            *[("HSET", key, *pairs) for key, pairs in written.items()],
            *[("HDEL", key, *fields) for key, fields in emptied.items()],
        ]


def _stretches(change: Sums) -> Iterator[Sums]:
    """A change in the order of its places in stretches of time: what it says of a bucket is in one of them."""
    cuts = np.unique(np.searchsorted(change.bucket, change.bucket[::STRETCH])).tolist()
    for begin, end in pairwise([*cuts, len(change)]):
        yield selected(change, np.arange(begin, end))

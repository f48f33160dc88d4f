"""The cells of a shard as its worker holds them: what a commit makes of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from ..core.cells import CELL, Sums, merged, pack, unpack
from ..core.rows import Ints
from ..core.scopes import Scope
from .bounded import Bounded
from .fence import Fence
from .link import Command

_WEIGHT: Final = 180
"""Rough memory of one remembered place besides its cells."""
_SCOPE_BITS: Final = 32
_LEVEL_BITS: Final = 3

Fields = Sequence[tuple[Scope, bytes]]
"""By scope number: the kind, and the field in the hashes of its cells."""


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

    def trim(self) -> None:
        """Keep within the budget: between batches."""
        self._known.trim()

    async def apply(self, levels: Sequence[Sums], fields: Fields) -> list[Command]:
        """Add the changes to each level's cells; the commands that write them."""
        touched = [self._touched(level, change, fields) for level, change in enumerate(levels)]
        await self._read([one for places in touched for one in places if one.place not in self._known])
        commands: list[Command] = []
        for level, change in enumerate(levels):
            commands += self._merge(level, change, touched[level])
        return commands

    def _touched(self, level: int, change: Sums, fields: Fields) -> list[_Touched]:
        """What a change touches, in the order of its entries, which is that of places."""
        places, first = np.unique(_places(level, change.bucket, change.scope), return_index=True)
        keys = self._fence.keys
        named: dict[tuple[Scope, int], bytes] = {}
        found: list[_Touched] = []
        buckets, scopes = change.bucket[first].tolist(), change.scope[first].tolist()
        for place, bucket, scope in zip(places.tolist(), buckets, scopes, strict=True):
            kind, field = fields[scope]
            key = named.get((kind, bucket))
            if key is None:
                key = named[kind, bucket] = keys.cells(kind, level, bucket)
            found.append(_Touched(place, key, field))
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

    def _merge(self, level: int, change: Sums, touched: list[_Touched]) -> list[Command]:
        places = np.array([one.place for one in touched], np.int64)
        known = [self._known.get(one.place) or b"" for one in touched]
        counts = [len(cells) // CELL.itemsize for cells in known]
        of_cell = np.repeat(places, counts)
        scope = of_cell & (1 << _SCOPE_BITS) - 1
        bucket = (of_cell >> _SCOPE_BITS + _LEVEL_BITS) - 1
        result = merged(unpack(np.frombuffer(b"".join(known), CELL), bucket, scope, level), change)
        packed = pack(result, level).tobytes()
        found = _places(level, result.bucket, result.scope)
        first = (np.searchsorted(found, places) * CELL.itemsize).tolist()
        last = (np.searchsorted(found, places, side="right") * CELL.itemsize).tolist()
        written: defaultdict[bytes, list[bytes]] = defaultdict(list)
        emptied: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for one, begin, end in zip(touched, first, last, strict=True):
            cells = packed[begin:end]
            self._known.put(one.place, cells)
            if cells:
                written[one.key] += (one.field, cells)
            else:
                emptied[one.key].append(one.field)
        return [
            *[("HSET", key, *pairs) for key, pairs in written.items()],
            *[("HDEL", key, *fields) for key, fields in emptied.items()],
        ]


def _places(level: int, bucket: Ints, scope: Ints) -> Ints:
    """One number for a level, bucket and scope, in the order of buckets and then scopes."""
    places: Ints = (((bucket + 1) << _LEVEL_BITS | level) << _SCOPE_BITS) | scope
    return places

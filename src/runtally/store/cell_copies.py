"""Copies of a shard's cells as Redis gives them, taken and given by the thousand."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from .places import Place

Cells = bytes | list[bytes]
"""Cells of one scope, packed, or those of every cohort of a bucket: field, cells, field, cells … Empty for none."""

_OVERHEAD: Final = 200
_A_VALUE: Final = 50


class CellCopies:
    """Cells by place, within a budget of bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        # What was read last stands last.
        self._cells: OrderedDict[Place, Cells] = OrderedDict()
        self._of_bucket: defaultdict[tuple[int, int], list[Place]] = defaultdict(list)
        self.weight = 0

    def __contains__(self, place: Place) -> bool:
        return place in self._cells

    def get(self, places: Iterable[Place]) -> list[Cells | None]:
        """The cells of each place, None where they are not here."""
        return [*map(self._cells.get, places)]

    def put(self, places: Sequence[Place], replies: Sequence[Cells | None]) -> None:
        """Take what Redis says of each place."""
        for place, reply in zip(places, replies, strict=True):
            if place in self._cells:
                self._discard(place)
            cells = self._cells[place] = reply or b""
            self._of_bucket[place[:2]].append(place)
            self.weight += _weigh(cells)

    def drop(self, level: int, bucket: int) -> list[Place]:
        """Forget the cells of a bucket; the places that were here."""
        found = [*self._of_bucket.get((level, bucket), ())]
        for place in found:
            self._discard(place)
        return found

    def clear(self) -> None:
        """Forget everything."""
        self._cells.clear()
        self._of_bucket.clear()
        self.weight = 0

    def trim(self) -> None:
        """Keep within the budget: what was read first goes."""
        while self.weight > self._limit:
            self._discard(next(iter(self._cells)))

    def _discard(self, place: Place) -> None:
        self.weight -= _weigh(self._cells.pop(place))
        of_bucket = self._of_bucket[place[:2]]
        of_bucket.remove(place)
        if not of_bucket:
            del self._of_bucket[place[:2]]


def _weigh(cells: Cells) -> int:
    if isinstance(cells, bytes):
        return _OVERHEAD + len(cells)
    return _OVERHEAD + _A_VALUE * len(cells) + sum(map(len, cells))

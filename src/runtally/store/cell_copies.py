"""Copies of pages of a shard's cells, taken and given by the hundred."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from typing import Final

from .places import Page, Place

_OVERHEAD: Final = 400


class CellCopies:
    """Pages by place, within a budget of bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        # What was read last stands last.
        self._pages: OrderedDict[Place, Page] = OrderedDict()
        self._of_page: defaultdict[tuple[int, int], list[Place]] = defaultdict(list)
        self.weight = 0

    def __contains__(self, place: Place) -> bool:
        return place in self._pages

    def get(self, places: Iterable[Place]) -> list[Page | None]:
        """The page of each place, None where it is not here."""
        return [*map(self._pages.get, places)]

    def put(self, places: Iterable[Place], pages: Iterable[Page]) -> None:
        """Take the page of each place."""
        for place, page in zip(places, pages, strict=True):
            if place in self._pages:
                self._discard(place)
            self._pages[place] = page
            self._of_page[place[:2]].append(place)
            self.weight += _weigh(page)

    def drop(self, level: int, page: int) -> list[Place]:
        """Forget the cells of a page; the places that were here."""
        found = [*self._of_page.get((level, page), ())]
        for place in found:
            self._discard(place)
        return found

    def clear(self) -> None:
        """Forget everything."""
        self._pages.clear()
        self._of_page.clear()
        self.weight = 0

    def trim(self) -> None:
        """Keep within the budget: what was read first goes."""
        while self.weight > self._limit:
            self._discard(next(iter(self._pages)))

    def _discard(self, place: Place) -> None:
        self.weight -= _weigh(self._pages.pop(place))
        of_page = self._of_page[place[:2]]
        of_page.remove(place)
        if not of_page:
            del self._of_page[place[:2]]


def _weigh(page: Page) -> int:
    return _OVERHEAD + sum(map(len, page))

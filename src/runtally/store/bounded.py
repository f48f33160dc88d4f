"""A dictionary that forgets what was used longest ago once its weight passes a limit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Bounded(Generic[K, V]):
    """Values by key; `weigh` gives a value's weight, measured when it is put and again by `reweigh`."""

    __slots__ = ("_items", "_limit", "_weigh", "weight")

    def __init__(self, limit: int, weigh: Callable[[V], int]) -> None:
        self._items: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._limit = limit
        self._weigh = weigh
        self.weight = 0

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: K) -> bool:
        return key in self._items

    def items(self) -> Iterator[tuple[K, V]]:
        """All keys and values, none of which counts as used by that."""
        return ((key, value) for key, (value, _) in self._items.items())

    def get(self, key: K) -> V | None:
        """The value, now the most recently used; None when it is not (or no longer) here."""
        found = self._items.get(key)
        if found is None:
            return None
        self._items.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V) -> None:
        """Store a value, or weigh again one that has changed in place."""
        old = self._items.pop(key, None)
        weight = self._weigh(value)
        self._items[key] = (value, weight)
        self.weight += weight - (old[1] if old else 0)

    def discard(self, key: K) -> None:
        """Forget one key, if it is here."""
        old = self._items.pop(key, None)
        if old is not None:
            self.weight -= old[1]

    def trim(self, besides: int = 0) -> bool:
        """Forget the least recently used until the limit holds; whether there was something to forget.

        `besides` is what others hold within the same limit.
        """
        before = len(self._items)
        while self.weight + besides > self._limit and self._items:
            _, (_, weight) = self._items.popitem(last=False)
            self.weight -= weight
        return len(self._items) < before

    def clear(self) -> None:
        """Forget everything."""
        self._items.clear()
        self.weight = 0

"""What changes again and again and is asked for again and again: it is made ready before somebody asks."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final, Generic, TypeVar

_MOVES: Final = 4
_MOST: Final = 400

K = TypeVar("K")


class Hot(Generic[K]):
    """Keys that were lost to a change and then wanted, for four moves after they were last used.

    Of those that were lost and are never wanted, `most_lost` are remembered.
    """

    __slots__ = ("_left", "_lost", "_most_lost")

    def __init__(self, most_lost: int = 4096) -> None:
        self._most_lost = most_lost
        self._left: dict[K, int] = {}
        self._lost: set[K] = set()

    def __iter__(self) -> Iterator[K]:
        return iter(self._left)

    def lose(self, key: K) -> None:
        """Note that something changed, and what was known of it is known no more."""
        if key not in self._left:
            self._lost.add(key)
            if len(self._lost) > self._most_lost:
                self._lost.clear()

    def want(self, keys: Collection[K]) -> None:
        """Note that somebody needs what is not here."""
        for key in self._lost.intersection(keys) if self._lost else ():
            self._lost.discard(key)
            if len(self._left) < _MOST:
                self._left[key] = _MOVES

    def use(self, keys: Collection[K]) -> None:
        """Note that somebody asks for these, whether they are here or not."""
        for key in self._left.keys() & keys if self._left else ():
            self._left[key] = _MOVES

    def move(self) -> None:
        """Count a move."""
        self._left = {key: left - 1 for key, left in self._left.items() if left}

    def clear(self) -> None:
        """Forget all keys."""
        self._left.clear()
        self._lost.clear()

"""The blocks of a shard as few long columns, so that a scan costs by runs and not by blocks.

Most runs are kept as one set of columns. What was read since is a second, short one, and what it replaces is masked;
when that becomes much, the long one is made anew.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from ..core.rows import Ints, Rows, concat
from ..store.blocks import Block, Ids, Runs
from .masks import Mask, folded, folded_text

_FEW: Final = 2_000
"""Up to so many texts are folded sooner one by one than by polars, which takes a millisecond to begin."""
_LOOSE_PART: Final = 8
"""One row in so many may be outside of the long columns, or held by nobody any more."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Runs as columns of equal length; see `blocks.Runs`. `folded` are the names as LIKE compares them."""

    ids: Ids
    rows: Rows
    end: Ints
    flow_run: npt.NDArray[np.int32]
    parent: npt.NDArray[np.bool_]
    names: pl.Series
    folded: pl.Series
    tags: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, parts: Sequence[Runs]) -> Columns:
        """All runs of some parts, in their order; at least one part."""
        texts = list(chain.from_iterable(part.names for part in parts))
        names = pl.Series(texts, dtype=pl.String)
        return cls(
            np.concatenate([part.ids for part in parts]),
            concat([part.rows for part in parts]),
            np.concatenate([part.end for part in parts]),
            np.concatenate([part.flow_run for part in parts]),
            np.concatenate([part.parent for part in parts]),
            names,
            folded(names) if len(texts) > _FEW else pl.Series(list(map(folded_text, texts)), dtype=pl.String),
            np.concatenate([part.tags for part in parts]),
        )

    def part(self, begin: int, end: int) -> Columns:
        """The runs from `begin` to `end`; shares the memory."""
        if (begin, end) == (0, len(self)):
            return self
        which = slice(begin, end)
        return Columns(
            self.ids[which],
            self.rows.take(which),
            self.end[which],
            self.flow_run[which],
            self.parent[which],
            self.names[which],
            self.folded[which],
            self.tags[which],
        )


Part = tuple[Columns, Mask | None]
"""Runs, and which of them still count (None: all)."""
Unit = tuple[Runs, Mask | None]


class Shelf:
    """One shard's columns; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._long: Columns | None = None
        self._spans: dict[int, tuple[int, int]] = {}
        self._placed: list[Runs] = []
        self._alive: Mask | None = None
        self._keeps: dict[int, Mask | None] = {}
        self._held: Sequence[Block] = ()
        self._wanted: Sequence[Block] = ()
        self._parts: list[Part] = []

    def parts(self, wanted: Sequence[Block], held: Sequence[Block]) -> list[Part]:
        """The runs of the wanted blocks; `held` are all that the reader keeps, the wanted among them."""
        with self._lock:
            if held is not self._held:
                if self._unfit(held):
                    self._make(held)
                self._mask(held)
                self._held, self._wanted, self._parts = held, (), []
            if list(map(id, wanted)) != list(map(id, self._wanted)):
                self._wanted, self._parts = wanted, self._find(wanted)
            return self._parts

    def _unfit(self, held: Sequence[Block]) -> bool:
        sizes = [(len(runs.ids), id(runs) in self._spans) for runs, _ in _units(held)]
        alive = sum(size for size, placed in sizes if placed)
        loose = sum(size for size, _ in sizes) - alive
        dead = (len(self._long) if self._long else 0) - alive
        return (loose + dead) * _LOOSE_PART > alive

    def _make(self, held: Sequence[Block]) -> None:
        placed = [runs for runs, _ in _units(held)]
        # What has an id here is kept here: no later object can get the same.
        self._placed = placed
        self._long = Columns.of(placed) if placed else None
        ends = np.cumsum([len(runs) for runs in placed]).tolist()
        self._spans = {id(runs): (end - len(runs), end) for runs, end in zip(placed, ends, strict=True)}
        self._alive, self._keeps = None, {}

    def _mask(self, held: Sequence[Block]) -> None:
        """Mask what has been replaced; parts that were given before keep the mask that they have."""
        changed = [block for block in held if self._keeps.get(id(block.base)) is not block.keep]
        if not changed:
            return
        alive = np.ones(len(self._long or ()), np.bool_) if self._alive is None else self._alive.copy()
        for block in changed:
            if (span := self._spans.get(id(block.base))) is not None:
                alive[slice(*span)] = True if block.keep is None else block.keep
                self._keeps[id(block.base)] = block.keep
        self._alive = alive

    def _find(self, wanted: Sequence[Block]) -> list[Part]:
        spans: list[tuple[int, int]] = []
        loose: list[Unit] = []
        for runs, keep in _units(wanted):
            span = self._spans.get(id(runs))
            if span is None:
                loose.append((runs, keep))
            elif spans and spans[-1][1] == span[0]:
                spans[-1] = spans[-1][0], span[1]
            else:
                spans.append(span)
        alive = self._alive
        parts: list[Part] = [
            (self._long.part(begin, end), None if alive is None else alive[begin:end])
            for begin, end in spans
            if self._long
        ]
        if loose:
            parts.append((Columns.of([runs for runs, _ in loose]), _alive(loose)))
        return parts


def _units(blocks: Sequence[Block]) -> list[Unit]:
    """What blocks are made of, without what is empty."""
    units: list[Unit] = [(block.base, block.keep) for block in blocks if len(block.base.ids)]
    return units + [(block.fresh, None) for block in blocks if block.fresh is not None and len(block.fresh.ids)]


def _alive(units: Sequence[Unit]) -> Mask | None:
    if all(keep is None for _, keep in units):
        return None
    return np.concatenate([np.ones(len(runs), np.bool_) if keep is None else keep for runs, keep in units])

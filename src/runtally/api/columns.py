"""The blocks of a shard as few long columns, so that a scan costs by runs and not by blocks.

Most blocks are kept as one set of columns. The few that have changed since are a second, short one; when they become
many, the long one is made anew.
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
from ..store.blocks import Block, Ids
from .masks import folded

_LOOSE_PART: Final = 8
"""One row in so many may be outside of the long columns, or dead in them."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Runs as columns of equal length; see `Block`. `folded` are the names as LIKE compares them."""

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
    def of(cls, blocks: Sequence[Block]) -> Columns:
        """All runs of some blocks, in their order; at least one block."""
        names = list(chain.from_iterable(block.names for block in blocks))
        return cls(
            np.concatenate([block.ids for block in blocks]),
            concat([block.rows for block in blocks]),
            np.concatenate([block.end for block in blocks]),
            np.concatenate([block.flow_run for block in blocks]),
            np.concatenate([block.parent for block in blocks]),
            pl.Series(names, dtype=pl.String),
            folded(names),
            np.concatenate([block.tags for block in blocks]),
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


class Shelf:
    """One shard's columns; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._long: Columns | None = None
        self._held: Sequence[Block] = ()
        self._blocks: list[Block] = []
        self._spans: dict[int, tuple[int, int]] = {}
        self._short: tuple[list[Block], Columns] | None = None

    def columns(self, wanted: Sequence[Block], held: Sequence[Block]) -> list[Columns]:
        """The runs of the wanted blocks; `held` are all that the reader keeps, the wanted among them."""
        with self._lock:
            if held is not self._held:
                if self._unfit(held):
                    self._make(held)
                self._held = held
            return self._parts(wanted)

    def _unfit(self, held: Sequence[Block]) -> bool:
        alive = sum(len(block) for block in held if id(block) in self._spans)
        loose = sum(map(len, held)) - alive
        dead = (len(self._long) if self._long else 0) - alive
        return (loose + dead) * _LOOSE_PART > alive

    def _make(self, held: Sequence[Block]) -> None:
        self._blocks = [block for block in held if len(block)]
        self._long = Columns.of(self._blocks) if self._blocks else None
        ends = np.cumsum([len(block) for block in self._blocks]).tolist()
        self._spans = {id(block): (end - len(block), end) for block, end in zip(self._blocks, ends, strict=True)}
        self._short = None

    def _parts(self, wanted: Sequence[Block]) -> list[Columns]:
        spans: list[tuple[int, int]] = []
        loose: list[Block] = []
        for block in wanted:
            span = self._spans.get(id(block))
            if span is None:
                loose.append(block)
            elif spans and spans[-1][1] == span[0]:
                spans[-1] = (spans[-1][0], span[1])
            else:
                spans.append(span)
        parts = [self._long.part(*span) for span in spans] if self._long else []
        loose = [block for block in loose if len(block)]
        if loose:
            if self._short is None or list(map(id, self._short[0])) != list(map(id, loose)):
                self._short = (loose, Columns.of(loose))
            parts.append(self._short[1])
        return parts

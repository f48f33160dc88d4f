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
        self._held: Sequence[Block] = ()
        self._units: list[Unit] = []
        self._wanted: Sequence[Block] = ()
        self._parts: list[Part] = []

    def parts(self, wanted: Sequence[Block], held: Sequence[Block]) -> list[Part]:
        """The runs of the wanted blocks; `held` are all that the reader keeps, the wanted among them."""
        with self._lock:
            if held is not self._held:
                self._units = _units(held)
                if self._unfit(self._units):
                    self._make([runs for runs, _ in self._units])
                self._held, self._wanted, self._parts = held, (), []
            asked = list(map(id, wanted))
            if asked != list(map(id, self._wanted)):
                every = asked == list(map(id, held))
                self._parts = self._find(self._units if every else _units(wanted))
                self._wanted = wanted
            return self._parts

    def _unfit(self, held: Sequence[Unit]) -> bool:
        alive = sum(len(runs) for runs, _ in held if id(runs) in self._spans)
        loose = sum(len(runs) for runs, _ in held) - alive
        dead = (len(self._long) if self._long else 0) - alive
        return (loose + dead) * _LOOSE_PART > alive

    def _make(self, placed: list[Runs]) -> None:
        # What has an id here is kept here: no later object can get the same.
        self._placed = placed
        self._long = Columns.of(placed) if placed else None
        ends = np.cumsum([len(runs) for runs in placed]).tolist()
        self._spans = {id(runs): (end - len(runs), end) for runs, end in zip(placed, ends, strict=True)}

    def _find(self, wanted: Sequence[Unit]) -> list[Part]:
        spans: list[tuple[int, int, list[Unit]]] = []
        loose: list[Unit] = []
        for unit in wanted:
            span = self._spans.get(id(unit[0]))
            if span is None:
                loose.append(unit)
            elif spans and spans[-1][1] == span[0]:
                begin, _, units = spans.pop()
                units.append(unit)
                spans.append((begin, span[1], units))
            else:
                spans.append((*span, [unit]))
        parts = [(self._long.part(begin, end), _alive(units)) for begin, end, units in spans] if self._long else []
        if loose:
            parts.append((Columns.of([runs for runs, _ in loose]), _alive(loose)))
        return parts


def _units(blocks: Sequence[Block]) -> list[Unit]:
    """What blocks are made of, without what is empty."""
    parts = ((block.base, block.keep) for block in blocks), ((block.fresh, None) for block in blocks if block.fresh)
    return [(runs, keep) for runs, keep in chain(*parts) if runs is not None and len(runs.ids)]


def _alive(units: Sequence[Unit]) -> Mask | None:
    if all(keep is None for _, keep in units):
        return None
    alive = np.ones(sum(len(runs.ids) for runs, _ in units), np.bool_)
    begin = 0
    for runs, keep in units:
        end = begin + len(runs.ids)
        if keep is not None:
            alive[begin:end] = keep
        begin = end
    return alive

"""A scan itself: what it needs of every shard, gathered, and what is made of it; for any thread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..core.bins import Bins
from ..core.cells import Kinds
from ..core.combine import Entry, Tally, ranked
from ..core.groups import OTHER, State
from ..core.levels import MINUTE_US
from ..core.rows import Ints
from ..store.blocks import Block
from .columns import Columns, Shelf
from .explain import Size
from .joined import Table
from .masks import Mask
from .scan import Dictionaries, Split, selected


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a scan of one shard needs; nothing in it changes any more."""

    wanted: list[Block]
    held: Sequence[Block]
    shelf: Shelf
    table: Table | None
    dictionaries: Dictionaries
    type_codes: npt.NDArray[np.uint8]
    size: int

    def selected(self, tree: Split) -> Iterator[tuple[Columns, Mask]]:
        """The runs, and which of them the tree selects."""
        flow_runs = self.table.selected(tree.flow_run) if self.table and tree.flow_run else None
        for part in self.shelf.parts(self.wanted, self.held):
            yield part[0], selected(part, tree.task_run, flow_runs, self.dictionaries)


def history_of(snapshots: list[Snapshot], tree: Split, bins: Bins, now_us: int) -> list[list[Entry]]:
    """The entries of every bin, of the runs that the tree selects."""
    states = ranked({state for snapshot in snapshots for state in snapshot.dictionaries.states.values()})
    numbering = {state: number for number, state in enumerate(states)}
    tally = Tally(bins, now_us, states)
    for snapshot in snapshots:
        mapped = _state_map(snapshot.dictionaries.states, numbering)
        for columns, mask in snapshot.selected(tree):
            rows = columns.rows.take(np.flatnonzero(mask))
            tally.add_rows(rows, Kinds(rows.group, snapshot.type_codes), mapped)
    return tally.entries()


def count_of(snapshots: list[Snapshot], tree: Split) -> int:
    """How many runs the tree selects."""
    return sum(int(mask.sum()) for snapshot in snapshots for _, mask in snapshot.selected(tree))


def size_of(snapshots: list[Snapshot]) -> Size:
    """How many runs there are to look at, and in how many minutes."""
    minutes = 0
    for snapshot in snapshots:
        for block in snapshot.wanted:
            parts = [block.base.rows.expected if block.keep is None else block.base.rows.expected[block.keep]]
            parts += [] if block.fresh is None else [block.fresh.rows.expected]
            minutes += len(np.unique(np.concatenate(parts) // MINUTE_US))
    return Size(sum(snapshot.size for snapshot in snapshots), minutes)


def _state_map(states: Mapping[int, State], numbering: Mapping[State, int]) -> Ints:
    """The answer's number of each of a shard's states, −1 for those that are in no answer."""
    mapped = np.full(1 + max(states, default=OTHER), -1, np.int64)
    for number, state in states.items():
        mapped[number] = numbering[state]
    return mapped

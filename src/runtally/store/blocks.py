"""Raw runs of six hours, as columns: what a scan reads."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import chain, compress
from typing import Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from ..core.levels import LEVELS, MINUTE_US
from ..core.rows import Ints, Rows, concat
from .keys import RAW_MINUTES
from .records import fixed_columns, names_and_tags, rows_of_columns, unpack_tags

BLOCK_LEVEL: Final = 3
MINUTES: Final = LEVELS[BLOCK_LEVEL].width_us // MINUTE_US
RAW_BUCKETS: Final = MINUTES // RAW_MINUTES

_FRESH_PART: Final = 2
"""When more than one run in so many has been read again, a block is made anew."""

Mask = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.bytes_]
"""16 bytes an entry; numpy compares them as if padded with zeros, which changes nothing between equal widths."""

T = TypeVar("T", bound=Hashable)


class Numbers(Generic[T]):
    """Numbers for values that repeat themselves, so that a question is asked once a value and not once a run."""

    def __init__(self, *first: T) -> None:
        self.values: list[T] = list(first)
        self.by_value: dict[T, int] = {value: number for number, value in enumerate(first)}

    def number(self, value: T) -> int:
        """The number of a value, the next one if it is new."""
        known = self.by_value.get(value)
        if known is None:
            known = self.by_value[value] = len(self.values)
            self.values.append(value)
        return known

    def numbers(self, values: Sequence[T]) -> npt.NDArray[np.int32]:
        """The numbers of many values."""
        for value in dict.fromkeys(values):
            self.number(value)
        return np.fromiter(map(self.by_value.__getitem__, values), np.int32, len(values))


class Dictionaries:
    """A reader's own numbering of tag sets (NULL counts as none) and of flow runs, by id; flow run 0 is none."""

    def __init__(self) -> None:
        self.tag_sets: Numbers[tuple[str, ...]] = Numbers()
        self.flow_runs: Numbers[bytes] = Numbers(bytes(16))
        self._packed: dict[bytes, int] = {}

    def tags(self, packed: Sequence[bytes]) -> npt.NDArray[np.int32]:
        """The numbers of tag sets as they are stored."""
        known = self._packed
        for one in dict.fromkeys(packed):
            if one not in known:
                known[one] = self.tag_sets.number(tuple(unpack_tags(one) or ()))
        return np.fromiter(map(known.__getitem__, packed), np.int32, len(packed))


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Runs as columns of equal length; `flow_run` and `tags` are numbers of the reader's `Dictionaries`."""

    ids: Ids
    rows: Rows
    end: Ints
    flow_run: npt.NDArray[np.int32]
    parent: npt.NDArray[np.bool_]
    names: tuple[str | None, ...]
    tags: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, keep: Mask) -> Runs:
        """The runs that a mask selects."""
        return Runs(
            self.ids[keep],
            self.rows.take(keep),
            self.end[keep],
            self.flow_run[keep],
            self.parent[keep],
            tuple(compress(self.names, keep.tolist())),
            self.tags[keep],
        )

    def outside(self, raw_buckets: frozenset[int]) -> Mask:
        """Which runs are stored in none of some raw buckets."""
        return ~np.isin(self.rows.expected // (RAW_MINUTES * MINUTE_US), np.array(list(raw_buckets), np.int64))


def joined(first: Runs, second: Runs) -> Runs:
    """The runs of both."""
    return Runs(
        np.concatenate([first.ids, second.ids]),
        concat([first.rows, second.rows]),
        np.concatenate([first.end, second.end]),
        np.concatenate([first.flow_run, second.flow_run]),
        np.concatenate([first.parent, second.parent]),
        first.names + second.names,
        np.concatenate([first.tags, second.tags]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """The runs of one block: those of `base` that `keep` selects (None: all), and `fresh` ones of raw buckets read
    since.

    So whoever has derived something from `base` need not derive it anew for the few buckets that have changed.
    """

    base: Runs
    keep: Mask | None = None
    fresh: Runs | None = None
    size: int = field(init=False)

    def __post_init__(self) -> None:
        kept = len(self.base) if self.keep is None else int(np.count_nonzero(self.keep))
        object.__setattr__(self, "size", kept + (0 if self.fresh is None else len(self.fresh)))

    def __len__(self) -> int:
        return self.size

    def patched(self, raw_buckets: frozenset[int], new: Runs) -> Block:
        """The block with all runs of some raw buckets replaced."""
        keep = self.base.outside(raw_buckets)
        if self.keep is not None:
            keep &= self.keep
        fresh = new if self.fresh is None else joined(self.fresh.take(self.fresh.outside(raw_buckets)), new)
        if len(fresh) * _FRESH_PART > len(self.base):
            return Block(joined(self.base.take(keep), fresh))
        return Block(self.base, keep, fresh)


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """Runs as they were read: columns of equal length, and numbers for flow runs and tags that hold here alone."""

    records: Sequence[bytes]
    ids: Ids
    rows: Rows
    end: Ints
    parent: npt.NDArray[np.bool_]
    names: tuple[str | None, ...]
    flow_runs: Sequence[bytes]
    flow_run: npt.NDArray[np.int32]
    tag_sets: Sequence[bytes]
    tags: npt.NDArray[np.int32]

    def numbered(self, known: Dictionaries) -> Runs:
        """The same by a reader's numbers."""
        return Runs(
            self.ids,
            self.rows,
            self.end,
            known.flow_runs.numbers(self.flow_runs)[self.flow_run],
            self.parent,
            self.names,
            known.tags(self.tag_sets)[self.tags],
        )


def decode(replies: Sequence[Sequence[bytes]]) -> Decoded:
    """Decode raw hashes (each: id, record, id, record …); for any thread, since it knows no reader."""
    pairs = list(chain.from_iterable(replies))
    records = pairs[1::2]
    columns = fixed_columns(records)
    names, tags = names_and_tags(records)
    # Without a flow run the id is zero, which is number 0 of every reader.
    flow_runs: Numbers[bytes] = Numbers()
    tag_sets: Numbers[bytes] = Numbers()
    flow_run = flow_runs.numbers(columns["flow_run"].tolist())
    return Decoded(
        records,
        np.frombuffer(b"".join(pairs[::2]), "S16"),
        rows_of_columns(columns, np.zeros(len(records), np.bool_)),
        columns["end"].astype(np.int64),
        (columns["flags"] & 1).astype(bool),
        tuple(names),
        flow_runs.values,
        flow_run,
        *(tag_sets.values, tag_sets.numbers(tags)),
    )

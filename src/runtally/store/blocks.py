"""Raw runs of six hours, as columns: what a scan reads."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from ..core.levels import LEVELS, MINUTE_US
from ..core.rows import Ints, Rows, concat
from .records import fixed_columns, names_and_tags, rows_of_columns, unpack_tags

BLOCK_LEVEL: Final = 3
MINUTES: Final = LEVELS[BLOCK_LEVEL].width_us // MINUTE_US

Ids = npt.NDArray[np.bytes_]
"""16 bytes an entry; numpy compares them as if padded with zeros, which changes nothing between equal widths."""

READ_MINUTES: Final = """
local found = {}
for span = 1, #ARGV, 2 do
  for minute = tonumber(ARGV[span]), tonumber(ARGV[span + 1]) do
    local pairs = redis.call('HGETALL', KEYS[1] .. minute)
    if #pairs > 0 then found[#found + 1] = pairs end
  end
end
return found
"""
"""Server-side: all raw hashes of spans of minutes (first, last, first, last …) in one reply. KEYS[1] is the keys'
common beginning."""

READ_NONE: Final = "return {redis.call('HGETALL', KEYS[1])}"
"""The same for the bucket without expected time."""

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


class Dictionaries:
    """A reader's own numbering of tag sets (NULL counts as none) and of flow runs, by id; flow run 0 is none."""

    def __init__(self) -> None:
        self.tag_sets: Numbers[tuple[str, ...]] = Numbers()
        self.flow_runs: Numbers[bytes] = Numbers(bytes(16))
        self._packed: dict[bytes, int] = {}

    def tags(self, packed: bytes) -> int:
        """The number of a tag set as it is stored."""
        known = self._packed.get(packed)
        if known is None:
            known = self._packed[packed] = self.tag_sets.number(tuple(unpack_tags(packed) or ()))
        return known


@dataclass(frozen=True, slots=True)
class Block:
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

    def patched(self, minutes: Collection[int], new: Block) -> Block:
        """The block with all runs of some minutes replaced."""
        keep = ~np.isin(self.rows.expected // MINUTE_US, np.array(list(minutes), np.int64))
        return Block(
            np.concatenate([self.ids[keep], new.ids]),
            concat([self.rows.take(keep), new.rows]),
            np.concatenate([self.end[keep], new.end]),
            np.concatenate([self.flow_run[keep], new.flow_run]),
            np.concatenate([self.parent[keep], new.parent]),
            (*compress(self.names, keep.tolist()), *new.names),
            np.concatenate([self.tags[keep], new.tags]),
        )


def block_of(ids: Sequence[bytes], records: Sequence[bytes], known: Dictionaries) -> Block:
    """Decode records, in bulk where their form allows."""
    columns = fixed_columns(records)
    names, tags = names_and_tags(records)
    number, tags_number = known.flow_runs.number, known.tags
    in_flow = (columns["flags"] & 4).astype(bool)
    flow_runs = [number(identity) for identity in columns["flow_run"].tolist()]
    return Block(
        np.frombuffer(b"".join(ids), "S16"),
        rows_of_columns(columns, np.zeros(len(records), np.bool_)),
        columns["end"].astype(np.int64),
        np.where(in_flow, np.array(flow_runs, np.int32), 0).astype(np.int32),
        (columns["flags"] & 1).astype(bool),
        tuple(names),
        np.array([tags_number(packed) for packed in tags], np.int32),
    )

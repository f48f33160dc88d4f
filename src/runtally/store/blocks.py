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
from .records import Packed, rows_of_columns, unpack_tags

BLOCK_LEVEL: Final = 3
MINUTES: Final = LEVELS[BLOCK_LEVEL].width_us // MINUTE_US

Ids = npt.NDArray[np.bytes_]
"""16 bytes an entry; numpy compares them as if padded with zeros, which changes nothing between equal widths."""

_JOIN: Final = """
local ids, records, sizes, count = {}, {}, {}, 0
local function add(key)
  local pairs = redis.call('HGETALL', key)
  for at = 1, #pairs, 2 do
    count = count + 1
    ids[count], records[count], sizes[count] = pairs[at], pairs[at + 1], #pairs[at + 1]
  end
end
"""
_REPLY: Final = "return {table.concat(ids), table.concat(records), cmsgpack.pack(sizes)}\n"
READ_MINUTES: Final = f"""{_JOIN}
for span = 1, #ARGV, 2 do
  for minute = tonumber(ARGV[span]), tonumber(ARGV[span + 1]) do add(KEYS[1] .. minute) end
end
{_REPLY}"""
"""Server-side: all raw hashes of spans of minutes (first, last, first, last …), as three texts: ids, records, and the
records' sizes packed. KEYS[1] is the keys' common beginning."""

READ_NONE: Final = f"""{_JOIN}
add(KEYS[1])
{_REPLY}"""
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


def block_of(ids: bytes, records: Packed, known: Dictionaries) -> Block:
    """Decode records; `ids` are theirs, 16 bytes each."""
    columns = records.fixed_columns()
    names, tags = records.names_and_tags()
    in_flow = (columns["flags"] & 4).astype(bool)
    flow_runs = known.flow_runs.numbers(columns["flow_run"].tolist())
    return Block(
        np.frombuffer(ids, "S16"),
        rows_of_columns(columns, np.zeros(len(records), np.bool_)),
        columns["end"].astype(np.int64),
        np.where(in_flow, flow_runs, np.int32(0)),
        (columns["flags"] & 1).astype(bool),
        tuple(names),
        known.tags(tags),
    )

"""Raw runs of six hours, as columns: what a scan reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..core.levels import LEVELS, MINUTE_US
from ..core.rows import Ints, Rows
from .records import fixed_columns, names_and_tags, rows_of

BLOCK_LEVEL: Final = 3
MINUTES: Final = LEVELS[BLOCK_LEVEL].width_us // MINUTE_US

Ids = npt.NDArray[np.bytes_]
"""16 bytes an entry; numpy compares them as if padded with zeros, which changes nothing between equal widths."""

READ_MINUTES: Final = """
local found = {}
for minute = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  local pairs = redis.call('HGETALL', KEYS[1] .. minute)
  if #pairs > 0 then found[#found + 1] = pairs end
end
return found
"""
"""Server-side: all raw hashes of a span of minutes in one reply. KEYS[1] is the keys' common beginning."""

READ_NONE: Final = "return {redis.call('HGETALL', KEYS[1])}"
"""The same for the bucket without expected time."""


@dataclass(frozen=True, slots=True)
class Block:
    """Runs as columns of equal length.

    `flow_run` is zero where `in_flow` is false. `tags` are numbers in the reader's dictionary of tag sets. `memo`
    keeps what a reader derives from the columns, for as long as the block lives.
    """

    ids: Ids
    rows: Rows
    end: Ints
    flow_run: Ids
    in_flow: npt.NDArray[np.bool_]
    parent: npt.NDArray[np.bool_]
    names: tuple[str | None, ...]
    tags: npt.NDArray[np.int32]
    memo: dict[str, Any] = field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        return len(self.ids)


class TagSets:
    """Numbers for the tag sets of runs, so that a test is made once a set and not once a run."""

    def __init__(self) -> None:
        self.sets: list[tuple[str, ...]] = []
        self._numbers: dict[tuple[str, ...], int] = {}

    def number(self, tags: Sequence[str] | None) -> int:
        """The number of a tag set; NULL counts as none."""
        key = tuple(tags or ())
        known = self._numbers.get(key)
        if known is None:
            known = self._numbers[key] = len(self.sets)
            self.sets.append(key)
        return known


def block_of(ids: Sequence[bytes], records: Sequence[bytes], tag_sets: TagSets) -> Block:
    """Decode records, in bulk where their form allows."""
    columns = fixed_columns(records)
    tails = [names_and_tags(record) for record in records]
    number = tag_sets.number
    flow_run = np.ascontiguousarray(columns["flow_run"]).view("S16").reshape(-1)
    return Block(
        np.frombuffer(b"".join(ids), "S16"),
        rows_of(records, np.zeros(len(records), np.bool_)),
        columns["end"].astype(np.int64),
        flow_run,
        (columns["flags"] & 4).astype(bool),
        (columns["flags"] & 1).astype(bool),
        tuple(name for name, _ in tails),
        np.array([number(tags) for _, tags in tails], np.int32),
    )

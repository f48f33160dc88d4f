"""A reader's copies of a shard's blocks, and how far each is behind the reader's state of the shard.

A block is asked for in one state and put in a later one. Every raw bucket that the reader learns to be touched in
between is noted, and read again before the block counts as held. So blocks may be read beside refreshes: a block is put
when no refresh is under way, and counts from the next one on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ..core.levels import NONE
from ..core.rows import Rows
from .blocks import RAW_BUCKETS, Block, Decoded, Dictionaries
from .bounded import Bounded
from .keys import Keys
from .link import Command

_OVERHEAD: Final = 200
_RUN: Final = 300

NameOthers = Callable[[Rows, Sequence[bytes]], None]
"""Gives runs whose state is past the shard's cap a number of the reader's own."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A question for a block, or for some raw buckets of it (None: all), and which were touched since it was put."""

    bucket: int
    raw_buckets: frozenset[int] | None
    commands: list[Command]
    touched: set[int] = field(default_factory=set)


class Lacking(NamedTuple):
    """Blocks that are not here, and by which raw buckets others are behind."""

    absent: list[int]
    behind: dict[int, set[int]]


class BlockCopies:
    """Blocks by bucket; the one of runs without expected time has the bucket and the only raw bucket NONE."""

    def __init__(self, keys: Keys, budget_bytes: int, name_others: NameOthers) -> None:
        self._keys = keys
        self._name_others = name_others
        self._blocks: Bounded[int, Block] = Bounded(budget_bytes, lambda block: _OVERHEAD + _RUN * len(block))
        self._behind: dict[int, set[int]] = {}
        self._asked: list[Asked] = []
        self._held: Sequence[Block] | None = None
        self.dictionaries = Dictionaries()

    def get(self, bucket: int) -> Block | None:
        """The block, as new as it is; None when it is not here."""
        return self._blocks.get(bucket)

    def lacking(self, wanted: Iterable[int]) -> Lacking:
        """What keeps some blocks from being held: those that are not here, and those that are behind."""
        blocks, behind = self._blocks, self._behind
        absent = [bucket for bucket in wanted if bucket not in blocks]
        return Lacking(absent, {bucket: behind[bucket] for bucket in wanted if bucket in behind} if behind else {})

    def held(self) -> Sequence[Block]:
        """All blocks that are not behind, in the order of time; the same object until they change."""
        if self._held is None:
            found = sorted((bucket, at) for at, (bucket, _) in enumerate(self._blocks.items()))
            blocks = [block for _, block in self._blocks.items()]
            self._held = tuple(blocks[at] for bucket, at in found if bucket not in self._behind)
        return self._held

    def touch(self, raw_buckets: Iterable[int]) -> None:
        """Note that raw buckets have changed."""
        for touched in raw_buckets:
            bucket = NONE if touched == NONE else touched // RAW_BUCKETS
            if bucket in self._blocks:
                self._held = None
                self._behind.setdefault(bucket, set()).add(touched)
            for asked in self._asked:
                if asked.bucket == bucket:
                    asked.touched.add(touched)

    def question(self, bucket: int) -> Asked:
        """What to ask for a block that is absent or behind, within a refresh; `put` it in the state of the reply."""
        behind = self._behind.get(bucket)
        if bucket == NONE:
            return Asked(bucket, None, [("HGETALL", self._keys.raw(NONE))])
        every = range(bucket * RAW_BUCKETS, (bucket + 1) * RAW_BUCKETS)
        commands: list[Command] = [("HGETALL", self._keys.raw(raw_bucket)) for raw_bucket in sorted(behind or every)]
        return Asked(bucket, frozenset(behind) if behind else None, commands)

    def ask(self, bucket: int) -> Asked:
        """The same beside refreshes: everything that is touched until the answer is `put` stays behind."""
        asked = self.question(bucket)
        self._asked.append(asked)
        return asked

    def withdraw(self, asked: Asked) -> None:
        """Forget a question that gets no answer."""
        if asked in self._asked:
            self._asked.remove(asked)

    def put(self, asked: Asked, found: Decoded) -> None:
        """Take the answer to a question."""
        self.withdraw(asked)
        bucket, parts = asked.bucket, asked.raw_buckets
        old = self._blocks.get(bucket)
        if parts is not None and old is None:
            return
        runs = found.numbered(self.dictionaries)
        self._name_others(runs.rows, found.records)
        self._held = None
        behind = set(asked.touched)
        if parts is not None and old is not None:
            behind |= self._behind.get(bucket, set()) - parts
            self._blocks.put(bucket, old.patched(parts, runs))
        else:
            self._blocks.put(bucket, Block(runs))
        self._behind.pop(bucket, None)
        if behind:
            self._behind[bucket] = behind

    @property
    def weight(self) -> int:
        """About the bytes that the blocks take."""
        return self._blocks.weight

    def trim(self, besides: int) -> None:
        """Keep within the memory budget, of which `besides` bytes are taken by others."""
        if self._blocks.trim(besides):
            self._held = None
            for bucket in [bucket for bucket in self._behind if bucket not in self._blocks]:
                del self._behind[bucket]

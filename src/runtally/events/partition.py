"""Which partition an event belongs to: Kafka's murmur2 of the key, as the Java client, aiokafka and kafka-python do.

librdkafka's clients default to CRC32 and have to be told `partitioner=murmur2_random`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aiokafka.partitioner import murmur2

from ..core.changes import Change
from .ids import text_of

FORWARDED: Final = "runtally-forwarded"
"""The header of a record that sat in another partition and was sent on to its own."""
_CACHE_SIZE: Final = 50_000


def key_of(change: Change) -> bytes:
    """The Kafka key: the flow run's id, a lone task run's own, in the catalog the entity's own."""
    return text_of(change.flow_run_id or change.id).encode()


class Partitioner:
    """Partitions by the 16 bytes that a key is made of; remembers the ones it met, since murmur2 is slow in Python."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._known: dict[bytes, int] = {}

    def __call__(self, change: Change) -> int:
        """The partition that the change belongs to."""
        return self._of(change.flow_run_id or change.id)

    def all_belong_to(self, partition: int, changes: Iterable[Change]) -> bool:
        """Whether that is the partition of all of them."""
        owners = {change.flow_run_id or change.id for change in changes}
        return all(self._of(owner) == partition for owner in owners)

    def _of(self, owner: bytes) -> int:
        known = self._known.get(owner)
        if known is None:
            if len(self._known) >= _CACHE_SIZE:
                self._known.clear()
            known = self._known[owner] = partition_of(text_of(owner).encode(), self._partitions)
        return known


def partition_of(key: bytes, partitions: int) -> int:
    """murmur2(key) mod the partition count, on the positive half as Kafka takes it."""
    hashed: int = murmur2(key)
    return (hashed & 0x7FFFFFFF) % partitions

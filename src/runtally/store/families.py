"""Families: a flow run and its task runs, as the worker remembers them.

What is here is what Redis holds, record for record; the worker is the only writer, so it stays true until
the ledger says otherwise, and then all of it is dropped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Final

from ..errors import LedgerTroubleError
from .bounded import Bounded
from .fence import Fence
from .index import FLOW_RUN, gone
from .keys import raw_bucket
from .link import Command
from .records import DEAD, minute_of

SMALL_FAMILY: Final = 256
"""Families up to this size are read whole, so that further members need no look-up; in one batch no more of them than
may be remembered."""
FROZEN: Final = b"f"
"""Stands for the record of a run whose record is gone, and whose share of the cells stays."""
_CHUNK: Final = 5_000
_RECORD_WEIGHT: Final = 320
"""Rough memory of one remembered record of usual length, with its dictionary entry."""
_USUAL_LENGTH: Final = 120


class Family:
    """One flow run and those of its task runs that are known.

    `flow_run` is its record, DEAD when deleted, FROZEN, None when no event has come. `members` maps a task run's id to
    its record, DEAD or FROZEN. `complete`: an id that is not in `members` does not exist. `cohort`: its number, None
    until asked.
    """

    __slots__ = ("cohort", "complete", "flow_run", "members")

    def __init__(self) -> None:
        self.cohort: int | None = None
        self.flow_run: bytes | None = None
        self.members: dict[bytes, bytes] = {}
        self.complete = False


Wanted = dict[bytes | None, set[bytes]]
"""Flow run id (None: task runs without one) → ids of task runs."""


class Families:
    """The families of one shard, read from Redis as they are needed and kept within a budget."""

    def __init__(self, fence: Fence, budget_bytes: int) -> None:
        self._fence = fence
        self._room = budget_bytes // _RECORD_WEIGHT
        self._known: Bounded[bytes | None, Family] = Bounded(budget_bytes, _weigh)

    def __getitem__(self, flow_run: bytes | None) -> Family:
        found = self._known.get(flow_run)
        assert found is not None
        return found

    def first_reads(self, wanted: Wanted) -> list[Command]:
        """What to read for families and members that are not known; the replies go to `load`."""
        keys = self._fence.keys
        commands: list[Command] = []
        for flow_run, ids in wanted.items():
            family = self._known.get(flow_run)
            if flow_run is None:
                missing = ids if family is None else ids - family.members.keys()
                commands += [("HGET", keys.single(run), run) for run in missing]
            elif family is None:
                commands.append(("HGET", keys.flow_runs(flow_run), flow_run))
                commands.append(("HLEN", keys.members(flow_run)))
                commands.append(("HMGET", keys.members(flow_run), FLOW_RUN, *ids))
            elif not family.complete and (missing := ids - family.members.keys()):
                commands.append(("HMGET", keys.members(flow_run), *missing))
        return commands

    async def load(self, wanted: Wanted, replies: list[Any]) -> None:
        """Take the replies of `first_reads` and read what they lead to."""
        taken = iter(replies)
        room = self._room
        whole: list[bytes] = []
        found: list[tuple[Family, bytes, int]] = []
        for flow_run, ids in wanted.items():
            family = self._known.get(flow_run)
            if flow_run is None:
                family = family or Family()
                for run in ids - family.members.keys():
                    _note(family, run, next(taken), found)
            elif family is None:
                family = Family()
                family.flow_run = next(taken)
                size = next(taken)
                frozen, *buckets = next(taken)
                if frozen is not None:
                    family.flow_run = FROZEN
                family.complete = size <= min(room, SMALL_FAMILY)
                if family.complete and size:
                    room -= size
                    whole.append(flow_run)
                else:
                    for run, bucket in zip(ids, buckets, strict=True):
                        _note(family, run, bucket, found)
            elif not family.complete and (missing := ids - family.members.keys()):
                for run, bucket in zip(missing, next(taken), strict=True):
                    _note(family, run, bucket, found)
            self._known.put(flow_run, family)
        await self._load_members(whole, found)

    async def others(self, flow_run: bytes) -> AsyncIterator[Sequence[tuple[bytes, bytes]]]:
        """The members of a known family that are not remembered, with their records, some thousands at a time. They are
        not remembered by that. Nothing else may be applied meanwhile."""
        family = self[flow_run]
        if family.complete:
            return
        key, cursor, seen = self._fence.keys.members(flow_run), b"0", set(family.members)
        while True:
            ((cursor, flat),) = await self._fence.read([("HSCAN", key, cursor, "COUNT", _CHUNK)])
            found: list[tuple[bytes, int]] = []
            for run, entry in zip(flat[::2], flat[1::2], strict=True):
                # A scan may give a field twice.
                if run not in seen and run != FLOW_RUN and gone(int(entry)) is None:
                    seen.add(run)
                    found.append((run, int(entry)))
            if found:
                yield await self._records(found)
            if cursor == b"0":
                return

    def discard(self, flow_run: bytes | None) -> None:
        """Forget a family: something else than a batch changed it."""
        self._known.discard(flow_run)

    def settle(self, touched: Iterable[bytes | None]) -> None:
        """After a batch: weigh what has grown, forget what was not used for long."""
        for flow_run in touched:
            self._known.put(flow_run, self[flow_run])
        singles = self._known.get(None)
        if singles is not None and len(singles.members) > SMALL_FAMILY * 64:
            self._known.discard(None)
        self._known.trim()

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()

    async def _load_members(self, flow_runs: list[bytes], found: list[tuple[Family, bytes, int]]) -> None:
        keys = self._fence.keys
        replies = await self._fence.read([("HGETALL", keys.members(flow_run)) for flow_run in flow_runs])
        for flow_run, flat in zip(flow_runs, replies, strict=True):
            family = self[flow_run]
            for run, bucket in zip(flat[::2], flat[1::2], strict=True):
                if run not in family.members and run != FLOW_RUN:
                    _note(family, run, bucket, found)
        records = await self._records([(run, bucket) for _, run, bucket in found])
        owners = {run: family for family, run, _ in found}
        for run, record in records:
            owners[run].members[run] = record

    async def _records(self, found: Sequence[tuple[bytes, int]]) -> list[tuple[bytes, bytes]]:
        """Runs with their records, from runs and their raw buckets."""
        by_bucket: defaultdict[int, list[bytes]] = defaultdict(list)
        for run, bucket in found:
            by_bucket[bucket].append(run)
        pieces = [
            (bucket, runs[at : at + _CHUNK]) for bucket, runs in by_bucket.items() for at in range(0, len(runs), _CHUNK)
        ]
        keys = self._fence.keys
        replies = await self._fence.read([("HMGET", keys.raw(bucket), *runs) for bucket, runs in pieces])
        records: list[tuple[bytes, bytes]] = []
        for (bucket, runs), stored in zip(pieces, replies, strict=True):
            for run, record in zip(runs, stored, strict=True):
                if record is None or raw_bucket(minute_of(record)) != bucket:
                    # Refused here when it was another worker that has moved it meanwhile.
                    await self._fence.begin()
                    raise LedgerTroubleError(
                        self._fence.shard,
                        f"the index names run {run.hex()} in raw bucket {bucket}, where it is not: something else "
                        "wrote to these keys. Empty this prefix to build everything anew from the log",
                    )
                records.append((run, record))
        return records


def _weigh(family: Family) -> int:
    """About the memory of a family, were all of its records as long as the last one: it is weighed after each batch."""
    last = next(reversed(family.members.values()), b"")
    return (1 + len(family.members)) * (_RECORD_WEIGHT + max(0, len(last) - _USUAL_LENGTH))


def _note(family: Family, run: bytes, bucket: bytes | None, found: list[tuple[Family, bytes, int]]) -> None:
    if bucket is None:
        return
    at = int(bucket)
    without = gone(at)
    if without is None:
        found.append((family, run, at))
    else:
        family.members[run] = DEAD if without.deleted else FROZEN

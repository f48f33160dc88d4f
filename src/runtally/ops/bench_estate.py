"""The runs that queries are measured on, put into Redis by the real shards without Kafka.

Families of a flow run and 20 task runs within five minutes, over 30 days, with more by day than by night; 40 flows,
60 deployments, 10 tags, 10 state names. Each run is one snapshot, its last. The same size and times give the same runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import numpy as np

from ..core.changes import DEPLOYMENT, FLOW, FLOW_RUN, TASK_RUN, Change
from ..core.levels import DAY_US
from ..events.partition import Partitioner
from ..settings import Settings
from ..store.catalog import CatalogShard
from ..store.fence import Batch
from ..store.ledger import LogEnds, Mark
from ..store.runs import RunsShard

DAYS: Final = 30
TASK_RUNS: Final = 20
_FAMILY_US: Final = 300_000_000
_BATCH: Final = 10_000
_NIGHT: Final = 0.4
"""What part of the daily mean is missing at the quietest hour, and on top of it at the busiest."""
_HOUR_US: Final = 3_600_000_000
_NEWEST_PART: Final = 10
_SECOND_TAG: Final = 0.1
_SUBFLOWS: Final = 0.1
"""Parts of the flow runs that have a second tag, and that are subflow runs."""
_VERBS: Final = ("extract", "transform", "load", "check", "notify")
_NOUNS: Final = ("orders", "users", "clicks", "stock", "prices", "mail", "routes", "logs")
_TAGS: Final = (*(f"team-{number}" for number in range(8)), "etl", "nightly")
_ENDS: Final = (
    *((("COMPLETED", "Completed"),) * 80),
    *((("COMPLETED", "Cached"),) * 6),
    *((("FAILED", "Failed"),) * 5),
    *((("RUNNING", "Running"),) * 2),
    *(("CRASHED", "Crashed"), ("CANCELLED", "Cancelled"), ("PENDING", "Pending"), ("SCHEDULED", "Scheduled")),
    *(("SCHEDULED", "AwaitingRetry"), ("SCHEDULED", "Late"), ("PAUSED", "Paused")),
)
_STARTED: Final = frozenset({"COMPLETED", "FAILED", "RUNNING", "CRASHED", "CANCELLED"})
_ENDED: Final = _STARTED - {"RUNNING"}


async def _record(offset: int) -> Mark | None:
    return Mark(offset, 0, 0)


@dataclass(slots=True)
class Estate:
    """All shards of one Redis as their worker holds them, and the runs that are in it; with `newest_hour` a tenth of
    all runs are in the last hour."""

    redis: Any
    settings: Settings
    end_us: int
    newest_hour: bool = False
    flows: list[bytes] = field(default_factory=list)
    deployments: list[bytes] = field(default_factory=list)
    _random: Random = field(default_factory=lambda: Random(1))
    _shards: list[RunsShard] = field(default_factory=list)
    _late: list[Change] = field(default_factory=list)
    _partition_of: Partitioner = field(init=False)
    _step: int = 0

    def __post_init__(self) -> None:
        self._partition_of = Partitioner(self.settings.partitions)

    async def load(self, runs: int) -> None:
        """Put flows, deployments and so many task runs (rounded up to whole families) into Redis."""
        catalog = CatalogShard(self.redis, self.settings)
        self._shards = [RunsShard(self.redis, self.settings, number) for number in range(self.settings.partitions)]
        await self.forget()
        await catalog.open(self._log())
        flows = [self._random.randbytes(16) for _ in range(40)]
        deployments = [(self._random.randbytes(16), self._random.choice(flows)) for _ in range(60)]
        self.flows, self.deployments = flows, [deployment for deployment, _ in deployments]
        await catalog.apply(_batch(0, self._catalog(flows, deployments)))
        await catalog.close()
        waiting: list[list[Change]] = [[] for _ in self._shards]
        for begin_us in self._begins(-(-runs // TASK_RUNS)):
            family = list(self._family(begin_us, self._random.choice(deployments)))
            at = self._partition_of(family[0])
            waiting[at] += family
            if len(waiting[at]) >= _BATCH:
                await self._apply(at, waiting[at])
                waiting[at] = []
        for at, changes in enumerate(waiting):
            await self._apply(at, changes)
        families = [list(self._family(self.end_us - 2 * _FAMILY_US + i * 6_000_000, deployments[i])) for i in range(48)]
        self._late = [change for family in families for change in family][:1000]

    async def forget(self) -> None:
        """Begin a new epoch in every shard, so that whoever reads them drops all copies."""
        for shard in self._shards:
            await shard.open(self._log())

    async def happen(self, part: int = 0, of: int = 1) -> None:
        """1,000 events of the newest ten minutes, or one part of so many of them: new runs at first, then always their
        next states."""
        parts: list[list[Change]] = [[] for _ in self._shards]
        for change in self._late[part::of]:
            parts[self._partition_of(change)].append(_moved(change, self._step))
        for at, changes in enumerate(parts):
            await self._apply(at, changes)
        self._step += 1

    async def close(self) -> None:
        """Give the connections back."""
        for shard in self._shards:
            await shard.close()

    def _log(self) -> LogEnds:
        return LogEnds(0, 0, self.settings.partitions, _record)

    async def _apply(self, at: int, changes: list[Change]) -> None:
        if changes:
            await self._shards[at].apply(_batch(self._shards[at].next_offset, changes))

    def _begins(self, families: int) -> list[int]:
        """When families begin, in order: even over days, a sine within each."""
        generator = np.random.default_rng(1)
        phase = generator.random(families)
        phase = phase + _NIGHT * np.sin(2 * np.pi * phase) / (2 * np.pi)
        times = (generator.integers(0, DAYS, families) + phase) * DAY_US
        times_us = self.end_us - DAYS * DAY_US + times.astype(np.int64)
        if self.newest_hour:
            newest = -(-families // _NEWEST_PART)
            times_us[:newest] = self.end_us - generator.integers(_FAMILY_US, _HOUR_US, newest)
        begins: list[int] = np.sort(times_us).tolist()
        return begins

    def _catalog(self, flows: list[bytes], deployments: list[tuple[bytes, bytes]]) -> list[Change]:
        begin_us = self.end_us - (DAYS + 1) * DAY_US
        return [
            Change("flow", "upsert", flow, None, begin_us, FLOW.all_given, (f"flow-{number}", self._tags()))
            for number, flow in enumerate(flows)
        ] + [
            Change(
                *("deployment", "upsert", deployment, None, begin_us, DEPLOYMENT.all_given),
                (flow, f"deployment-{number}", self._tags(), number % 5 == 0, f"queue-{number % 4}"),
            )
            for number, (deployment, flow) in enumerate(deployments)
        ]

    def _family(self, begin_us: int, deployment: tuple[bytes, bytes]) -> Iterator[Change]:
        random = self._random
        flow_run = random.randbytes(16)
        kind, name = random.choice(_ENDS)
        end_us = begin_us + _FAMILY_US
        parent = random.randbytes(16) if random.random() < _SUBFLOWS else None
        values: tuple[Any, ...] = (
            *((kind, name, end_us), begin_us, end_us if kind in _ENDED else None),
            *(f"{random.choice(_NOUNS)}-{random.getrandbits(24):06x}", self._flow_run_tags(), begin_us, begin_us),
            *(
                deployment[1],
                None,
                deployment[0],
                None,
                f"queue-{deployment[0][0] % 4}",
                None,
                None,
                parent,
                None,
                None,
            ),
        )
        yield Change("flow_run", "upsert", flow_run, None, end_us, FLOW_RUN.all_given, values)
        for _ in range(TASK_RUNS):
            kind, name = random.choice(_ENDS)
            expected_us = begin_us + random.randrange(_FAMILY_US - 60_000_000)
            start_us = expected_us + random.randrange(5_000_000) if kind in _STARTED else None
            ended_us = (start_us or expected_us) + random.randrange(55_000_000)
            total_us = ended_us - start_us if start_us is not None and kind in _ENDED else 0
            state_us = ended_us if kind in _ENDED else start_us or expected_us
            text = f"{random.choice(_VERBS)}-{random.choice(_NOUNS)}-{random.getrandbits(24):06x}"
            values = (
                *((kind, name, state_us), start_us, ended_us if kind in _ENDED else None, total_us),
                *(text, self._tags(), expected_us, None),
            )
            yield Change("task_run", "upsert", random.randbytes(16), flow_run, state_us, TASK_RUN.all_given, values)

    def _flow_run_tags(self) -> tuple[str, ...]:
        return tuple(sorted(self._random.sample(_TAGS, 1 + (self._random.random() < _SECOND_TAG))))

    def _tags(self) -> tuple[str, ...]:
        return tuple(sorted(self._random.sample(_TAGS, self._random.randrange(3))))


def _moved(change: Change, step: int) -> Change:
    """The same run a few milliseconds later."""
    kind, name, at_us = change.values[0]
    values = ((kind, name, at_us + step * 1000), *change.values[1:])
    return change._replace(occurred=change.occurred + step * 1000, values=values)


def _batch(first: int, changes: list[Change]) -> Batch:
    after = first + len(changes)
    return Batch(first, after, changes, Mark(after - 1, 0, 0), 0)

"""`runtally verify`: every cell held against what the raw runs make of it.

Shard by shard and day by day, each day in one state of its shard, while workers write.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from ..core.cohorts import NAMES, NO_FLOW_RUN, UNKNOWN, Cohort
from ..core.levels import LEVELS, NONE
from ..core.scopes import ALL, COHORT, FLOW
from ..core.time import text_of
from ..settings import Settings
from ..store.audit import Audit, Wrong
from ..store.catalog_copy import CatalogCopy
from ..store.cohort_book import ALL_NAME
from ..store.connect import client
from ..store.ledger import GENERATION, read_live
from ..store.link import Link
from .live import live_data

if TYPE_CHECKING:
    from redis.asyncio import Redis

MOST_SHOWN: Final = 1000
"""So many wrong cells are named; the rest is counted."""
_AT_ONCE: Final = 2
"""While one day is compared, the next one is read."""

Progress = Callable[[int, int], None]
"""Called with the days that are done and their number."""


@dataclass(frozen=True, slots=True)
class WrongCell:
    """A wrong cell in words."""

    shard: str
    scope: str
    level: str
    bucket: str
    group: str
    problem: str

    @property
    def text(self) -> str:
        """All of it in a line."""
        return (
            f"shard {self.shard} · {self.scope} · {self.level} from {self.bucket} · {self.group or 'value'}: "
            f"{self.problem}"
        )


@dataclass(frozen=True, slots=True)
class Verified:
    """What a check found: days of shards, runs and cells that were looked at, how many cells are wrong, and the first
    of them."""

    same: bool
    days: int
    runs: int
    cells: int
    wrong: int
    seconds: float
    named: Sequence[WrongCell]

    def as_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self))


async def verify(settings: Settings, sample: int | None, progress: Progress) -> Verified:
    """Compare all cells, or those of `sample` days of shards chosen at random.

    Raises `UserError` when there are no data, `NotReadyError` when a shard has no ledger, `ServerLostError`.
    """
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        redis = client(settings)
        _, live = await live_data(stack, redis, settings)
        live.check_format(settings)
        audits = [Audit(redis, settings, str(shard)) for shard in range(live.partitions)]
        for audit in audits:
            stack.push_async_callback(audit.close)
        work = [(audit, day) for audit in audits for day in await audit.days()]
        if sample is not None:
            work = sorted(Random().sample(work, min(sample, len(work))), key=lambda one: (one[0].shard, one[1]))
        found = _Found(len(work), progress)
        await asyncio.gather(*(found.work_off(part) for part in _parts(work)))
        names = await names_of(redis, settings)
        named = [in_words(one, names) for one in found.wrong]
    seconds = round(time.monotonic() - began, 3)
    return Verified(not found.wrongs, found.done, found.runs, found.cells, found.wrongs, seconds, named)


Work = Sequence[tuple[Audit, int]]


class _Found:
    """What has been found so far."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total = total
        self._progress = progress
        self.done = self.runs = self.cells = self.wrongs = 0
        self.wrong: list[Wrong] = []

    async def work_off(self, work: Work) -> None:
        for audit, day in work:
            checked = await audit.check(day)
            self.done += 1
            self.runs += checked.runs
            self.cells += checked.cells
            self.wrongs += len(checked.wrong)
            self.wrong += checked.wrong[: MOST_SHOWN - len(self.wrong)]
            self._progress(self.done, self._total)


def _parts(work: Work) -> list[Work]:
    """The work by shards, for so many to do at once: a shard is not looked at by two."""
    shards = list(dict.fromkeys(audit for audit, _ in work))
    part_of = {audit: number % _AT_ONCE for number, audit in enumerate(shards)}
    return [[one for one in work if part_of[one[0]] == part] for part in range(_AT_ONCE)]


async def names_of(redis: Redis, settings: Settings) -> CatalogCopy:
    """The catalog, for `in_words`. Raises `ServerLostError`."""
    link = Link(redis)
    try:
        live = await read_live(link, settings)
        names = CatalogCopy(settings.redis_prefix, GENERATION if live is None else live.generation)
        names.take(await link.call([names.read()]))
    finally:
        await link.close()
    return names


def in_words(wrong: Wrong, catalog: CatalogCopy) -> WrongCell:
    """A wrong cell with names in place of numbers and ids."""
    bucket = "no expected time" if wrong.bucket == NONE else text_of(wrong.bucket * LEVELS[wrong.level].width_us)
    return WrongCell(wrong.shard, _scope(wrong, catalog), LEVELS[wrong.level].name, bucket, wrong.group, wrong.problem)


def _scope(wrong: Wrong, catalog: CatalogCopy) -> str:
    if wrong.kind is ALL:
        return "all runs" if wrong.scope == ALL_NAME else f"all runs, unknown scope {wrong.scope!r}"
    if wrong.kind is COHORT:
        if wrong.cohort is None:
            return f"a cohort that is not in the dictionary: {wrong.scope!r}"
        return f"cohort {wrong.scope.decode()}: {_cohort(wrong.cohort, catalog)}"
    entities = catalog.flows if wrong.kind is FLOW else catalog.deployments
    return f"{wrong.kind.name} {_named(wrong.scope, entities, wrong.kind.name)}"


def _cohort(cohort: Cohort, catalog: CatalogCopy) -> str:
    if cohort == NO_FLOW_RUN:
        return "runs without a flow run"
    told = []
    for name, value in zip(NAMES, cohort, strict=True):
        words = name.removesuffix("_id").replace("_", " ")
        if value is UNKNOWN:
            told.append(f"any {words}")
        elif name == "child":
            told.append("a subflow" if value else "no subflow")
        elif name == "flow_id":
            told.append(f"flow {_named(value, catalog.flows, 'flow')}")
        elif name == "deployment_id":
            told.append(f"deployment {_named(value, catalog.deployments, 'deployment')}")
        elif name == "tags":
            told.append(f"tags {json.dumps(value, ensure_ascii=False)}")
        elif name != "flow_name" or value is not None:
            told.append(f"{words} {value if value is not None else 'none'}")
    return ", ".join(told)


_NAME_AT: Final = {"flow": 0, "deployment": 1}


def _named(identity: Any, entities: Any, kind: str) -> str:
    """An id, with its name where the catalog knows one."""
    if identity is None:
        return "none"
    if len(identity) != 16:
        return repr(identity)
    known = entities.get(identity)
    name = known.values[_NAME_AT[kind]] if known else None
    return f"{name!r} ({UUID(bytes=identity)})" if name is not None else str(UUID(bytes=identity))

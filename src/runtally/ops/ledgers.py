"""`runtally ledger`: how the ledgers stand to their logs, and the three ways of putting one elsewhere.

Each way is refused where another is meant, so that only `skip` can lose anything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..errors import LedgerTroubleError, ServerLostError, UserError
from ..settings import Settings
from ..store.connect import client
from ..store.keys import CATALOG
from ..store.ledger import Ledger, LogEnds, check_log, check_partitions, read_ledgers
from ..store.repair import go_on_at
from ..stream.log import Log

if TYPE_CHECKING:
    from redis.asyncio import Redis

State = Literal["ready", "behind", "stopped", "unfit", "none"]
"""`ready`: what the log held at the last assignment is applied · `behind`: not yet · `stopped`: a worker found trouble
· `unfit`: one would · `none`: there is no ledger."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A shard's ledger and its log. `ledger` is None where there is none, the log's offsets are None while Kafka is
    away; `lag`: records of the log that are not applied."""

    shard: str
    state: State
    trouble: str
    ledger: Ledger | None
    log_begin: int | None
    log_end: int | None

    @property
    def lag(self) -> int | None:
        """How many records of the log are not applied yet, transaction markers among them."""
        if self.ledger is None or self.log_end is None:
            return None
        return max(0, self.log_end - self.ledger.next)

    def as_json(self) -> dict[str, object]:
        """For `--json`. Times are µs since 1970, that of the mark ms."""
        ledger = self.ledger
        mark = None if ledger is None or ledger.mark is None else ledger.mark
        return {
            **{"shard": self.shard, "state": self.state, "trouble": self.trouble},
            **{name: getattr(ledger, name, None) for name in ("next", "seq", "epoch", "watermark", "horizon")},
            "mark": mark
            and {"offset": mark.offset, "timestamp_ms": mark.timestamp_ms, "checksum": f"{mark.checksum:08x}"},
            **{"log_begin": self.log_begin, "log_end": self.log_end, "lag": self.lag},
        }


@dataclass(frozen=True, slots=True)
class Moved:
    """What a repair did: a shard goes on at `after` instead of at `before`, in a log that ends at `end`."""

    shard: str
    before: int
    after: int
    end: int


async def show(settings: Settings) -> tuple[Sequence[Standing], str]:
    """Every shard's standing; and why their logs could not be looked at, "" when they could.

    Raises `UserError` before the first start, `ServerLostError` when Redis is away.
    """
    async with _open(settings) as (redis, log):
        found = await _ledgers(redis, settings)
        away = ""
        standings = []
        for shard, ledger in found.items():
            ends = None
            if not away:
                try:
                    ends = await log.ends(*_place(settings, shard))
                except ServerLostError as error:
                    away = str(error)
            standings.append(await _standing(shard, ledger, ends))
    return standings, away


async def replay(settings: Settings, shard: str) -> Moved:
    """Apply the log again from its first record. Raises `UserError` where that would pass something over, or the log is
    another one."""

    async def begin(ledger: Ledger, ends: LogEnds) -> int:
        await check_log(shard, ledger, ends)
        return ends.first

    return await _move(settings, shard, begin)


async def accept_new_log(settings: Settings, shard: str) -> Moved:
    """Follow another log, from its first record. Raises `UserError` where it is the one that has been followed, and
    where it begins after what is next, since then something would be passed over."""

    async def begin(ledger: Ledger, ends: LogEnds) -> int:
        check_partitions(shard, ledger.partitions, ends)
        mark = ledger.mark
        known = mark is not None and mark.offset >= ends.first and await ends.read_record(mark.offset) == mark
        if known or ledger.next < ends.first:
            await check_log(shard, ledger, ends)
            raise UserError(
                f"shard {shard}: the log is the one that has been followed; to apply it once more, use "
                f"`runtally ledger replay {shard}`"
            )
        return ends.first

    return await _move(settings, shard, begin)


async def skip(settings: Settings, shard: str, to: int, *, lose: bool) -> Moved:
    """Go on at a later offset; what lies between is lost, which has to be said (`lose`). Raises `UserError`."""

    async def begin(ledger: Ledger, ends: LogEnds) -> int:
        if ledger.next >= ends.first:
            await check_log(shard, ledger, ends)
        check_partitions(shard, ledger.partitions, ends)
        least, most = max(ledger.next + 1, ends.first), ends.end
        # Some brokers tell ends that are too low.
        if not least <= to <= most and not (to > most and await ends.read_record(to - 1) is not None):
            raise UserError(
                f"shard {shard} is at offset {ledger.next} of a log of {ends.first}…{ends.end}: there is nothing to "
                f"skip to at {to}" + (f"; possible are {least}…{most}" if least <= most else "")
            )
        if not lose:
            raise UserError(
                f"shard {shard}: the {to - ledger.next:,} records from offset {ledger.next} to {to - 1} would never be "
                "applied; if that is meant, say --yes-lose-events"
            )
        return to

    return await _move(settings, shard, begin)


async def _move(settings: Settings, shard: str, begin: Callable[[Ledger, LogEnds], Awaitable[int]]) -> Moved:
    async with _open(settings) as (redis, log):
        found = await _ledgers(redis, settings)
        if shard not in found:
            raise UserError(f"there is no shard {shard}: there are {', '.join(found)}")
        ledger = found[shard]
        if ledger is None:
            raise UserError(f"shard {shard} has no ledger: the worker that gets it begins at the log's first record")
        ends = await log.ends(*_place(settings, shard))
        try:
            offset = await begin(ledger, ends)
        except LedgerTroubleError as error:
            raise UserError(str(error)) from None
        await go_on_at(redis, settings, shard, ledger, offset, ends.end)
        return Moved(shard, ledger.next, offset, ends.end)


async def _standing(shard: str, ledger: Ledger | None, ends: LogEnds | None) -> Standing:
    state: State = "none" if ledger is None else "stopped" if ledger.trouble else "ready"
    trouble = "" if ledger is None else ledger.trouble
    if ledger is not None and ends is not None and not trouble:
        try:
            await check_log(shard, ledger, ends)
        except LedgerTroubleError as error:
            state, trouble = "unfit", error.detail
    if ledger is not None and state == "ready" and not ledger.caught_up:
        state = "behind"
    first, end = (None, None) if ends is None else (ends.first, ends.end)
    return Standing(shard, state, trouble, ledger, first, end)


async def _ledgers(redis: Redis, settings: Settings) -> Mapping[str, Ledger | None]:
    found = await read_ledgers(redis, settings)
    if not found:
        raise UserError(
            f"there is no data under the prefix {settings.redis_prefix!r} in Redis: no worker has started yet, or "
            "RUNTALLY_REDIS_PREFIX is another one"
        )
    return found


def _place(settings: Settings, shard: str) -> tuple[str, int]:
    return (settings.catalog_topic, 0) if shard == CATALOG else (settings.runs_topic, int(shard))


@asynccontextmanager
async def _open(settings: Settings) -> AsyncIterator[tuple[Redis, Log]]:
    redis, log = client(settings), Log(settings)
    try:
        yield redis, log
    finally:
        await log.close()
        await redis.aclose()

"""The ledger: what a shard's data says about itself, and the fence that guards every write to it.

Every write to a shard is one MULTI/EXEC under WATCH of its ledger and adds 1 to `seq`; a writer whose idea of
(epoch, seq, next) is not what the ledger says writes nothing. Redis is the authority on the position: after any
doubt the worker reads the ledger and seeks.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis

from ..core.cohorts import NAMES
from ..core.retention import Horizons
from ..core.scopes import SCOPES
from ..errors import LedgerTroubleError, NotReadyError, UnfitServerError
from ..settings import Settings
from .keys import CATALOG, FORMAT, Keys, live_key
from .link import Command, Link

GENERATION = "1"
"""The first one; a rebuild from the log makes the next."""


_FOUND: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('HSET', KEYS[1], unpack(ARGV)) end
return redis.call('HGETALL', KEYS[1])
"""


@dataclass(frozen=True, slots=True)
class Mark:
    """The last record applied: a recreated or truncated log has another one there, or none.

    `checksum` is CRC-32 of the record's key, then its value.
    """

    offset: int
    timestamp_ms: int
    checksum: int


@dataclass(frozen=True, slots=True)
class LogEnds:
    """A partition as the worker finds it: offsets of the first kept record and of the end, the topic's
    partition count, and a way to read one record."""

    first: int
    end: int
    partitions: int
    read_record: Callable[[int], Awaitable[Mark | None]]


@dataclass(frozen=True, slots=True)
class Ledger:
    """One shard's ledger.

    `next` is the offset to apply next · `seq` counts writes · `epoch` is new after each seek or repair ·
    `watermark` µs, the newest record timestamp applied · `horizon` µs, the oldest instant whose raw runs are
    complete · `floor`, the seq up to which the touched sets have been trimmed · `caught_up_at`, the offset that must
    be passed before an answer is complete (the log's end at the last assignment) · `cells`, what the cells are of
    (see `current_cells`) · `cells_horizon` µs, the oldest instant whose cells and index are complete · `expired` and
    `cells_expired`, the horizons up to which what lies behind has been put away · `trouble`, why the shard has stopped
    and what to do, "" while it goes on.
    """

    next: int
    seq: int
    epoch: str
    watermark: int
    horizon: int
    floor: int
    caught_up_at: int
    partitions: int
    mark: Mark | None
    cells: str
    cells_horizon: int = 0
    expired: int = 0
    cells_expired: int = 0
    trouble: str = ""

    @property
    def horizons(self) -> Horizons:
        """From where on everything is kept."""
        return Horizons(self.horizon, self.cells_horizon)

    @property
    def expired_to(self) -> Horizons:
        """The horizons up to which what lies behind has been put away."""
        return Horizons(self.expired, self.cells_expired)

    @property
    def caught_up(self) -> bool:
        """Whether everything that the log held at the last assignment has been applied."""
        return self.next >= self.caught_up_at


Stand = tuple[bytes, str, int]
"""A ledger's key, epoch and seq: where it stands."""


def new_epoch() -> str:
    """A value that no earlier epoch had."""
    return secrets.token_hex(8)


def current_cells() -> str:
    """What this version makes cells of: cohort attributes, and levels by scope."""
    return f"{' '.join(sorted(NAMES))}; {_scopes()}"


def half_rebuilt(ledger: Ledger) -> str:
    """What the ledger says of cells that are partly made anew: what they are to be of, then a line for each of what
    they still may be of."""
    before = [line for line in ledger.cells.split("\n") if line != current_cells()]
    return "\n".join([current_cells(), *before])


def attributes_before(ledger: Ledger) -> list[str]:
    """The cohort attributes that cells told before a rebuild, or tell in part while it goes on: those of runs that it
    does not count anew."""
    return ledger.cells.partition(";")[0].split()


def outdated(ledger: Ledger) -> str:
    """Why no batch may be applied to the cells, "" when one may: in cells of other attributes or scopes than this
    version's, runs would be subtracted from cohorts that they were never added to."""
    if ledger.cells == current_cells():
        return ""
    if ledger.cells.startswith(current_cells() + "\n"):
        return "its cells are only partly rebuilt: `runtally rebuild` goes on with that"
    way = "`runtally rebuild` makes them anew from the raw runs"
    if needs_log(ledger):
        way = "`runtally rebuild --from-log` makes them anew, since raw runs are not there of all days"
    told = ledger.cells or "nothing that is told"
    return f"its cells are of ({told}), this version makes them of ({current_cells()}): {way}"


def needs_log(ledger: Ledger) -> bool:
    """Whether days whose cells have to be carried over lack scopes, or tell attributes that this version does not."""
    return ledger.horizon > 0 and not (_has_these_scopes(ledger) and {*attributes_before(ledger)} <= {*NAMES})


def check_scopes(shard: str, ledger: Ledger) -> None:
    """Raise `NotReadyError` when scopes may lack cells that this version reads. Cohorts that lack an attribute are no
    hindrance: what they do not tell is answered from raw runs."""
    if not _has_these_scopes(ledger):
        raise NotReadyError(
            f"shard {shard} has cells of other scopes than this version reads: `runtally rebuild` with workers of this "
            "version makes them anew"
        )


def _has_these_scopes(ledger: Ledger) -> bool:
    return {line.partition("; ")[2] for line in ledger.cells.split("\n")} == {_scopes()}


def _scopes() -> str:
    return " ".join(f"{kind.letter}{''.join(map(str, kind.levels))}" for kind in SCOPES)


def fresh(log: LogEnds) -> Ledger:
    """The ledger of a shard that has none: start at the first kept record."""
    return Ledger(log.first, 1, new_epoch(), 0, 0, 0, log.end, log.partitions, None, current_cells())


def encode(ledger: Ledger) -> list[bytes | str | int]:
    """Field, value, field, value … for HSET."""
    mark = "" if ledger.mark is None else f"{ledger.mark.offset},{ledger.mark.timestamp_ms},{ledger.mark.checksum}"
    return [
        *("next", ledger.next, "seq", ledger.seq, "epoch", ledger.epoch),
        *("watermark", ledger.watermark, "horizon", ledger.horizon, "floor", ledger.floor),
        *("caught_up_at", ledger.caught_up_at, "partitions", ledger.partitions, "mark", mark),
        *("cells", ledger.cells, "cells_horizon", ledger.cells_horizon),
        *("expired", ledger.expired, "cells_expired", ledger.cells_expired, "trouble", ledger.trouble),
    ]


def decode(reply: list[bytes]) -> Ledger | None:
    """The reverse, from HGETALL's flat reply; None for a missing key."""
    if not reply:
        return None
    fields: dict[bytes, bytes] = dict(zip(reply[::2], reply[1::2], strict=True))
    mark = fields[b"mark"]
    return Ledger(
        next=int(fields[b"next"]),
        seq=int(fields[b"seq"]),
        epoch=fields[b"epoch"].decode(),
        watermark=int(fields[b"watermark"]),
        horizon=int(fields[b"horizon"]),
        floor=int(fields[b"floor"]),
        caught_up_at=int(fields[b"caught_up_at"]),
        partitions=int(fields[b"partitions"]),
        mark=Mark(*map(int, mark.split(b","))) if mark else None,
        cells=fields.get(b"cells", b"").decode(),
        cells_horizon=int(fields.get(b"cells_horizon", 0)),
        expired=int(fields.get(b"expired", 0)),
        cells_expired=int(fields.get(b"cells_expired", 0)),
        trouble=fields.get(b"trouble", b"").decode(),
    )


def check_partitions(shard: str, made_from: int, log: LogEnds) -> None:
    """Raise `LedgerTroubleError` when the topic has another partition count than the data was `made_from`."""
    if made_from != log.partitions:
        raise LedgerTroubleError(
            shard,
            f"the topic has {log.partitions} partitions, the data in Redis was made from {made_from}: runs would move "
            "between shards. Start workers and API with another RUNTALLY_REDIS_PREFIX to build all anew from the log",
        )


async def check_log(shard: str, ledger: Ledger, log: LogEnds) -> None:
    """Raise `LedgerTroubleError` when the log is not the one that the ledger has been following."""
    check_partitions(shard, ledger.partitions, log)
    if ledger.next < log.first:
        raise LedgerTroubleError(
            shard,
            f"the log begins at offset {log.first}, but {ledger.next} is the next to apply: the records between are "
            "gone (the topic's retention is shorter than the time the worker was away). "
            f"`runtally ledger skip {shard} --to {log.first} --yes-lose-events` goes on without them",
        )
    mark = ledger.mark
    if mark is None or mark.offset < log.first:
        return
    found = await log.read_record(mark.offset)
    if found != mark:
        raise LedgerTroubleError(
            shard,
            f"the record at offset {mark.offset} is not the one that was applied: the topic was recreated or "
            f"truncated. If that is meant, `runtally ledger accept-new-log {shard}` keeps the data and goes on at the "
            "log's beginning",
        )


async def read_ledgers(redis: Redis, settings: Settings) -> dict[str, Ledger | None]:
    """Every shard's ledger by its name, the catalog's last; None for a shard that has none. Empty before the first
    start. Raises `ServerLostError`, and `UnfitServerError` for data of another format."""
    link = Link(redis)
    try:
        live = await read_live(link, settings)
        if live is None:
            return {}
        live.check_format(settings)
        shards = [*map(str, range(live.partitions)), CATALOG]
        keys = [Keys(settings.redis_prefix, live.generation, shard).ledger for shard in shards]
        found = await link.call([("HGETALL", key) for key in keys])
    finally:
        await link.close()
    return {shard: decode(flat) for shard, flat in zip(shards, found, strict=True)}


async def positions(redis: Redis, settings: Settings) -> dict[str, int]:
    """Where each shard would go on in the log; 0 for one that has no ledger. Empty before the first start."""
    found = await read_ledgers(redis, settings)
    return {shard: 0 if ledger is None else ledger.next for shard, ledger in found.items()}


@dataclass(frozen=True, slots=True)
class Live:
    """What the `live` key says: which generation of data is served, of how many shards and of which format it is.

    `filling`: a generation that is being filled beside it, "" for none, of `filling_format`; `fading`: those whose keys
    are being removed.
    """

    generation: str
    partitions: int
    format: int
    filling: str = ""
    filling_format: int = 0
    fading: tuple[str, ...] = ()

    def check_format(self, settings: Settings) -> None:
        """Raise `UnfitServerError` for data of another format."""
        check_format(self.format, settings.redis_prefix)


def read_live_command(settings: Settings) -> Command:
    """The command whose reply goes to `live_of`."""
    return ("HGETALL", live_key(settings.redis_prefix))


def live_of(flat: list[bytes]) -> Live | None:
    """What the `live` key says; None before the first start."""
    fields: dict[bytes, bytes] = dict(zip(flat[::2], flat[1::2], strict=True))
    if not fields:
        return None
    filling, filling_format = fields.get(b"filling", b" 0").decode().split(" ")
    return Live(
        fields[b"generation"].decode(),
        int(fields[b"partitions"]),
        int(fields[b"format"]),
        filling,
        int(filling_format),
        tuple(fields.get(b"fading", b"").decode().split()),
    )


async def read_live(link: Link, settings: Settings) -> Live | None:
    """The live generation; None before the first start. Raises `ServerLostError`."""
    (flat,) = await link.call([read_live_command(settings)])
    return live_of(flat)


async def found_live(link: Link, settings: Settings, generation: str, partitions: int) -> Live:
    """Name a generation live where none is; the one that is, then. Watched keys stay watched."""
    fields = ("generation", generation, "format", FORMAT, "partitions", partitions)
    (flat,) = await link.call([("EVAL", _FOUND, 1, live_key(settings.redis_prefix), *fields)])
    live = live_of(flat)
    assert live is not None
    return live


def check_format(stored: int, prefix: str) -> None:
    """Raise `UnfitServerError` for data of another format."""
    if stored == FORMAT:
        return
    way = "use that newer runtally" if stored > FORMAT else "`runtally rebuild --from-log` makes new ones beside them"
    raise UnfitServerError(
        f"Redis holds runtally data of format {stored} under the prefix {prefix!r}, this version reads format "
        f"{FORMAT}: {way}, or take another RUNTALLY_REDIS_PREFIX"
    )

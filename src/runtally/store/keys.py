"""Every key that runtally owns in Redis; a key that the table `KEYS` does not name is not ours.

A shard is a partition's number, or `c` for the catalog. The braces are Redis Cluster's hash tag: all keys of
a shard live in one slot.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ..core.levels import LEVELS, MINUTE_US, NONE, child_in, page_of
from ..core.scopes import SCOPES, Scope

CATALOG: Final = "c"
DIGITS: Final = tuple(b"%d" % number for number in range(10))
"""By where a bucket stands in its page, the end of the fields of its cells."""
FLOW_RUN_BUCKETS: Final = 0x1000
FORMAT: Final = 4
"""Number of the stored format; another one in Redis is refused by name."""
RAW_MINUTES: Final = LEVELS[1].width_us // MINUTE_US
"""So many minutes of raw runs share a hash: a month is read in a tenth of the look-ups, a minute costs little more."""


@dataclass(frozen=True, slots=True)
class Key:
    """A kind of key: its pattern, whose words in angle brackets are those of `_WORDS`, its type, what it holds, and
    with what it goes."""

    pattern: str
    type: str
    holds: str
    goes: str


_SHARD: Final = "<prefix>:{<g>.<shard>}:"
_OF_CATALOG: Final = "<prefix>:{<g>.c}:"

KEYS: Final = (
    Key(
        "<prefix>:live",
        "hash",
        "generation, format and partition count; while one is filled beside it or removed, `filling` and `fading`",
        "never",
    ),
    Key(f"{_SHARD}ledger", "hash", "the ledger", "never"),
    Key(f"{_SHARD}states", "list", "the shard's states, in the order of their numbers", "never"),
    Key(
        f"{_SHARD}days",
        "set",
        "days that hold cells, so that centuries of nothing cost nothing",
        "each day with its cells",
    ),
    Key(f"{_SHARD}cohorts", "list", "the shard's cohorts, in the order of their numbers", "never"),
    Key(
        f"{_SHARD}cells:<k><l>:<b>",
        "hash",
        "scope and a digit → packed cells of those buckets of level l that make up bucket b of the next level, or of b "
        "itself at the last level (`none`: runs without expected start); the digit tells which one; k is the kind of "
        "scope: a (all, of no name), c (cohort), f (flow), d (deployment)",
        "rollup retention",
    ),
    Key(
        f"{_SHARD}raw:<b>",
        "hash",
        "task run id → record, of ten minutes (`none`: runs without expected start)",
        "raw retention",
    ),
    Key(
        f"{_SHARD}aside:<epoch>:<b>",
        "hash",
        "what stays of a raw bucket from which very many runs of a deleted flow run are about to go",
        "the commit that puts it in the bucket's place; else an hour later",
    ),
    Key(
        f"{_SHARD}members:<id>",
        "hash",
        "the index: task run id → bucket of its record, or the day of a frozen or deleted one, of one flow run; `f` → "
        "the day of a frozen flow run",
        "the cells of its runs",
    ),
    Key(
        f"{_SHARD}single:<n>",
        "hash",
        "the same for task runs without a flow run, bucketed by id",
        "the cells of its runs",
    ),
    Key(f"{_SHARD}flow_runs:<n>", "hash", "flow run id → record, bucketed by id", "its last member's record"),
    Key(
        f"{_SHARD}leaving:<day>",
        "string",
        "what leaves the index with the cells of that day: kind and id, 17 bytes each",
        "the cells of that day",
    ),
    Key(
        f"{_SHARD}touched",
        "sorted set",
        "minute → `seq` of its last change",
        "4,096 writes later, or a change of very many minutes",
    ),
    Key(
        f"{_SHARD}touched_ids",
        "sorted set",
        "id of a flow run, flow or deployment → `seq` of its last change",
        "4,096 writes later, or a change of very many minutes",
    ),
    Key(
        f"{_SHARD}rebuild",
        "hash",
        "a rebuild that was asked for, and how far it is",
        "the end of the rebuild, or an hour after its last step",
    ),
    Key(f"{_OF_CATALOG}flows", "hash", "flow id → record", "never"),
    Key(f"{_OF_CATALOG}deployments", "hash", "deployment id → record", "never"),
)

_WORDS: Final = {
    "<prefix>": rb"[A-Za-z0-9._-]+",
    "<g>": rb"[0-9]+",
    "<shard>": rb"(?:[0-9]+|c)",
    "<k>": b"[%s]" % "".join(kind.letter for kind in SCOPES).encode(),
    "<l>": rb"[0-9]",
    "<b>": rb"(?:[0-9]+|none)",
    "<day>": rb"[0-9]+",
    "<epoch>": rb"[0-9a-f]+",
    "<n>": rb"[0-9]+",
    "<id>": rb".{16}",
}
"""What a word in a pattern stands for."""


def named(key: bytes) -> Key | None:
    """The row of the table that names a key, whatever its prefix; None: it is not ours."""
    return next((row for row, pattern in _PATTERNS if pattern.fullmatch(key)), None)


def _compiled(pattern: str) -> re.Pattern[bytes]:
    parts = [_WORDS.get(part) or re.escape(part.encode()) for part in re.split(r"(<\w+>)", pattern) if part]
    return re.compile(b"".join(parts), re.DOTALL)


_PATTERNS: Final = [(row, _compiled(row.pattern)) for row in KEYS]


def live_key(prefix: str) -> bytes:
    """The one key outside of any shard."""
    return f"{prefix}:live".encode()


class Keys:
    """The keys of one shard of one generation."""

    __slots__ = (
        *("cohorts", "days", "deployments", "flows", "ledger", "rebuild", "root", "states", "touched", "touched_ids"),
    )

    def __init__(self, prefix: str, generation: str, shard: str) -> None:
        root = f"{prefix}:{{{generation}.{shard}}}:".encode()
        self.root = root
        self.ledger = root + b"ledger"
        self.states = root + b"states"
        self.cohorts = root + b"cohorts"
        self.days = root + b"days"
        self.touched = root + b"touched"
        self.touched_ids = root + b"touched_ids"
        self.rebuild = root + b"rebuild"
        self.flows = root + b"flows"
        self.deployments = root + b"deployments"

    def cells(self, kind: Scope, level: int, page: int) -> bytes:
        """Hash of the cells of a page of buckets for one kind of scope; for its fields see `cells_field`."""
        return self.root + _name_of_cells(kind, level, page)

    def cells_of(self, kind: Scope, level: int, bucket: int) -> bytes:
        """The hash that holds the cells of a bucket."""
        return self.cells(kind, level, page_of(level, bucket))

    def raw(self, bucket: int) -> bytes:
        """Hash of the records of one raw bucket, see `raw_bucket`."""
        return self.root + b"raw:" + _bucket_name(bucket)

    def aside(self, epoch: str, bucket: int) -> bytes:
        """Hash of what is to take the place of a raw bucket."""
        return b"%saside:%s:%s" % (self.root, epoch.encode(), _bucket_name(bucket))

    def members(self, flow_run: bytes) -> bytes:
        """Index hash of one flow run's task runs."""
        return self.root + b"members:" + flow_run

    def single(self, task_run: bytes) -> bytes:
        """Index hash that holds a task run without a flow run."""
        return self.root + b"single:%d" % _id_bucket(task_run)

    def flow_runs(self, flow_run: bytes) -> bytes:
        """Hash that holds a flow run's record."""
        return self.flow_runs_at(_id_bucket(flow_run))

    def flow_runs_at(self, number: int) -> bytes:
        """The hash of flow runs of that number, below FLOW_RUN_BUCKETS."""
        return self.root + b"flow_runs:%d" % number

    def leaving(self, day: int) -> bytes:
        """What leaves the index with the cells of a day."""
        return self.root + b"leaving:%d" % day


def cells_field(scope: bytes, level: int, bucket: int) -> bytes:
    """The field of a scope's cells of a bucket in the hash of its page."""
    end: bytes = DIGITS[child_in(level, bucket)]
    return scope + end


@lru_cache(1 << 14)
def _name_of_cells(kind: Scope, level: int, page: int) -> bytes:
    # All shards of a question name the same.
    return b"cells:%s%d:%s" % (kind.letter.encode(), level, _bucket_name(page))


def raw_bucket(minute: int) -> int:
    """The bucket of raw records that holds those of a minute; NONE for NONE."""
    return NONE if minute == NONE else minute // RAW_MINUTES


def _bucket_name(bucket: int) -> bytes:
    return b"none" if bucket == NONE else b"%d" % bucket


def _id_bucket(identity: bytes) -> int:
    # The last bytes: the first ones of a UUIDv7 are a clock.
    return int.from_bytes(identity[-2:], "big") & FLOW_RUN_BUCKETS - 1

"""Every key that runtally owns in Redis; a key that this table does not name is not ours.

    <prefix>:live                         hash    generation, format, partitions: what the others belong to
    <prefix>:{<g>.<shard>}:ledger         hash    position and state of the shard (see `ledger`)
    <prefix>:{<g>.<shard>}:states         list    the shard's states in the order of their numbers
    <prefix>:{<g>.<shard>}:days           set     days that hold runs
    <prefix>:{<g>.<shard>}:cohorts        list    the shard's cohorts in the order of their numbers
    <prefix>:{<g>.<shard>}:cells:<k><l>:<b>  hash  scope → packed cells of bucket b (`none`: no expected time) at
                                                  level l; k is the kind of scope: a (all), c (cohort), f (flow),
                                                  d (deployment)
    <prefix>:{<g>.<shard>}:raw:<b>        hash    run id → record, of ten minutes (`none`: no expected time)
    <prefix>:{<g>.<shard>}:members:<id>   hash    task run id → bucket of its raw record, of one flow run
    <prefix>:{<g>.<shard>}:single:<b>     hash    the same for task runs without a flow run, bucketed by id
    <prefix>:{<g>.<shard>}:flow_runs:<b>  hash    flow run id → record, bucketed by id
    <prefix>:{<g>.<shard>}:touched        zset    minute → seq of its last change
    <prefix>:{<g>.<shard>}:touched_ids    zset    id of a flow run, flow or deployment → seq of its last change
    <prefix>:{<g>.c}:flows                hash    flow id → record
    <prefix>:{<g>.c}:deployments          hash    deployment id → record

A shard is a partition's number, or `c` for the catalog. The braces are Redis Cluster's hash tag: all keys of
a shard live in one slot.
"""

from __future__ import annotations

from typing import Final

from ..core.levels import LEVELS, MINUTE_US, NONE
from ..core.scopes import Scope

CATALOG: Final = "c"
_BUCKET_MASK: Final = 0xFFF
FORMAT: Final = 3
"""Number of the stored format; another one in Redis is refused by name."""
RAW_MINUTES: Final = LEVELS[1].width_us // MINUTE_US
"""So many minutes of raw runs share a hash: a month is read in a tenth of the look-ups, a minute costs little more."""


def live_key(prefix: str) -> bytes:
    """The one key outside of any shard."""
    return f"{prefix}:live".encode()


class Keys:
    """The keys of one shard of one generation."""

    __slots__ = (*("cohorts", "days", "deployments", "flows", "ledger", "root", "states", "touched", "touched_ids"),)

    def __init__(self, prefix: str, generation: str, shard: str) -> None:
        root = f"{prefix}:{{{generation}.{shard}}}:".encode()
        self.root = root
        self.ledger = root + b"ledger"
        self.states = root + b"states"
        self.cohorts = root + b"cohorts"
        self.days = root + b"days"
        self.touched = root + b"touched"
        self.touched_ids = root + b"touched_ids"
        self.flows = root + b"flows"
        self.deployments = root + b"deployments"

    def cells(self, kind: Scope, level: int, bucket: int) -> bytes:
        """Hash of one bucket's cells for one kind of scope."""
        name = b"none" if bucket == NONE else b"%d" % bucket
        return b"%scells:%s%d:%s" % (self.root, kind.letter.encode(), level, name)

    def raw(self, bucket: int) -> bytes:
        """Hash of the records of one raw bucket, see `raw_bucket`."""
        return self.root + (b"raw:none" if bucket == NONE else b"raw:%d" % bucket)

    def members(self, flow_run: bytes) -> bytes:
        """Index hash of one flow run's task runs."""
        return self.root + b"members:" + flow_run

    def single(self, task_run: bytes) -> bytes:
        """Index hash that holds a task run without a flow run."""
        return self.root + b"single:%d" % _id_bucket(task_run)

    def flow_runs(self, flow_run: bytes) -> bytes:
        """Hash that holds a flow run's record."""
        return self.root + b"flow_runs:%d" % _id_bucket(flow_run)


def raw_bucket(minute: int) -> int:
    """The bucket of raw records that holds those of a minute; NONE for NONE."""
    return NONE if minute == NONE else minute // RAW_MINUTES


def _id_bucket(identity: bytes) -> int:
    # The last bytes: the first ones of a UUIDv7 are a clock.
    return int.from_bytes(identity[-2:], "big") & _BUCKET_MASK

"""From the records of a fetch to a batch: parsed, the bad ones to dead letters, the misplaced ones forwarded.

Both are sent, and taken by the broker, before the batch is committed: what the ledger has passed is either in Redis
or somewhere else in Kafka, never nowhere. A batch that has to be tried again is not sent again by the same worker; what
another worker sends again has the same place in its headers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple, cast

from ..core.changes import Change
from ..core.retention import day_of
from ..errors import BadEventError, TooManyBadError
from ..events.contract import bad
from ..events.dead_letter import dead_letter
from ..events.partition import FORWARDED, Partitioner, key_of
from ..events.publish import Publisher, Record
from ..events.snapshots import Parsed, parse_all
from ..events.wire import Ignored
from ..metrics import Metrics
from ..settings import Settings
from ..store.shard import CATALOG, Batch
from .limits import Limits, Tally, TooMany
from .log import mark_of

log = logging.getLogger(__name__)

_CREATE_TIME: Final = 0
_MAX_AHEAD_US: Final = 3600 * 1_000_000
_WARN_FORWARDED: Final = 100
_MAX_WORDS: Final = 300


def by_day(records: Sequence[Any], watermark_us: int, now_us: int) -> Iterator[Sequence[Any]]:
    """Records in parts of one day of the watermark each: what is too old is then a matter of the log, and not of how
    its records happened to be fetched."""
    day = day_of(watermark_us)
    begin = 0
    if day_of(max(record.timestamp for record in records) * 1000) <= day:
        yield records
        return
    for at, record in enumerate(records):
        record_us = record.timestamp * 1000
        if day_of(record_us) > day and not _is_ahead(record, now_us):
            day = day_of(record_us)
            if at > begin:
                yield records[begin:at]
                begin = at
    yield records[begin:]


def _is_ahead(record: Any, now_us: int) -> bool:
    """Whether a producer's clock, not the broker's, put a record where nothing can be yet."""
    ahead: bool = record.timestamp * 1000 > now_us + _MAX_AHEAD_US and record.timestamp_type == _CREATE_TIME
    return ahead


class _Sorted(NamedTuple):
    """What a batch is made of, its newest timestamp in µs, how many events are of no interest, and positions of bad
    ones and records that belong elsewhere."""

    changes: Sequence[Change]
    watermark_us: int
    ignored: int
    refused: list[tuple[int, BadEventError]]
    misplaced: list[tuple[Any, Change]]


class Intake:
    """Reads the records of one partition."""

    def __init__(
        self,
        settings: Settings,
        publisher: Publisher,
        metrics: Metrics,
        topic: Literal["runs", "catalog"],
        partition: int,
        partition_of: Partitioner,
    ) -> None:
        self._settings = settings
        self._publisher = publisher
        self._metrics = metrics
        self._topic = topic
        self._name = settings.runs_topic if topic == "runs" else settings.catalog_topic
        self._partition = partition
        self._shard = str(partition) if topic == "runs" else CATALOG
        self._say = logging.LoggerAdapter(log, {"shard": self._shard})
        self._partition_of = partition_of
        self._limits = Limits(settings.dead_letter_limit, settings.dead_letter_ratio)
        # By the offset up to which they go: a batch may come again, and is then judged from where it began.
        self._tallies: dict[int, Tally] = {}
        self._sent: set[tuple[int, int]] = set()
        self._forwarded = 0

    async def batch(self, first_offset: int, records: Sequence[Any], now_us: int) -> Batch:
        """The batch of these records, once everything that is not in it is safe elsewhere.

        Raises `TooManyBadError`, `ServerLostError`.
        """
        times_us = [record.timestamp * 1000 for record in records]
        found = parse_all(
            [record.value for record in records],
            topic=self._topic,
            records_us=times_us,
            max_clock_skew_us=self._settings.max_clock_skew,
        )
        changes, watermark, ignored, refused, misplaced = self._sorted(records, times_us, found, now_us)
        self._judge(first_offset, records, refused)
        self._sent = {(offset, timestamp) for offset, timestamp in self._sent if offset >= first_offset}
        if ignored:
            self._metrics["events_ignored_total"].labels(self._shard).inc(ignored)
        await self._bury([(records[at], error) for at, error in refused if self._is_new(records[at])])
        await self._forward([(record, change) for record, change in misplaced if self._is_new(record)])
        return Batch(first_offset, records[-1].offset + 1, changes, mark_of(records[-1]), watermark)

    def _sorted(self, records: Sequence[Any], times_us: Sequence[int], found: Sequence[Parsed], now_us: int) -> _Sorted:
        """What is to become of each record, by what it was parsed to."""
        newest = max(times_us)
        may_be_ahead = newest > now_us + _MAX_AHEAD_US
        partition_of, here = self._partition_of, self._partition
        if not may_be_ahead and {*map(type, found)} == {Change}:
            changes = cast(Sequence[Change], found)
            if partition_of.all_belong_to(here, changes):
                return _Sorted(changes, newest, 0, [], [])
        kept: list[Change] = []
        refused: list[tuple[int, BadEventError]] = []
        misplaced: list[tuple[Any, Change]] = []
        watermark = ignored = 0
        for position, (record_us, one) in enumerate(zip(times_us, found, strict=True)):
            if may_be_ahead and _is_ahead(records[position], now_us):
                refused.append((position, bad("impossible time", "the record's own timestamp is over an hour ahead")))
                continue
            if isinstance(one, BadEventError):
                refused.append((position, one))
                continue
            watermark = max(watermark, record_us)
            if isinstance(one, Ignored):
                ignored += 1
            elif partition_of(one) == here:
                kept.append(one)
            elif any(name == FORWARDED for name, _ in records[position].headers):
                refused.append((position, self._astray(one)))
            else:
                misplaced.append((records[position], one))
        return _Sorted(kept, watermark, ignored, refused, misplaced)

    def _judge(self, first_offset: int, records: Sequence[Any], refused: Sequence[tuple[int, BadEventError]]) -> None:
        """Raise when too many are bad, before anything of them is sent."""
        before = self._tallies.get(first_offset, Tally())
        after = before.after(len(records), [position for position, _ in refused], self._limits)
        if isinstance(after, TooMany):
            offset = records[after.position].offset
            raise TooManyBadError(
                self._shard,
                f"{after.words} on {self._name}[{self._partition}] are bad, among them those from offset {offset} on, "
                f"the last one: {str(refused[-1][1])[:_MAX_WORDS]}. A producer is misconfigured, and must not drain "
                "the topic into dead letters. Mend it; to let these events pass all the same, start the worker with a "
                "larger RUNTALLY_DEAD_LETTER_LIMIT",
                offset,
            )
        self._tallies = {first_offset: before, records[-1].offset + 1: after}

    def _is_new(self, record: Any) -> bool:
        """Whether this worker has not sent it on already, in an earlier attempt at this batch."""
        return (record.offset, record.timestamp) not in self._sent

    def _astray(self, change: Change) -> BadEventError:
        return bad(
            "wrong partition",
            f"it was forwarded to partition {self._partition} and belongs to {self._partition_of(change)}: workers do "
            "not agree on the number of partitions",
        )

    async def _bury(self, refused: Sequence[tuple[Any, BadEventError]]) -> None:
        if not refused:
            return
        await self._publisher.forward(self._letter(record, error) for record, error in refused)
        self._note_sent(record for record, _ in refused)
        for _, error in refused:
            self._metrics["events_bad_total"].labels(self._shard, error.reason).inc()
        last, error = refused[-1]
        self._say.warning(
            "%s[%d]: %d bad events went to dead letters, the last one at offset %d: %s",
            self._name,
            self._partition,
            len(refused),
            last.offset,
            error,
        )

    async def _forward(self, misplaced: Sequence[tuple[Any, Change]]) -> None:
        if not misplaced:
            return
        await self._publisher.forward(
            Record(
                self._name,
                key_of(change),
                record.value,
                [*record.headers, (FORWARDED, b"1")],
                self._partition_of(change),
                record.timestamp,
            )
            for record, change in misplaced
        )
        self._note_sent(record for record, _ in misplaced)
        self._metrics["events_forwarded_total"].labels(self._shard).inc(len(misplaced))
        before, self._forwarded = self._forwarded, self._forwarded + len(misplaced)
        if before < _WARN_FORWARDED <= self._forwarded:
            self._say.warning(
                "%s[%d]: %d events so far sat in the wrong partition and were forwarded: a producer does not use "
                "murmur2. Set partitioner=murmur2_random in librdkafka's clients",
                self._name,
                self._partition,
                self._forwarded,
            )

    def _note_sent(self, records: Iterable[Any]) -> None:
        self._sent.update((record.offset, record.timestamp) for record in records)

    def _letter(self, record: Any, error: BadEventError) -> Record:
        letter = dead_letter(
            error,
            topic=self._name,
            partition=self._partition,
            offset=record.offset,
            timestamp_ms=record.timestamp,
            key=record.key,
            value=record.value,
            headers=record.headers,
        )
        return Record(self._settings.dead_letters_topic, letter.key, letter.value, letter.headers)

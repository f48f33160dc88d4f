"""From the records of a fetch to a batch: parsed, the bad ones to dead letters, the misplaced ones forwarded.

Both are sent, and taken by the broker, before the batch is committed: what the ledger has passed is either in Redis
or somewhere else in Kafka, never nowhere.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

from ..core.changes import Change
from ..core.retention import day_of
from ..errors import BadEventError
from ..events.dead_letter import dead_letter
from ..events.partition import FORWARDED, Partitioner, key_of
from ..events.publish import Publisher, Record
from ..events.snapshots import parse_all
from ..events.wire import Ignored
from ..metrics import Metrics
from ..settings import Settings
from ..store.shard import CATALOG, Batch
from .log import mark_of

log = logging.getLogger(__name__)

_CREATE_TIME: Final = 0
_MAX_AHEAD_US: Final = 3600 * 1_000_000
_WARN_FORWARDED: Final = 100


def by_day(records: Sequence[Any], watermark_us: int, now_us: int) -> Iterator[Sequence[Any]]:
    """Records in parts of one day of the watermark each: what is too old is then a matter of the log, and not of how
    its records happened to be fetched."""
    day = day_of(watermark_us)
    begin = 0
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


class TooManyBadError(Exception):
    """Nearly everything on a partition is bad: a misconfigured producer. The worker stops instead of draining it."""


class Intake:
    """Reads the records of one partition."""

    def __init__(
        self,
        settings: Settings,
        publisher: Publisher,
        metrics: Metrics,
        topic: Literal["runs", "catalog"],
        partition: int,
        partitions: int,
    ) -> None:
        self._settings = settings
        self._publisher = publisher
        self._metrics = metrics
        self._topic = topic
        self._name = settings.runs_topic if topic == "runs" else settings.catalog_topic
        self._partition = partition
        self._shard = str(partition) if topic == "runs" else CATALOG
        self._partition_of = Partitioner(partitions)
        self._bad_in_a_row = 0
        self._forwarded = 0

    async def batch(self, first_offset: int, records: Sequence[Any], now_us: int) -> Batch:
        """The batch of these records, once everything that is not in it is safe elsewhere.

        Raises `TooManyBadError`, `ServerLostError`.
        """
        found = parse_all(
            [record.value for record in records],
            topic=self._topic,
            records_us=[record.timestamp * 1000 for record in records],
            max_clock_skew_us=self._settings.max_clock_skew,
        )
        changes: list[Change] = []
        bad: list[tuple[Any, BadEventError]] = []
        misplaced: list[tuple[Any, Change]] = []
        watermark = ignored = 0
        partition_of, here = self._partition_of, self._partition
        for record, one in zip(records, found, strict=True):
            record_us = record.timestamp * 1000
            if _is_ahead(record, now_us):
                bad.append(
                    (record, BadEventError("impossible time", "the record's own timestamp is over an hour ahead"))
                )
                continue
            if isinstance(one, BadEventError):
                bad.append((record, one))
                continue
            watermark = max(watermark, record_us)
            if isinstance(one, Ignored):
                ignored += 1
            elif partition_of(one) == here:
                changes.append(one)
            else:
                misplaced.append((record, one))
        if ignored:
            self._metrics["events_ignored_total"].labels(self._shard).inc(ignored)
        if bad:
            await self._bury(bad, all_bad=not (changes or misplaced))
        elif changes or misplaced:
            self._bad_in_a_row = 0
        if misplaced:
            await self._forward(misplaced)
        return Batch(first_offset, records[-1].offset + 1, changes, mark_of(records[-1]), watermark)

    async def _bury(self, bad: Sequence[tuple[Any, BadEventError]], *, all_bad: bool) -> None:
        self._bad_in_a_row = self._bad_in_a_row + len(bad) if all_bad else 0
        if self._bad_in_a_row >= self._settings.dead_letter_limit:
            raise TooManyBadError(
                f"{self._bad_in_a_row} events in a row on {self._name}[{self._partition}] are bad, the last one: "
                f"{bad[-1][1]}. A producer is misconfigured; the worker stops instead of draining the topic"
            )
        await self._publisher.forward(self._letter(record, error) for record, error in bad)
        for _, error in bad:
            self._metrics["events_bad_total"].labels(self._shard, error.reason).inc()
        log.warning(
            "%s[%d]: %d bad events went to dead letters, the last one at offset %d: %s",
            self._name,
            self._partition,
            len(bad),
            bad[-1][0].offset,
            bad[-1][1],
        )

    async def _forward(self, misplaced: Sequence[tuple[Any, Change]]) -> None:
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
        self._metrics["events_forwarded_total"].labels(self._shard).inc(len(misplaced))
        before, self._forwarded = self._forwarded, self._forwarded + len(misplaced)
        if before < _WARN_FORWARDED <= self._forwarded:
            log.warning(
                "%s[%d]: %d events so far sat in the wrong partition and were forwarded: a producer does not use "
                "murmur2. Set partitioner=murmur2_random in librdkafka's clients",
                self._name,
                self._partition,
                self._forwarded,
            )

    def _letter(self, record: Any, error: BadEventError) -> Record:
        letter = dead_letter(
            error,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            timestamp_ms=record.timestamp,
            key=record.key,
            value=record.value,
            headers=record.headers,
        )
        return Record(self._settings.dead_letters_topic, letter.key, letter.value, letter.headers)

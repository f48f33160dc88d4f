"""Faust's aiokafka consumer, with batches instead of single messages.

The only place that knows Faust's internals (0.15.3, pinned; tests/stream/test_faust_names.py fails when one that
is used here changes). Two things are replaced:

- **Batches**: one stream event per partition and fetched batch. Per message Faust spends two tasks, a conductor
  call, a queue hop and an acknowledgement, a hundred times what the message costs us.
- **The seek**: Redis says where a partition goes on, not Kafka's committed offset. A seek begins a new *run* of the
  partition; batches of earlier runs that are still on their way are recognised by its number and dropped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiokafka
import faust
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP, ConsumerMessage

FETCH_MAX_WAIT_MS: Final = 50
"""How long the broker may hold a fetch back on a quiet topic; Faust's 1,500 would be latency."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one fetch gave of one partition: records in order, the run of the partition that they belong to, and the
    offset `begin` at which the fetch was due. Offsets have gaps (control records, aborted transactions), so it is
    `begin`, not the first record's offset, that shows whether a fetch before this one went missing."""

    tp: TP
    run: int
    begin: int
    records: Sequence[aiokafka.ConsumerRecord[bytes | None, bytes | None]]


class _Thread(AIOKafkaConsumerThread):  # type: ignore[misc]
    """The thread that aiokafka's consumer lives in; reads only what was committed, and waits less."""

    def _create_worker_consumer(self, transport: Transport) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        return consumer


class BatchConsumer(Consumer):  # type: ignore[misc]
    """Yields one message per partition and fetch; its value is a `Fetched`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._runs: defaultdict[TP, int] = defaultdict(int)
        self._due: dict[TP, int] = {}

    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    def run_of(self, tp: TP) -> int:
        """The number of the partition's current run."""
        return self._runs[tp]

    async def restart_at(self, tp: TP, offset: int) -> None:
        """Go on at `offset` in a new run: what was fetched before is dropped, here and in Faust's bookkeeping."""
        self._runs[tp] += 1
        await self._seek(tp, offset)
        self._due[tp] = offset
        self._read_offset[tp] = offset or None
        self._committed_offset[tp] = offset or None
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        self._gap[tp].clear()

    async def perform_seek(self) -> None:
        """At an assignment: begin new runs; the ledger decides where, as soon as it has been read."""
        for tp in self.assignment():
            self._runs[tp] += 1
            self._due.pop(tp, None)
        await super().perform_seek()

    async def commit_hint(self, offsets: dict[TP, int]) -> None:
        """Tell Kafka how far we are: for lag tools only."""
        await self._commit(offsets)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """As Faust's, with one message a partition; stops where Faust's would stop."""
        runs = dict(self._runs)
        records, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if records is None or self.should_stop:
            return
        fetches = [self._fetched(tp, runs.get(tp, 0), batch) for tp, batch in records.items() if batch]
        if not self.flow_active:
            await self.perform_seek()
            return
        for fetched in fetches:
            tp = fetched.tp
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            if active is None or tp in active or tp in self._buffered_partitions:
                yield tp, self._as_message(fetched)

    def _fetched(self, tp: TP, run: int, records: Sequence[Any]) -> Fetched:
        begin = self._due.get(tp, records[0].offset)
        self._due[tp] = records[-1].offset + 1
        return Fetched(tp, run, begin, records)

    def _as_message(self, fetched: Fetched) -> ConsumerMessage:
        tp, last = fetched.tp, fetched.records[-1]
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            last.offset,
            (last.timestamp or 0) / 1000.0,
            last.timestamp_type,
            (),
            None,
            fetched,
            None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )


class BatchTransport(Transport):  # type: ignore[misc]
    """Faust's transport with our consumer."""

    Consumer = BatchConsumer


class BatchApp(faust.App):  # type: ignore[misc]
    """A Faust app that consumes batches."""

    def _new_transport(self) -> BatchTransport:
        return BatchTransport(self.conf.broker_consumer, self)

"""Faust's aiokafka consumer, with batches instead of single messages.

The only place that knows Faust's internals (0.15.3, pinned; tests/stream/test_faust_names.py fails when one that
is used here changes). Three things are replaced:

- **Batches**: one stream event per partition and fetched batch. Per message Faust spends two tasks, a conductor
  call, a queue hop and an acknowledgement, a hundred times what the message costs us.
- **The limit**: what is on its way is counted in bytes (`load`); a partition without room is not fetched. Faust counts
  messages, whatever they weigh, and stops all partitions for one.
- **The seek**: Redis says where a partition goes on, not Kafka's committed offset. A seek begins a new *run* of the
  partition; batches of earlier runs that are still on their way are recognised by its number and dropped.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import aiokafka
import faust
from aiokafka.errors import IllegalStateError
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP, ConsumerMessage

from .fetches import Limit, take_whole
from .load import Carried, Load, Record

_T = TypeVar("_T")

FETCH_MAX_WAIT_MS: Final = 50
"""How long the broker may hold a fetch back on a quiet topic; Faust's 1,500 would be latency."""
_FULL_S: Final = 0.02
"""How long others are waited for while a partition has no room; it may have some then."""


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one fetch gave of one partition: records in order, the run of the partition that they belong to, and the
    offset `begin` at which the fetch was due. Offsets have gaps (control records, aborted transactions), so it is
    `begin`, not the first record's offset, that shows whether a fetch before this one went missing. `work` is what it
    takes besides while it is applied, in bytes. Whoever takes it calls `put_down` when it is applied or dropped; the
    records are gone after that."""

    tp: TP
    run: int
    begin: int
    records: Sequence[Record]
    work: int = 0
    put_down: Callable[[], None] = _nothing


class _Thread(AIOKafkaConsumerThread):  # type: ignore[misc]
    """The thread that aiokafka's consumer lives in.

    `runs` and `due` are changed, and records are stamped with them, only in this thread's loop and without
    awaiting in between: a fetch belongs wholly to the time before a restart or wholly to the time after it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.runs: defaultdict[TP, int] = defaultdict(int)
        self.due: dict[TP, int] = {}
        self.held: set[TP] = set()
        self._limit = Limit()

    async def restart(self, tp: TP, offset: int) -> bool:
        """Seek, and begin a new run; False when the partition is not assigned any more. Never awaits."""
        try:
            self.seek(tp, offset)
        except IllegalStateError:
            return False
        self.runs[tp] += 1
        self.due[tp] = offset
        self.held.discard(tp)
        return True

    async def hold(self, tp: TP) -> None:
        """Fetch nothing of a partition until it is restarted. Never awaits."""
        self.held.add(tp)

    async def renew(self, tps: Iterable[TP]) -> None:
        """Begin new runs that nobody has said yet where to begin: what comes of them is dropped until a restart."""
        for tp in tps:
            self.runs[tp] += 1
            self.due.pop(tp, None)

    async def _fetch_records(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: AbstractSet[TP] | None,
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> dict[TP, Carried]:
        assigned = {TP(tp.topic, tp.partition) for tp in consumer.assignment()}
        roomy, most = self.app.load.room(assigned)
        wanted = (assigned if active_partitions is None else {*active_partitions}) & roomy - self.held
        if len(roomy) < len(assigned):
            timeout = _FULL_S
        if not wanted:
            # To aiokafka, none means all.
            await asyncio.sleep(timeout or FETCH_MAX_WAIT_MS / 1000)
            return {}
        self._limit.most = min(most, max_records or most)
        take_whole(consumer, self._limit)
        records = await super()._fetch_records(consumer, wanted, timeout)
        return {tp: self._stamped(TP(tp.topic, tp.partition), batch) for tp, batch in records.items() if batch}

    def _stamped(self, tp: TP, records: Sequence[Record]) -> Carried:
        stamped = Carried(records, self.app.load, tp)
        stamped.run = self.runs[tp]
        stamped.begin = self.due.get(tp, records[0].offset)
        self.due[tp] = records[-1].offset + 1
        return stamped

    def _create_worker_consumer(self, transport: Transport) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = self.app.isolation
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        consumer._fetch_max_bytes = self.app.fetch_bytes
        return consumer


class BatchConsumer(Consumer):  # type: ignore[misc]
    """Yields one message per partition and fetch; its value is a `Fetched`."""

    _thread: _Thread

    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    def run_of(self, tp: TP) -> int:
        """The number of the partition's current run."""
        return self._thread.runs[tp]

    def due(self, tp: TP) -> int | None:
        """The offset at which the next fetch is due: everything before it has been fetched. None before a restart."""
        return self._thread.due.get(tp)

    async def position(self, tp: TP) -> int | None:
        """The next offset to fetch; None when the partition is not this worker's any more, which is known in the
        consumer's thread first."""
        try:
            position: int | None = await super().position(tp)
        except IllegalStateError:
            return None
        return position

    def highwater(self, tp: TP) -> int | None:
        """Where the partition ends as far as is known; None when it is not this worker's any more."""
        try:
            end: int | None = super().highwater(tp)
        except AssertionError:
            return None
        return end

    async def restart_at(self, tp: TP, offset: int) -> bool:
        """Go on at `offset` in a new run: what was fetched before is dropped, here and in Faust's bookkeeping. False
        when the partition is not this worker's any more."""
        if not await self._in_thread(self._thread.restart(tp, offset)):
            return False
        self._read_offset[tp] = offset or None
        self._committed_offset[tp] = offset or None
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        self._gap[tp].clear()
        return True

    async def hold(self, tp: TP) -> None:
        """Fetch nothing of a partition until `restart_at`."""
        await self._in_thread(self._thread.hold(tp))

    async def perform_seek(self) -> None:
        """At an assignment: begin new runs; the ledger decides where, as soon as it has been read.

        Faust's own would seek to Kafka's committed offsets, and, because it asks the broker first, perhaps after the
        ledger's seek: from there on records would be taken for those at the ledger's offset.
        """
        await self._renew(self.assignment())

    async def commit_hint(self, offsets: dict[TP, int]) -> None:
        """Tell Kafka how far we are: for lag tools only."""
        await self._commit(offsets)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """As Faust's, with one message a partition; stops where Faust's would stop."""
        records, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if records is None or self.should_stop:
            return
        if not self.flow_active:
            await self.perform_seek()
            return
        dropped: list[TP] = []
        for tp, batch in records.items():
            going_on = self.flow_active and self.app.consumer_generation_id == generation
            if going_on and (active is None or tp in active or tp in self._buffered_partitions):
                yield tp, self._as_message(Fetched(tp, batch.run, batch.begin, batch, batch.work, batch.put_down))
            else:
                batch.put_down()
                dropped.append(tp)
        if dropped:
            await self._renew(dropped)

    async def _renew(self, tps: Iterable[TP]) -> None:
        await self._in_thread(self._thread.renew([TP(tp.topic, tp.partition) for tp in tps]))

    async def _in_thread(self, work: Coroutine[Any, Any, _T]) -> _T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._thread.thread_loop))

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
    """A Faust app that consumes batches. `isolation`: what to read of a log that holds transactions. `load`: what is on
    its way, `fetch_bytes`: how much a broker may send at once."""

    isolation: Literal["read_committed", "read_uncommitted"] = "read_committed"
    load: Load
    fetch_bytes: int

    def _new_transport(self) -> BatchTransport:
        return BatchTransport(self.conf.broker_consumer, self)

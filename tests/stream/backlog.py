"""Very many events, published quickly: a log that a worker is far behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

from aiokafka import AIOKafkaProducer

from runtally.events.partition import partition_of
from runtally.settings import Settings

EVENTS_A_RUN = 3
RUNS_A_FLOW_RUN = 20
_FIRST = datetime(2026, 11, 20, tzinfo=UTC)
_SPREAD_S = 7 * 86_400
_IN_FLIGHT = 64

_EVENT = (
    b'{"entity":"task_run","action":"upsert","occurred":"%(at)s","data":{"id":"%(run)s","flow_run_id":"%(flow_run)s",'
    b'"name":"task-%(name)d","tags":["a","b"],"state_type":"%(type)s","state_name":"%(state)s",'
    b'"state_timestamp":"%(at)s","expected_start_time":"%(expected)s","start_time":%(start)s,"end_time":%(end)s}}'
)
_STATES = ((b"PENDING", b"Pending"), (b"RUNNING", b"Running"), (b"COMPLETED", b"Completed"))


async def publish(settings: Settings, runs: int) -> int:
    """Publish three states of each of so many runs of a week, twenty a flow run, in their order; how many events those
    were."""
    async with producer(settings) as own:
        return await send(own, settings, range(runs), _FIRST, _SPREAD_S / runs)


@contextlib.asynccontextmanager
async def producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """One that takes large batches."""
    own = AIOKafkaProducer(bootstrap_servers=settings.kafka, max_batch_size=900_000)
    await own.start()
    try:
        yield own
    finally:
        await own.stop()


async def send(own: AIOKafkaProducer, settings: Settings, numbers: range, begin: datetime, step_s: float) -> int:
    """The same for the runs of these numbers, of which the first one is expected at `begin` and the next ones each so
    much later. Returns when the broker has all."""
    waiting: set[asyncio.Future[object]] = set()
    batches = {}
    for first in range(numbers.start, numbers.stop, RUNS_A_FLOW_RUN):
        key = _uuid(b"f", first)
        partition = partition_of(key, settings.partitions)
        some = range(first, min(numbers.stop, first + RUNS_A_FLOW_RUN))
        for value in _events(key, some, begin + timedelta(seconds=(first - numbers.start) * step_s), step_s):
            while True:
                batch = batches.get(partition)
                if batch is None:
                    batch = batches[partition] = own.create_batch()
                if batch.append(key=key, value=value, timestamp=None) is not None:
                    break
                del batches[partition]
                waiting.add(await own.send_batch(batch, settings.runs_topic, partition=partition))
                if len(waiting) > _IN_FLIGHT:
                    _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for partition, batch in batches.items():
        waiting.add(await own.send_batch(batch, settings.runs_topic, partition=partition))
    await asyncio.gather(*waiting)
    return len(numbers) * EVENTS_A_RUN


def _events(flow_run: bytes, numbers: range, begin: datetime, step_s: float) -> Iterator[bytes]:
    for number in numbers:
        expected = begin + timedelta(seconds=(number - numbers.start) * step_s)
        times = [(expected + timedelta(seconds=step)).isoformat().encode() for step in range(3)]
        run = _uuid(b"0", number)
        for step, (kind, state) in enumerate(_STATES):
            yield _EVENT % {
                **{b"at": times[step], b"run": run, b"flow_run": flow_run, b"name": number % 7},
                **{b"type": kind, b"state": state, b"expected": times[0]},
                b"start": b'"%s"' % times[1] if step else b"null",
                b"end": b'"%s"' % times[2] if step == 2 else b"null",
            }


def _uuid(kind: bytes, number: int) -> bytes:
    """A version 4 UUID that is the kind's and the number's own."""
    return b"%s0000000-0000-4000-8000-%012x" % (kind, number)

"""Very many events, published quickly: a log that a worker is far behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
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
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka, max_batch_size=900_000)
    await producer.start()
    try:
        waiting: set[asyncio.Future[object]] = set()
        batches = {}
        for number in range(0, runs, RUNS_A_FLOW_RUN):
            key = _uuid(b"f", number)
            partition = partition_of(key, settings.partitions)
            for value in _events(key, number, min(runs, number + RUNS_A_FLOW_RUN), runs):
                while True:
                    batch = batches.get(partition)
                    if batch is None:
                        batch = batches[partition] = producer.create_batch()
                    if batch.append(key=key, value=value, timestamp=None) is not None:
                        break
                    del batches[partition]
                    waiting.add(await producer.send_batch(batch, settings.runs_topic, partition=partition))
                    if len(waiting) > _IN_FLIGHT:
                        _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for partition, batch in batches.items():
            waiting.add(await producer.send_batch(batch, settings.runs_topic, partition=partition))
        await asyncio.gather(*waiting)
    finally:
        await producer.stop()
    return runs * EVENTS_A_RUN


def _events(flow_run: bytes, first: int, after: int, runs: int) -> Iterator[bytes]:
    for number in range(first, after):
        expected = _FIRST + timedelta(seconds=number * _SPREAD_S // runs)
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

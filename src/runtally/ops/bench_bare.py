"""The bare loop: read a topic and decode its events, without Faust and without Redis.

The most that Python can do with these events on this machine, which the worker is held against. Run as a process:
`python -m runtally.ops.bench_bare EVENTS read_committed|read_uncommitted` prints wall and CPU seconds as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Final, Literal, cast

import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from .. import settings as runtally_settings
from ..events.snapshots import parse_all
from ..settings import Settings

_RECORDS: Final = 20_000
_WAIT_MS: Final = 500

Isolation = Literal["read_committed", "read_uncommitted"]


async def read(settings: Settings, events: int, isolation: Isolation) -> dict[str, float]:
    """Read that many events of the runs topic from its beginning; seconds from the first fetch to the last event."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka,
        isolation_level=isolation,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=1 << 20,
    )
    async with consumer:
        partitions = [TopicPartition(settings.runs_topic, number) for number in range(settings.partitions)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning()
        left, skew_us = events, settings.max_clock_skew
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        while left > 0:
            for records in (await consumer.getmany(timeout_ms=_WAIT_MS, max_records=_RECORDS)).values():
                left -= len(records)
                parse_all(
                    [record.value for record in records],
                    topic="runs",
                    records_us=[record.timestamp * 1000 for record in records],
                    max_clock_skew_us=skew_us,
                )
        return {"wall_s": time.perf_counter() - wall_s, "cpu_s": time.process_time() - cpu_s}


def main() -> None:
    """The process: settings from the environment."""
    events, isolation = sys.argv[1:]
    print(json.dumps(uvloop.run(read(runtally_settings.load(), int(events), cast(Isolation, isolation)))))


if __name__ == "__main__":
    main()

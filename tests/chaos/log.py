"""What the broker has really taken: the log, read back record by record, as the reference understands it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from operator import itemgetter
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from runtally.events.partition import partition_of
from runtally.settings import Settings
from runtally.store.keys import CATALOG

from ..reference import Reference
from ..reference.events import BadEventError, Fact, IgnoredEventError, parse


class Place(NamedTuple):
    """Where a record is."""

    topic: str
    partition: int
    offset: int


class Log:
    """All records of runs and catalog up to the last `read`, by shard."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        shards = {str(number): TopicPartition(settings.runs_topic, number) for number in range(settings.partitions)}
        self._count = settings.partitions
        self._partitions = {**shards, CATALOG: TopicPartition(settings.catalog_topic, 0)}
        self._letters = TopicPartition(settings.dead_letters_topic, 0)
        self._next = dict.fromkeys([*self._partitions.values(), self._letters], 0)
        self.records: dict[str, list[Any]] = {name: [] for name in self._partitions}
        self.values: set[tuple[str, bytes]] = set()
        self.bad: set[Place] = set()
        self.buried: set[Place] = set()
        self.reference = Reference()
        """Everything that has been read."""
        self._facts: dict[str, list[tuple[int, Fact]]] = {name: [] for name in self._partitions}
        self._walker = Reference()
        self._walked = dict.fromkeys(self._facts, 0)

    @property
    def next(self) -> dict[str, int]:
        """By shard the offset after the last record that was read."""
        return {name: self._next[tp] for name, tp in self._partitions.items()}

    @property
    def events(self) -> int:
        """How many records there are."""
        return sum(map(len, self.records.values()))

    async def ends(self) -> dict[str, int]:
        """By shard where the log ends now. Raises aiokafka's errors while the broker is away."""
        async with _Reader(self._settings) as consumer:
            found = await consumer.end_offsets([*self._partitions.values()])
        return {name: found[tp] for name, tp in self._partitions.items()}

    async def read(self) -> None:
        """Read on to where all topics end now."""
        async with _Reader(self._settings) as consumer:
            consumer.assign([*self._next])
            ends = await consumer.end_offsets([*self._next])
            for tp, offset in self._next.items():
                consumer.seek(tp, offset)
            for tp, end in ends.items():
                while await consumer.position(tp) < end:
                    for found, records in (await consumer.getmany(timeout_ms=1000)).items():
                        for record in records:
                            self._take(found, record)
            for tp, end in ends.items():
                self._next[tp] = max(end, await consumer.position(tp))

    def at(self, ledger: Mapping[str, int]) -> Reference:
        """What is true where the shards' next offsets are these; until it is asked for the next time. Where nothing is
        behind the last such offsets it takes only what lies between."""
        if any(after < self._walked[name] for name, after in ledger.items()):
            self._walker, self._walked = Reference(), dict.fromkeys(self._facts, 0)
        for name, after in ledger.items():
            facts = self._facts[name]
            begin, end = (bisect_left(facts, offset, key=itemgetter(0)) for offset in (self._walked[name], after))
            for _, fact in facts[begin:end]:
                self._walker.take(fact)
            self._walked[name] = after
        return self._walker

    def _take(self, tp: TopicPartition, record: Any) -> None:
        if tp == self._letters:
            said = {name: value.decode() for name, value in record.headers if name.startswith("runtally-")}
            topic, partition, offset = (said[f"runtally-{name}"] for name in ("topic", "partition", "offset"))
            self.buried.add(Place(topic, int(partition), int(offset)))
            return
        name = CATALOG if tp.topic == self._settings.catalog_topic else str(tp.partition)
        self.records[name].append(record)
        self.values.add((tp.topic, record.value))
        try:
            fact = parse(record.value, record.timestamp * 1000 + self._settings.max_clock_skew)
            if (fact.entity in ("flow", "deployment")) != (name == CATALOG):
                raise BadEventError("the other topic's entity")
        except BadEventError:
            self.bad.add(Place(tp.topic, tp.partition, record.offset))
        except IgnoredEventError:
            return
        else:
            self.reference.take(fact)
            # Out of place it says nothing where it is: the worker forwards it, and what it forwards is in the log too.
            if name == CATALOG or name == str(partition_of((fact.flow_run_id or fact.id).encode(), self._count)):
                self._facts[name].append((record.offset, fact))


class _Reader:
    """A consumer without a group, for one look."""

    def __init__(self, settings: Settings) -> None:
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.kafka,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=50,
        )

    async def __aenter__(self) -> AIOKafkaConsumer:
        try:
            await self._consumer.start()
        except BaseException:
            await self._consumer.stop()
            raise
        return self._consumer

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

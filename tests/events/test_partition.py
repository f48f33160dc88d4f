"""Keys and partitions are those of Kafka's Java client."""

from __future__ import annotations

import pytest

from runtally.events.ids import identity, text_of
from runtally.events.partition import Partitioner, key_of, partition_of

from .samples import FLOW, FLOW_RUN, RUN, change_of, event

# From Kafka's own tests of its hash (org.apache.kafka.common.utils.UtilsTest).
MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("key", MURMUR2)
@pytest.mark.parametrize("partitions", [1, 8, 12, 1024])
def test_the_partition_is_that_of_the_java_client(key: bytes, partitions: int) -> None:
    assert partition_of(key, partitions) == (MURMUR2[key] & 0x7FFFFFFF) % partitions


def test_a_flow_run_and_its_task_runs_have_one_key() -> None:
    assert key_of(change_of(event("flow_run"))) == FLOW_RUN.encode()
    for action in ("upsert", "patch", "delete"):
        assert key_of(change_of(event("task_run", action))) == FLOW_RUN.encode()


def test_every_other_entity_has_its_own_id_for_a_key() -> None:
    assert key_of(change_of(event(flow_run_id=None))) == RUN.encode()
    assert key_of(change_of(event("flow"))) == FLOW.encode()
    assert key_of(change_of(event("deployment"))) == RUN.encode()
    assert key_of(change_of(event(flow_run_id="mine"))) == text_of(identity("flow_run", "mine")).encode()


def test_the_partitioner_tells_the_partition_of_the_key() -> None:
    tell = Partitioner(8)
    for number in range(200):
        change = change_of(event(flow_run_id=f"run {number % 100}"))
        assert tell(change) == partition_of(key_of(change), 8)


def test_the_partitioner_tells_whether_all_belong_to_one() -> None:
    tell = Partitioner(8)
    changes = [change_of(event(flow_run_id=f"run {number}")) for number in range(20)]
    for partition in range(8):
        here = [change for change in changes if tell(change) == partition]
        assert tell.all_belong_to(partition, here)
        assert tell.all_belong_to(partition, changes) == (len(here) == len(changes))

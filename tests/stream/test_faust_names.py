"""The names of Faust and aiokafka that consumer.py overrides or touches are as in the pinned versions."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
from collections.abc import Callable
from typing import Any

import aiokafka
import pytest
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from faust import App
from faust.app.base import App as BaseApp
from faust.transport.consumer import Consumer as BaseConsumer
from faust.transport.consumer import ThreadDelegateConsumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import ConsumerMessage


@pytest.mark.parametrize(
    ("package", "version"), [("faust-streaming", "0.15.3"), ("mode-streaming", "0.7.1"), ("aiokafka", "0.14.0")]
)
def test_the_versions_are_those_that_were_read(package: str, version: str) -> None:
    assert importlib.metadata.version(package) == version


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (Consumer._new_consumer_thread, ["self"]),
        (BaseConsumer.getmany, ["self", "timeout"]),
        (BaseConsumer.perform_seek, ["self"]),
        (BaseConsumer._wait_next_records, ["self", "timeout"]),
        (ThreadDelegateConsumer._commit, ["self", "offsets"]),
        (AIOKafkaConsumerThread._create_worker_consumer, ["self", "transport"]),
        (
            AIOKafkaConsumerThread._fetch_records,
            ["self", "consumer", "active_partitions", "timeout", "max_records"],
        ),
        (AIOKafkaConsumerThread.seek, ["self", "partition", "offset"]),
        (BaseApp._new_transport, ["self"]),
    ],
    ids=lambda value: value.__qualname__ if callable(value) else "",
)
def test_what_is_overridden_or_called_takes_what_we_give(function: Callable[..., Any], parameters: list[str]) -> None:
    assert list(inspect.signature(function).parameters) == parameters


def test_a_message_takes_what_a_batch_is_wrapped_in() -> None:
    names = list(inspect.signature(ConsumerMessage.__init__).parameters)
    assert names[1:10] == [
        *("topic", "partition", "offset", "timestamp", "timestamp_type", "headers", "key", "value", "checksum"),
    ]
    assert {"tp", "generation_id"} <= set(names)


@pytest.mark.parametrize(
    "name",
    [
        *("_read_offset", "_committed_offset", "_acked", "_acked_index", "_gap", "_buffered_partitions"),
        "flow_active",
    ],
)
def test_the_bookkeeping_that_a_restart_clears_exists(name: str) -> None:
    assert name in inspect.get_annotations(BaseConsumer)


def test_the_rest_of_what_is_used_exists() -> None:
    assert Transport.Consumer is Consumer
    assert hasattr(App, "on_partitions_revoked")
    assert hasattr(App, "on_partitions_assigned")
    source = inspect.getsource(aiokafka.AIOKafkaConsumer)
    assert "self._isolation_level = isolation_level" in source
    assert "self._fetch_max_wait_ms = fetch_max_wait_ms" in source
    assert "fetch_max_wait_ms=self._fetch_max_wait_ms" in source
    assert "self._fetch_max_bytes = fetch_max_bytes" in source
    assert "fetch_max_bytes=self._fetch_max_bytes" in source
    assert "isolation_level=self._isolation_level" in source
    assert "self._fetcher = Fetcher(" in source
    assert "reassignment_in_progress" in inspect.getsource(Fetcher.fetched_records)


@pytest.mark.parametrize(
    ("function", "sha256"),
    [
        (FetchResult, "d7db13f06de8248c456d0e34bfa9f7ef41e82dca551cde96167192918d728985"),
        (PartitionRecords, "94aa0da0dbec8d1bfcd1aacc64ac405c95c4918b55143e74dcf7f2dab785567f"),
        (Fetcher.fetched_records, "be4348896b9b66afe048de954e2be91c546f4e96c94cb120d5764ec77ce8f19e"),
    ],
    ids=["a fetch", "its records", "who takes them"],
)
def test_what_fetches_does_in_the_place_of_the_fetcher_is_still_what_the_fetcher_does(
    function: Callable[..., Any], sha256: str
) -> None:
    assert hashlib.sha256(inspect.getsource(function).encode()).hexdigest() == sha256


def test_a_member_without_an_instance_id_leaves_the_group_when_it_is_closed() -> None:
    assert "_maybe_leave_group" in inspect.getsource(GroupCoordinator.close)

"""What aiokafka's fetcher holds for us, taken as it was decoded.

aiokafka makes an object of eleven fields of each record and hands it through three steps of Python, which costs more
than to decode it. Here a fetch is taken whole, as far as there is room for it, and its records are those that were
decoded. The only place that knows the fetcher's internals (0.14.0, pinned; see tests/stream/test_faust_names.py).
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import Any
from weakref import proxy

import aiokafka
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.structs import TopicPartition


class Limit:
    """How many records of each partition `fetched_records` gives at once."""

    __slots__ = ("most",)

    def __init__(self) -> None:
        self.most = 1


class _Taking:
    """Stands for a fetch's `getall`."""

    __slots__ = ("_fetch", "_limit")

    def __init__(self, fetch: Any, limit: Limit) -> None:
        # A fetch that held itself would stay until somebody looks for garbage.
        self._fetch: Any = proxy(fetch)
        self._limit = limit

    def __call__(self, _: int | None) -> list[Any]:
        fetch, most = self._fetch, self._limit.most
        if not fetch.check_assignment(fetch._topic_partition) or not fetch.has_more():
            return []
        records = list(islice(fetch._partition_records._records_iterator, most))
        fetch._update_position()
        if len(records) < most:
            fetch._partition_records = None
        return records


class _Fetches(OrderedDict[TopicPartition, Any]):
    """A fetcher's fetches by partition, each changed as it comes."""

    def __init__(self, limit: Limit) -> None:
        super().__init__()
        self._limit = limit

    def __setitem__(self, tp: TopicPartition, fetch: Any) -> None:
        if type(fetch) is FetchResult:
            fetch._partition_records._consumer_record = _as_it_is
            fetch.getall = _Taking(fetch, self._limit)
        super().__setitem__(tp, fetch)


def take_whole(consumer: aiokafka.AIOKafkaConsumer, limit: Limit) -> None:
    """Let the fetches of a started consumer be taken so from now on."""
    fetcher = consumer._fetcher
    if type(fetcher._records) is not _Fetches:
        known, fetcher._records = fetcher._records, _Fetches(limit)
        fetcher._records.update(known)


def _as_it_is(_: TopicPartition, record: Any) -> Any:
    return record

"""The events that the benchmarks publish: families of a flow run and its task runs, in the order of time.

A flow run and each of its task runs pass three states; each state is a snapshot of about 700 bytes. The same seed and
times give the same events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..events.partition import partition_of

TASK_RUNS: Final = 20
STATES: Final = 3
_FAMILY: Final = (TASK_RUNS + 1) * STATES
_FLOWS: Final = 25
_FAILED: Final = 20
"""One task run in so many fails."""
_CHUNK: Final = 20_000

_TASK_RUN: Final = (
    b'{"entity":"task_run","action":"upsert","occurred":"%s","data":{"id":"%s","flow_run_id":"%s",'
    b'"name":"transform-%d","tags":["etl","team-data"],%s,"expected_start_time":"%s",%s,"child_flow_run_id":null,'
    b'"task_key":"pipelines.daily.transform-9f86d081","dynamic_key":"%d","task_version":null,"cache_key":null,'
    b'"run_count":1,"empirical_policy":{"max_retries":3,"retry_delay_seconds":30.0,"retries":3,"retry_delay":30}}}'
)
_FLOW_RUN: Final = (
    b'{"entity":"flow_run","action":"upsert","occurred":"%s","data":{"id":"%s","flow_id":"%s","flow_name":"daily-%d",'
    b'"deployment_id":null,"name":"daily-run-%d","tags":["production","team-data"],%s,"expected_start_time":"%s",%s,'
    b'"work_queue_name":"default","flow_version":"4c1d0b7e","parent_task_run_id":null,"idempotency_key":null,'
    b'"created_by":{"id":"5d0c6f3e-1c57-4d9c-9a34-1f1f6a0b8a11","type":"SCHEDULE"}}}'
)
_STATE: Final = b'"state_type":"%s","state_name":"%s","state_timestamp":"%s"'
_NOT_STARTED: Final = b'"start_time":null,"end_time":null,"total_run_time":0.0'
_STARTED: Final = b'"start_time":"%s","end_time":null,"total_run_time":0.0'
_ENDED: Final = b'"start_time":"%s","end_time":"%s","total_run_time":%.6f'


class LoadEvent(NamedTuple):
    """An event as it is published: its time in µs, its partition, key and value."""

    time_us: int
    partition: int
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Load:
    """`events` events between `begin_us` and `begin_us + span_us`, each family within `family_us` of its begin."""

    events: int
    begin_us: int
    span_us: int
    family_us: int
    partitions: int
    seed: int = 1

    @property
    def families(self) -> int:
        """How many flow runs there are; the last one's family may be cut off."""
        return -(-self.events // _FAMILY)

    @property
    def runs(self) -> int:
        """How many task runs there are, up to the cut."""
        return self.families * TASK_RUNS

    def __iter__(self) -> Iterator[LoadEvent]:
        """All events in the order of time."""
        random = Random(self.seed)
        flow_runs = _ids(random, self.families)
        partitions = [partition_of(flow_run, self.partitions) for flow_run in flow_runs]
        run_ids = _ids(random, self.runs)
        flows = _ids(random, _FLOWS)
        times = self._times()
        moments = times.reshape(-1)
        order = np.argsort(moments, kind="stable")[: self.events]
        for first in range(0, len(order), _CHUNK):
            chunk = order[first : first + _CHUNK]
            runs, states = np.divmod(chunk, STATES)
            families, numbers = np.divmod(runs, TASK_RUNS + 1)
            columns = (_texts(times[runs, state]) for state in range(STATES))
            rows = zip(
                *(moments[chunk].tolist(), families.tolist(), numbers.tolist(), states.tolist(), *columns),
                (times[runs, 2] - times[runs, 1]).tolist(),
                strict=True,
            )
            for moment, family, number, state, expected, start, end, ran_us in rows:
                flow_run, index = flow_runs[family], family * TASK_RUNS + number - 1
                failed = number > 0 and index % _FAILED == 0
                now = (expected, start, end)[state]
                given = (_state(state, failed, now), expected, _measures(state, start, end, ran_us))
                if number:
                    value = _TASK_RUN % (now, run_ids[index], flow_run, number, *given, number)
                else:
                    flow = family % _FLOWS
                    value = _FLOW_RUN % (now, flow_run, flows[flow], flow, family, *given)
                yield LoadEvent(moment, partitions[family], flow_run, value)

    def _times(self) -> npt.NDArray[np.int64]:
        """Times of the three states by run, µs: shape (families · 21, 3); the first run of a family is its flow run."""
        generator = np.random.default_rng(self.seed)
        count = self.families
        begins = self.begin_us + np.sort(generator.integers(0, max(1, self.span_us - self.family_us), count))
        offsets = np.sort(generator.random((count, TASK_RUNS + 1, STATES)), axis=2)
        offsets[:, 0] = (0.0, 0.01, 1.0)
        offsets[:, 1:] = 0.02 + 0.97 * offsets[:, 1:]
        times: npt.NDArray[np.int64] = begins[:, None, None] + (offsets * self.family_us).astype(np.int64)
        return times.reshape(-1, STATES)


def _state(state: int, failed: bool, at: bytes) -> bytes:
    if state < 2:
        return _STATE % ((b"PENDING", b"Pending", at) if state == 0 else (b"RUNNING", b"Running", at))
    return _STATE % ((b"FAILED", b"Failed", at) if failed else (b"COMPLETED", b"Completed", at))


def _measures(state: int, start: bytes, end: bytes, ran_us: int) -> bytes:
    if state == 0:
        return _NOT_STARTED
    return _STARTED % start if state == 1 else _ENDED % (start, end, ran_us / 1e6)


def _ids(random: Random, count: int) -> list[bytes]:
    digits = random.randbytes(16 * count).hex()
    texts = (digits[at : at + 32] for at in range(0, len(digits), 32))
    return [f"{t[:8]}-{t[8:12]}-4{t[13:16]}-8{t[17:20]}-{t[20:]}".encode() for t in texts]


def _texts(times_us: npt.NDArray[np.int64]) -> list[bytes]:
    texts: Any = np.datetime_as_string(times_us.astype("datetime64[us]"), timezone="UTC")
    return texts.astype("S").tolist()  # type: ignore[no-any-return]

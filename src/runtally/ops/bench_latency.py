"""`runtally bench latency`: from publishing an event to the answer that shows it, while other events stream in.

One run, the probe, gets a state of a new name again and again; measured is from the call that publishes it to the end
of the first answer that counts it. The range asked for is the busiest there is: the minutes of the stream itself.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Final
from uuid import UUID

import httpx
import numpy as np

from ..embedded.child import Child
from ..errors import SystemError_, UserError
from ..events.publish import Message, Publisher
from .bench_load import Load, LoadEvent
from .bench_servers import Bench, Say, bench, need

_FAMILY_US: Final = 5_000_000
_WARM_S: Final = 3.0
_EVERY_S: Final = (0.025, 0.075)
_POLL_S: Final = 0.01
_TICK_S: Final = 0.01
_STARTS_S: Final = 60.0
_LOST_S: Final = 30.0
_BIN_S: Final = 60
_PROBE: Final = str(UUID(int=1))


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from publishing to an answer."""

    p50_ms: float
    p99_ms: float


async def latency(seconds: float, rate: int, kafka: str | None, redis_url: str | None, say: Say) -> Latency:
    """Run worker and API, publish `rate` events a second for `seconds`, and send probes meanwhile.

    Raises `UserError` for sizes that say nothing, `SystemError_` when a process ends or a probe never shows.
    """
    if seconds <= 0 or rate < 1:
        raise UserError("a latency is measured over more than 0 seconds, at 1 event a second or more")
    async with bench(kafka, redis_url, say) as run:
        worker = run.child("worker", "runtally", "worker")
        api = run.child("api", "runtally", "api")
        try:
            worker.start()
            api.start()
            url = f"http://{run.settings.api_host}:{run.settings.api_port}"
            async with httpx.AsyncClient(base_url=url, timeout=_LOST_S, trust_env=False) as http:
                await _ready(http, worker, api)
                found = await _probe_under_load(run, http, seconds, rate)
        finally:
            worker.terminate()
            api.stop()
            worker.stop()
        say(f"{len(found)} probes; the slowest took {max(found):.1f} ms")
        return Latency(*(round(float(ms), 1) for ms in np.percentile(found, (50, 99))))


async def _ready(http: httpx.AsyncClient, worker: Child, api: Child) -> None:
    deadline = time.monotonic() + _STARTS_S
    said = "it does not answer"
    while time.monotonic() < deadline:
        need(worker)
        need(api)
        try:
            answer = await http.get("/api/ready")
            if answer.status_code == 200:
                return
            said = answer.text
        except httpx.TransportError as error:
            said = str(error) or type(error).__name__
        await asyncio.sleep(0.1)
    raise SystemError_(f"the API was not ready within {_STARTS_S:g} s: {said}")


async def _probe_under_load(run: Bench, http: httpx.AsyncClient, seconds: float, rate: int) -> list[float]:
    """Milliseconds of each probe."""
    span_us = round((_WARM_S + seconds) * 1e6)
    load = Load(
        max(1, span_us * rate // 1_000_000), time.time_ns() // 1000, span_us, _FAMILY_US, run.settings.partitions
    )
    async with Publisher(run.settings) as streaming, Publisher(run.settings) as probing:
        stream = asyncio.create_task(_stream(streaming, run.settings.runs_topic, iter(load)))
        try:
            await asyncio.sleep(_WARM_S)
            return await _probe(probing, run.settings.runs_topic, http, stream)
        finally:
            stream.cancel()


async def _stream(publisher: Publisher, topic: str, events: Iterator[LoadEvent]) -> None:
    """Publish each event when its time has come."""
    due: list[Message] = []
    for event in events:
        while event.time_us > time.time_ns() // 1000:
            if due:
                ready, due = due, []
                await publisher.publish(ready)
            await asyncio.sleep(_TICK_S)
        due.append(Message(topic, event.key, event.value))
    await publisher.publish(due)


async def _probe(publisher: Publisher, topic: str, http: httpx.AsyncClient, stream: asyncio.Task[None]) -> list[float]:
    """One probe after the other, at uneven distances so that they fall into no step with anything, while the stream
    flows. Raises what ended the stream."""
    random = Random(1)
    expected_s = time.time()
    question = {
        "history_start": _text(expected_s - _BIN_S),
        "history_end": _text(expected_s + _BIN_S),
        "history_interval_seconds": _BIN_S,
    }
    found: list[float] = []
    while not stream.done():
        name = f"Probe {len(found)}"
        message = Message(topic, _PROBE.encode(), _event(name, expected_s))
        began = time.perf_counter()
        await publisher.publish([message])
        while name not in await _states(http, question):
            if time.perf_counter() - began > _LOST_S:
                raise SystemError_(f"an event that Kafka took was not in an answer {_LOST_S:g} s later")
            await asyncio.sleep(_POLL_S)
        took_s = time.perf_counter() - began
        found.append(took_s * 1000)
        await asyncio.sleep(max(0.0, random.uniform(*_EVERY_S) - took_s))
    stream.result()
    return found


async def _states(http: httpx.AsyncClient, question: dict[str, object]) -> set[str]:
    answer = await http.post("/api/task_runs/history", json=question)
    if answer.status_code != 200:
        raise SystemError_(f"the API answered {answer.status_code}: {answer.text}")
    return {state["state_name"] for one in answer.json() for state in one["states"]}


def _event(name: str, expected_s: float) -> bytes:
    now = _text(time.time())
    data = {
        **{"id": _PROBE, "flow_run_id": None, "name": "probe", "state_type": "RUNNING", "state_name": name},
        **{"state_timestamp": now, "expected_start_time": _text(expected_s), "start_time": _text(expected_s)},
    }
    event = {"entity": "task_run", "action": "upsert", "occurred": now, "data": data}
    return json.dumps(event).encode()


def _text(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).isoformat(timespec="microseconds")

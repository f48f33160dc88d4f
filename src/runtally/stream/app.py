"""The worker: a Faust app whose agents hand fetched batches to one lane a partition."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import tempfile
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import uvloop
from faust.types import TP

from .. import logs
from ..errors import RuntallyError, ServerLostError, SystemError_
from ..events.partition import Partitioner
from ..events.publish import Publisher
from ..metrics import Metrics
from ..settings import Settings
from ..store.connect import connect
from ..store.keys import CATALOG
from ..store.ledger import GENERATION, read_live
from ..store.link import Link
from ..store.shard import shard
from .checking import RunningCheck
from .consumer import BatchApp, BatchConsumer, Fetched
from .health import serve
from .intake import Intake
from .lane import Lane, LaneState
from .load import Load
from .log import Log

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger(__name__)

_PULSE_S: Final = 1.0
_TOPIC_WAIT_S: Final = 1.0
_STOP_S: Final = 5.0
_FETCH_BYTES: Final = 3 << 20
"""Some 4,000 events and more of a partition at once, where there is room for it: in batches a third of that size,
folding and committing cost a third more for each event."""
_GC_THRESHOLDS: Final = (200_000, 20, 20)


def run_worker(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; the exit code. Blocks."""
    _log(settings)
    # A batch is thousands of tuples that live until its commit and form no cycle: looked through as often as Python
    # does by default, with all that is remembered, they cost a seventh of the worker's time.
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    try:
        uvloop.run(_Worker(settings).run())
    except RuntallyError as error:
        log.error("%s", error)
        return 1
    return 0


class _Worker:
    """The parts of one worker process, from connecting to leaving the group."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._log = Log(settings)
        self._metrics = Metrics("worker")
        self._load = Load(settings.worker_load)
        self._lanes: dict[TP, tuple[Lane, asyncio.Task[None]]] = {}
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._partitions = 0
        self._waiting_for = ""
        self._joined = False
        self._app: BatchApp | None = None
        self._generation = GENERATION

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(serve(self._settings, self._metrics, self.health))
            stack.push_async_callback(self._log.close)
            if not await self._or_stop(self._start_parts(stack)):
                return
            with tempfile.TemporaryDirectory(prefix="runtally-") as folder:
                app = self._app = self._make_app(folder)
                await app.start()
                pulse = asyncio.create_task(self._pulse_forever())
                watch = asyncio.create_task(self._watch_kafka())
                rebuild = asyncio.create_task(self._rebuild_forever())
                checking = asyncio.create_task(self._checking.run())
                crashed = asyncio.create_task(app.wait_until_stopped())
                stopping = asyncio.create_task(self._stop.wait())
                await asyncio.wait({pulse, watch, rebuild, crashed, stopping}, return_when=asyncio.FIRST_COMPLETED)
                checking.cancel()
                for duty in (pulse, watch, rebuild):
                    # A duty ends only by failing: not to be mistaken for an ordinary stop.
                    if not duty.cancel() and self._failure is None:
                        self._failure = duty.exception()
                await self._stop_lanes()
                await self._hint()
                async with asyncio.timeout(_STOP_S):
                    await app.stop()
                for task in (crashed, stopping):
                    task.cancel()
                await asyncio.gather(checking, return_exceptions=True)
                if self._failure is None and app.crash_reason is not None:
                    self._failure = app.crash_reason
        if self._failure is not None:
            raise self._failure

    def health(self) -> dict[str, Any]:
        """What `/health` shows: per lane its state, next offset and trouble. A worker that has joined the group and
        got no partition, because there are more workers than partitions, is well."""
        lanes = {
            lane.name: {"state": lane.state, "next": lane.next_offset, "trouble": lane.trouble}
            for lane, _ in self._lanes.values()
        }
        consumer = self._consumer()
        assigned = len(consumer.assignment()) if consumer is not None and self._joined else None
        live = sum(lane["state"] == "live" for lane in lanes.values())
        ok = not self._waiting_for and live == len(lanes) == assigned
        return {"ok": ok, "worker": self._settings.worker_name, "waiting": self._waiting_for, "shards": lanes}

    async def _start_parts(self, stack: contextlib.AsyncExitStack) -> None:
        self._waiting_for = "Redis"
        self._redis: Redis = await connect(self._settings)
        stack.push_async_callback(self._redis.aclose)
        self._link = Link(self._redis)
        stack.push_async_callback(self._link.close)
        self._waiting_for = "Kafka"
        self._partitions = await self._wait_for_topics()
        # Memory is shared out among as many as there are.
        self._settings = self._settings.model_copy(update={"partitions": self._partitions})
        self._partition_of = Partitioner(self._partitions)
        self._publisher = await self._wait_for_producer(stack)
        self._waiting_for = ""
        self._checking = RunningCheck(self._redis, self._settings, self._metrics, self._live_shards)

    def _live_shards(self) -> list[str]:
        return [lane.name for lane, _ in self._lanes.values() if lane.state == "live" and lane.name != CATALOG]

    async def _or_stop(self, work: Any) -> bool:
        """Await something that may take for ever, or a signal; False for the signal."""
        task = asyncio.ensure_future(work)
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if task.done():
            task.result()
            return True
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return False

    async def _wait_for_topics(self) -> int:
        said = ""
        while True:
            try:
                missing = [
                    topic
                    for topic in (
                        self._settings.runs_topic,
                        self._settings.catalog_topic,
                        self._settings.dead_letters_topic,
                    )
                    if not await self._log.partitions(topic)
                ]
                if not missing:
                    return await self._log.partitions(self._settings.runs_topic)
                problem = f"no topic {', '.join(missing)}: create them with `runtally topics create`"
            except ServerLostError as error:
                problem = str(error)
            if problem.split(":")[0] != said:
                log.warning("waiting: %s", problem)
                said = problem.split(":")[0]
            await asyncio.sleep(_TOPIC_WAIT_S)

    async def _wait_for_producer(self, stack: contextlib.AsyncExitStack) -> Publisher:
        while True:
            try:
                return await stack.enter_async_context(Publisher(self._settings))
            except ServerLostError:
                await asyncio.sleep(_TOPIC_WAIT_S)

    def _make_app(self, folder: str) -> BatchApp:
        settings = self._settings
        # An answer is there twice while it is taken apart.
        fetch_bytes = settings.worker_fetch // 2
        app = BatchApp(
            settings.group_id,
            broker=";".join(f"kafka://{server}" for server in settings.kafka.split(",")),
            datadir=folder,
            web_enabled=False,
            topic_disable_leader=True,
            broker_session_timeout=6.0,
            broker_heartbeat_interval=1.0,
            broker_rebalance_timeout=10.0,
            broker_max_poll_records=20_000,
            consumer_max_fetch_size=min(_FETCH_BYTES, fetch_bytes // (self._partitions + 1)),
            consumer_auto_offset_reset="earliest",
            stream_buffer_maxsize=max(64, 8 * self._partitions),
            stream_wait_empty=False,
        )
        app.load, app.fetch_bytes = self._load, fetch_bytes
        # A broker without transactions (the embedded one) never moves the last stable offset up to the newest record.
        app.isolation = "read_committed" if self._publisher.transactional else "read_uncommitted"
        for topic in (settings.runs_topic, settings.catalog_topic):
            channel = app.topic(topic, value_type=bytes, value_serializer="raw", acks=False)
            app.agent(channel, name=f"runtally.{topic}")(self._agent)
        app.on_partitions_revoked.connect(self._on_revoked, weak=False)
        app.on_partitions_assigned.connect(self._on_assigned, weak=False)
        return app

    async def _agent(self, stream: Any) -> None:
        async for fetched in stream:
            assert isinstance(fetched, Fetched)
            self._lane(fetched.tp, stream.app.consumer).put(fetched)

    def _lane(self, tp: TP, consumer: BatchConsumer) -> Lane:
        known = self._lanes.get(tp)
        if known is not None:
            return known[0]
        topic: Literal["runs", "catalog"] = "runs" if tp.topic == self._settings.runs_topic else "catalog"
        name = str(tp.partition) if topic == "runs" else CATALOG
        intake = Intake(
            self._settings,
            self._publisher,
            self._metrics,
            topic,
            tp.partition,
            self._partition_of if topic == "runs" else Partitioner(1),
        )
        own = shard(self._redis, self._settings, name, self._generation)
        lane = Lane(consumer, self._log, own, intake, self._metrics, self._load.turns, tp)
        task = asyncio.create_task(lane.run(), name=f"lane {name}")
        task.add_done_callback(self._lane_ended)
        self._lanes[tp] = (lane, task)
        return lane

    def _lane_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()
            self._stop.set()

    async def _on_revoked(self, app: BatchApp, revoked: set[TP], **_: Any) -> None:
        await self._drop([tp for tp in revoked if tp in self._lanes])

    async def _on_assigned(self, app: BatchApp, assigned: set[TP], **_: Any) -> None:
        self._joined = True

    async def _drop(self, gone: list[TP]) -> None:
        for tp in gone:
            lane, task = self._lanes.pop(tp)
            await lane.idle()
            task.cancel()
            await lane.close()
            self._checking.forget(lane.name)
            self._metrics.forget(lane.name)

    async def _stop_lanes(self) -> None:
        for lane, task in self._lanes.values():
            await lane.idle()
            task.cancel()

    async def _watch_kafka(self) -> None:
        """Say once that the broker is away and once that it is back; the clients in this process wait by themselves."""
        while True:
            await asyncio.sleep(_PULSE_S)
            try:
                await self._log.partitions(self._settings.runs_topic)
            except ServerLostError as error:
                if not self._waiting_for:
                    log.warning("%s; waiting", error)
                self._waiting_for = "Kafka"
                continue
            if self._waiting_for:
                log.info("Kafka is back")
            self._waiting_for = ""

    async def _pulse_forever(self) -> None:
        assigned: set[TP] | None = None
        while True:
            await self._follow_generation()
            consumer = self._consumer()
            now: set[TP] = set() if consumer is None else set(consumer.assignment())
            if self._joined and now != assigned and consumer is not None:
                mine = sorted(tp.partition for tp in now if tp.topic == self._settings.runs_topic)
                log.info("%s has partitions %s%s", self._settings.worker_name, mine, _and_catalog(now, self._settings))
                await self._drop([tp for tp in self._lanes if tp not in now])
                assigned = now
            for tp in now:
                if consumer is not None:
                    lane = self._lane(tp, consumer)
                    await self._pulse(lane)
                    self._show(lane, consumer.highwater(tp))
            self._metrics["load_bytes"].set(self._load.weight)
            await self._hint()
            await asyncio.sleep(_PULSE_S)

    async def _follow_generation(self) -> None:
        """Give all shards up for those of another generation of the data as soon as that is live."""
        try:
            live = await read_live(self._link, self._settings)
        except ServerLostError:
            return
        if live is not None and live.generation != self._generation:
            if self._lanes:
                log.info("generation %s of the data is live now; going on with that", live.generation)
            self._generation = live.generation
            await self._drop([*self._lanes])

    async def _rebuild_forever(self) -> None:
        while True:
            await asyncio.sleep(_PULSE_S)
            for lane, _ in list(self._lanes.values()):
                await lane.rebuild()

    def _show(self, lane: Lane, end: int | None) -> None:
        for state in get_args(LaneState):
            self._metrics["shard_state"].labels(lane.name, state).set(lane.state == state)
        for what, count in lane.numbered.items():
            self._metrics["numbered"].labels(lane.name, what).set(count)
        if end is not None and lane.next_offset is not None:
            self._metrics["behind_records"].labels(lane.name).set(max(0, end - lane.next_offset))

    async def _pulse(self, lane: Lane) -> None:
        try:
            await lane.pulse()
        except SystemError_ as error:
            self._failure = error
            self._stop.set()

    async def _hint(self) -> None:
        """Kafka's committed offsets, for lag tools."""
        consumer = self._consumer()
        offsets = {tp: lane.next_offset for tp, (lane, _) in self._lanes.items() if lane.next_offset}
        if consumer is not None and offsets:
            with contextlib.suppress(Exception):
                await consumer.commit_hint({tp: offset for tp, offset in offsets.items() if offset is not None})

    def _consumer(self) -> BatchConsumer | None:
        return None if self._app is None else self._app.consumer


def _and_catalog(assigned: set[TP], settings: Settings) -> str:
    return " and the catalog" if any(tp.topic == settings.catalog_topic for tp in assigned) else ""


def _log(settings: Settings) -> None:
    logs.configure(settings)
    # aiokafka says many times a second that a broker is away; we say it once.
    quiet = {"aiokafka": logging.CRITICAL, BatchConsumer.__module__: logging.ERROR}
    for noisy in ("faust", "mode", "aiokafka", "kafka", "aiohttp", BatchConsumer.__module__):
        if settings.log_level != "debug":
            logging.getLogger(noisy).setLevel(quiet.get(noisy, logging.ERROR))

"""The topics in Kafka: made as the design needs them, and looked at for what would lose data.

Data in Redis can be built anew only as far back as the log reaches, and versions want the *newest* event of a run
where compaction keeps the *last* one: so the runs topic is deleted by age, as late as the rollups, and the catalog is
kept for ever.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from ..errors import ServerLostError, SystemError_, UserError
from ..settings import NEVER_US, Settings

MAX_MESSAGE_BYTES: Final = 1 << 20
_DEAD_LETTERS_KEPT_US: Final = 30 * 86_400_000_000
_MOST_REPLICAS: Final = 3
_ALREADY_EXISTS: Final = 36
_INVALID_CONFIG: Final = 40
_OPTIONAL: Final = ("message.timestamp.type", "min.insync.replicas", "retention.bytes")
"""What a broker may refuse to let us set; everything else it must accept."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it should be made."""

    name: str
    partitions: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Found:
    """A topic after `create`: whether this call made it, how many partitions it has, and what to know about it."""

    name: str
    partitions: int
    created: bool
    warnings: tuple[str, ...] = field(default=())


def wanted(settings: Settings) -> tuple[Topic, ...]:
    """The three topics. The replication factor is not here: it depends on the cluster."""
    common = {
        "cleanup.policy": "delete",
        "retention.bytes": "-1",
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
    }
    return (
        Topic(settings.runs_topic, settings.partitions, {**common, "retention.ms": _ms(settings.rollup_retention)}),
        Topic(settings.catalog_topic, 1, {**common, "retention.ms": "-1"}),
        Topic(settings.dead_letters_topic, 1, {**common, "retention.ms": _ms(_DEAD_LETTERS_KEPT_US)}),
    )


async def create(
    settings: Settings, *, wait_s: float = 30, say: Callable[[str], None] = lambda _: None
) -> tuple[Found, ...]:
    """Make the topics that do not exist and look at those that do; what exists is never changed.

    Waits up to `wait_s` seconds for the broker (`say` is told once). Raises `ServerLostError` when it does not come,
    `UserError` for a topic that must not be used as it is, `SystemError_` when the broker refuses to make one.
    """
    async with _admin(settings, wait_s, say) as admin:
        # Asking some brokers about a topic makes it, with their own defaults: so the list comes first.
        existing = set(await admin.list_topics())
        new = [topic for topic in wanted(settings) if topic.name not in existing]
        brokers = len((await admin.describe_cluster())["brokers"])
        replicas = min(_MOST_REPLICAS, brokers)
        made = {topic.name for topic in new if await _make(admin, topic, replicas)}
        await _until_listed(admin, made)
        return await _look(admin, settings, made)


async def inspect(
    settings: Settings, *, wait_s: float = 30, say: Callable[[str], None] = lambda _: None
) -> tuple[Found, ...]:
    """The topics that exist, as `create` would find them; makes nothing. Raises like `create`."""
    async with _admin(settings, wait_s, say) as admin:
        return await _look(admin, settings, set())


@asynccontextmanager
async def _admin(settings: Settings, wait_s: float, say: Callable[[str], None]) -> AsyncIterator[AIOKafkaAdminClient]:
    deadline = time.monotonic() + wait_s
    told = False
    while True:
        admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
        try:
            await admin.start()
            break
        except (KafkaError, OSError) as error:
            await admin.close()
            if time.monotonic() > deadline:
                raise ServerLostError(
                    f"no Kafka at {settings.kafka} ({error}): start it, or set RUNTALLY_KAFKA to where it is"
                ) from None
            if not told:
                say(f"waiting for Kafka at {settings.kafka}")
                told = True
            await asyncio.sleep(0.5)
    try:
        yield admin
    except KafkaError as error:
        raise SystemError_(f"Kafka at {settings.kafka}: {error}") from error
    finally:
        await admin.close()


async def _make(admin: AIOKafkaAdminClient, topic: Topic, replicas: int) -> bool:
    config = {**topic.config, "min.insync.replicas": "2" if replicas > 2 else "1"}
    least = {name: value for name, value in config.items() if name not in _OPTIONAL}
    for attempt in (config, least):
        answer = await admin.create_topics([NewTopic(topic.name, topic.partitions, replicas, topic_configs=attempt)])
        code, message = answer.topic_errors[0][1:3]
        if code != _INVALID_CONFIG:
            break
    if code == _ALREADY_EXISTS:
        return False
    if code:
        raise SystemError_(f"Kafka refused to make the topic {topic.name}: {for_code(code).__name__}, {message}")
    return True


async def _until_listed(admin: AIOKafkaAdminClient, made: set[str]) -> None:
    # A broker tells of a new topic a moment later; whoever subscribes before that waits for minutes.
    for _ in range(100):
        if made <= set(await admin.list_topics()):
            return
        await asyncio.sleep(0.1)
    raise SystemError_(f"Kafka accepted the topics {', '.join(sorted(made))} and does not list them after 10 s")


async def _look(admin: AIOKafkaAdminClient, settings: Settings, made: set[str]) -> tuple[Found, ...]:
    existing = set(await admin.list_topics())
    topics = [topic for topic in wanted(settings) if topic.name in existing]
    if not topics:
        return ()
    described = await admin.describe_topics([topic.name for topic in topics])
    counts = {entry["topic"]: len(entry["partitions"]) for entry in described}
    configs = await _configs(admin, topics)
    found = []
    for topic in topics:
        # 0: the broker that was asked has not heard of a topic that was made a moment ago.
        count, config = counts[topic.name] or topic.partitions, configs.get(topic.name, {})
        _refuse(settings, topic, count, config)
        warnings = () if topic.name in made else tuple(_warnings(settings, topic, count, config))
        found.append(Found(topic.name, count, topic.name in made, warnings))
    return tuple(found)


async def _configs(admin: AIOKafkaAdminClient, topics: list[Topic]) -> dict[str, dict[str, str]]:
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in topics])
    configs: dict[str, dict[str, str]] = {}
    for answer in answers:
        for code, _, _, name, entries in (tuple(resource) for resource in answer.resources):
            if code == 0:
                configs[name] = {entry[0]: entry[1] for entry in (tuple(raw) for raw in entries)}
    return configs


def _refuse(settings: Settings, topic: Topic, count: int, config: Mapping[str, str]) -> None:
    policy = config.get("cleanup.policy", "delete")
    if "compact" in policy and topic.name != settings.dead_letters_topic:
        raise UserError(
            f"the topic {topic.name} has cleanup.policy={policy}: compaction keeps the event that came last, not the "
            "newest one, and drops those of other entities with the same key. Set cleanup.policy=delete, or choose "
            "another RUNTALLY_TOPIC_PREFIX"
        )
    if topic.name == settings.catalog_topic and count != 1:
        raise UserError(
            f"the topic {topic.name} has {count} partitions and must have one: delete it and run "
            "`runtally topics create`, or choose another RUNTALLY_TOPIC_PREFIX"
        )


def _warnings(settings: Settings, topic: Topic, count: int, config: Mapping[str, str]) -> list[str]:
    warnings = []
    if topic.name == settings.runs_topic and count != topic.partitions:
        warnings.append(f"has {count} partitions, RUNTALLY_PARTITIONS says {topic.partitions}: {count} it stays")
    kept = _number(config.get("retention.ms"))
    want = int(topic.config["retention.ms"])
    if topic.name != settings.dead_letters_topic and kept is not None and _shorter(kept, want):
        meaning = (
            "flows and deployments older than that cannot be built anew from the log"
            if topic.name == settings.catalog_topic
            else "after a loss of Redis' data only the runs of that time come back, though rollups are kept for "
            f"{_words(want)}; a worker that is away longer than that stops and asks for a decision"
        )
        warnings.append(f"keeps its events for {_words(kept)} (retention.ms={kept}): {meaning}")
    size = _number(config.get("retention.bytes"))
    if topic.name != settings.dead_letters_topic and size is not None and size >= 0:
        warnings.append(f"is cut at retention.bytes={size}: events may go before their time")
    if config.get("message.timestamp.type", "LogAppendTime") != "LogAppendTime":
        warnings.append(
            "has producers' timestamps (message.timestamp.type=CreateTime): an event whose producer's clock is more "
            "than an hour ahead counts as bad"
        )
    largest = _number(config.get("max.message.bytes"))
    if largest is not None and largest < MAX_MESSAGE_BYTES:
        warnings.append(f"refuses events over max.message.bytes={largest}, the contract allows {MAX_MESSAGE_BYTES}")
    return warnings


def _number(text: str | None) -> int | None:
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def _shorter(kept_ms: int, want_ms: int) -> bool:
    return kept_ms >= 0 and (want_ms < 0 or kept_ms < want_ms)


def _ms(duration_us: int) -> str:
    return "-1" if duration_us >= NEVER_US else str(duration_us // 1000)


def _words(duration_ms: int) -> str:
    if duration_ms < 0:
        return "ever"
    seconds = duration_ms / 1000
    for name, width in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * width:
            return f"{seconds / width:g} {name}"
    return f"{seconds:g} seconds"

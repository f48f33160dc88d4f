"""`topics create` makes what the design needs, changes nothing that exists, and says what would lose data."""

from collections.abc import Mapping

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from runtally.embedded import ports
from runtally.errors import ServerLostError, UserError
from runtally.ops import topics
from runtally.settings import Settings
from tests.conftest import SettingsFactory

_DAY_US = 86_400_000_000


@pytest.fixture
def own(settings: SettingsFactory) -> SettingsFactory:
    return lambda broker, **given: settings(kafka=broker, redis_url="redis://127.0.0.1:1/0", **given)


async def _config(settings: Settings, topic: str) -> dict[str, str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    await admin.start()
    try:
        answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        return {entry[0]: entry[1] for entry in answers[0].resources[0][4]}
    finally:
        await admin.close()


async def _make(settings: Settings, topic: str, partitions: int, config: Mapping[str, str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=config)])
    finally:
        await admin.close()


async def test_the_topics_are_made_as_the_design_needs_them(own: SettingsFactory, broker: str) -> None:
    settings = own(broker, partitions=3, raw_retention=_DAY_US, rollup_retention=2 * _DAY_US)
    found = await topics.create(settings)
    assert [(topic.name, topic.partitions, topic.created) for topic in found] == [
        (settings.runs_topic, 3, True),
        (settings.catalog_topic, 1, True),
        (settings.dead_letters_topic, 1, True),
    ]
    runs, catalog = await _config(settings, settings.runs_topic), await _config(settings, settings.catalog_topic)
    for config in (runs, catalog):
        assert config["cleanup.policy"] == "delete"
        assert config["message.timestamp.type"] == "LogAppendTime"
        assert config["max.message.bytes"] == "1048576"
        assert config["retention.bytes"] == "-1"
    assert runs["retention.ms"] == str(2 * 86_400_000)
    assert catalog["retention.ms"] == "-1"


async def test_a_second_call_changes_nothing_and_warns_of_nothing(own: SettingsFactory, broker: str) -> None:
    settings = own(broker, partitions=2)
    await topics.create(settings)
    found = await topics.create(settings)
    assert [(topic.partitions, topic.created, topic.warnings) for topic in found] == [
        (2, False, ()),
        (1, False, ()),
        (1, False, ()),
    ]


async def test_rollups_that_are_kept_for_ever_want_a_log_for_ever(own: SettingsFactory, broker: str) -> None:
    settings = own(broker, rollup_retention="never")
    await topics.create(settings)
    assert (await _config(settings, settings.runs_topic))["retention.ms"] == "-1"


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
async def test_a_compacted_runs_topic_is_refused(own: SettingsFactory, broker: str, policy: str) -> None:
    settings = own(broker)
    await _make(settings, settings.runs_topic, 2, {"cleanup.policy": policy})
    with pytest.raises(UserError, match=rf"{settings.runs_topic} has cleanup.policy={policy}.*Set cleanup.policy=dele"):
        await topics.create(settings)


async def test_a_catalog_of_several_partitions_is_refused(own: SettingsFactory, broker: str) -> None:
    settings = own(broker)
    await _make(settings, settings.catalog_topic, 2, {"retention.ms": "-1"})
    with pytest.raises(UserError, match="has 2 partitions and must have one"):
        await topics.create(settings)


async def test_a_shorter_retention_is_warned_about_with_what_it_means(own: SettingsFactory, broker: str) -> None:
    settings = own(broker, partitions=4)
    short = {"retention.ms": str(7 * 86_400_000), "message.timestamp.type": "CreateTime", "max.message.bytes": "1000"}
    await _make(settings, settings.runs_topic, 2, short)
    runs, catalog, _ = await topics.create(settings)
    assert (runs.created, runs.partitions, catalog.created) == (False, 2, True)
    words = "\n".join(runs.warnings)
    assert "keeps its events for 7 days (retention.ms=604800000)" in words
    assert "rollups are kept for 400 days" in words
    assert "2 it stays" in words
    assert "CreateTime" in words
    assert "max.message.bytes=1000" in words
    assert (await _config(settings, settings.runs_topic))["retention.ms"] == str(7 * 86_400_000)


async def test_inspect_makes_nothing(own: SettingsFactory, broker: str) -> None:
    settings = own(broker)
    assert await topics.inspect(settings) == ()
    assert await topics.inspect(settings) == ()


async def test_a_broker_that_is_away_is_waited_for_and_then_named(own: SettingsFactory) -> None:
    address = f"127.0.0.1:{ports.any_free()}"
    said: list[str] = []
    with pytest.raises(ServerLostError, match=f"no Kafka at {address}.*RUNTALLY_KAFKA"):
        await topics.create(own(address), wait_s=0.7, say=said.append)
    assert said == [f"waiting for Kafka at {address}"]

"""`runtally doctor` finds each trouble, says what to do, and finds none where there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis

from runtally.embedded import ports
from runtally.embedded.child import Child
from runtally.ops import doctor, topics
from runtally.ops.check import Facts, Line
from runtally.ops.checks import CHECKS
from runtally.ops.log_look import LogLook
from runtally.settings import Settings
from runtally.store.fitness import Server
from runtally.store.keys import FORMAT, Keys, live_key
from runtally.store.ledger import GENERATION, Ledger, Live, current_cells
from runtally.store.stand import Census, Stand
from tests.servers.forks import run
from tests.stream import truth

Start = Callable[..., Child]
Make = Callable[..., Settings]

LEDGER = Ledger(90, 1, "e", 0, 0, 0, 90, 2, None, current_cells())
SERVER = Server("Valkey 9.1.0", {"maxmemory-policy": "noeviction", "appendonly": "yes"}, "", 10, 100, 1000, 500)
STAND = Stand(SERVER, Live(GENERATION, 2, FORMAT), {"0": LEDGER, "1": LEDGER, "c": LEDGER}, Census(1000, 10, 5, 3, 4))
KAFKA = LogLook(
    tuple(
        topics.Found(name, count, created=False)
        for name, count in (("a.runs", 2), ("a.catalog", 1), ("a.dead-letters", 1))
    ),
    "",
    {"0": 100, "1": 100, "c": 90},
    {},
    2,
    500,
    0,
    1_000,
    {},
)


def of_server(**changed: Any) -> dict[str, Any]:
    return {"redis": replace(STAND, server=replace(SERVER, **changed))}


def of_stand(**changed: Any) -> dict[str, Any]:
    return {"redis": replace(STAND, **changed)}


def of_log(**changed: Any) -> dict[str, Any]:
    return {"log": replace(KAFKA, **changed)}


TROUBLES: tuple[tuple[str, str, dict[str, Any], str], ...] = (
    ("broker", "bad", {"log": None, "log_trouble": "no Kafka at x"}, "no Kafka"),
    ("topics", "bad", of_log(topics=KAFKA.topics[:1]), "no topic a.catalog, a.dead-letters"),
    ("topics", "bad", of_log(refused="compacted"), "compacted"),
    (
        "topics",
        "warn",
        of_log(topics=(replace(KAFKA.topics[0], warnings=("is short",)), *KAFKA.topics[1:])),
        "is short",
    ),
    ("partitions", "bad", of_stand(live=Live(GENERATION, 3, FORMAT)), "3 partitions, the topic has 2"),
    ("redis", "bad", {"redis": None, "redis_trouble": "no Redis at x"}, "no Redis"),
    ("redis configuration", "bad", of_server(config={"maxmemory-policy": "allkeys-lru"}), "allkeys-lru"),
    ("redis configuration", "warn", of_server(config={"appendonly": "no", "save": ""}), "nothing on disk"),
    (
        "redis configuration",
        "warn",
        of_server(config={"appendonly": "yes", "hash-max-listpack-value": "64"}),
        "hash-max-listpack-value 64: runs will take about twice the memory",
    ),
    ("redis configuration", "warn", of_server(config={}, hidden="unknown command"), "unknown command"),
    ("redis memory", "warn", of_server(used_bytes=85), "85%"),
    ("redis memory", "bad", of_server(used_bytes=96), "96%"),
    ("redis memory", "warn", of_server(limit_bytes=0), "does not say"),
    ("clock", "warn", of_server(ahead_us=-5_000_000), "5.000 s behind"),
    ("clock", "bad", of_server(ahead_us=100_000_000), "100.000 s ahead"),
    ("clock", "warn", of_log(newest_ms=12_000), "11.000 s ahead"),
    ("format", "bad", of_stand(live=Live(GENERATION, 2, FORMAT + 1), ledgers={}), f"format {FORMAT + 1}"),
    ("format", "warn", of_stand(live=None, ledgers={}), "nothing under the prefix"),
    ("ledgers", "bad", of_stand(ledgers={**STAND.ledgers, "1": None}), "no worker has been assigned yet: shard 1"),
    (
        "ledgers",
        "bad",
        of_stand(ledgers={"1": replace(LEDGER, cells="of something")}),
        "its cells are of (of something)",
    ),
    ("ledgers", "bad", of_stand(ledgers={"1": replace(LEDGER, trouble="too many bad")}), "shard 1 stops: too many bad"),
    ("ledgers", "bad", of_log(troubles={"1": "shard 1: the topic was recreated"}), "shard 1 stops: the topic was"),
    ("ledgers", "warn", of_stand(ledgers={"1": replace(LEDGER, caught_up_at=95)}), "shard 1 catches up: 90 of 95"),
    ("workers", "bad", of_log(members=0), "no worker is in the group"),
    ("lag", "warn", of_log(ends={"0": 90, "1": 20_090, "c": 90}), "20,000 of them of shard 1"),
    ("lag", "bad", of_log(ends={"0": 9_000_090, "1": 90, "c": 90}), "9,000,000 events are not applied"),
    ("forwarded", "warn", of_log(forwarded=50), "50 of the newest 500"),
    ("dead letters", "warn", of_log(dead={"not JSON": 3}), "3 of the newest dead letters: not JSON"),
    ("flow runs", "warn", of_stand(census=replace(STAND.census, untold=500)), "of 500 the flow run has not been told"),
    ("dictionaries", "warn", of_stand(census=replace(STAND.census, cohorts=19_000)), "19,000 cohorts"),
)


def said_of(tmp_path: Any, changed: dict[str, Any]) -> list[Line]:
    settings = Settings(topic_prefix="a", data_dir=tmp_path)
    facts = Facts(settings, 1_000_000, **{"redis": STAND, "log": KAFKA, **changed})
    return [line for check in CHECKS if check.can_look(facts) for line in check.look(facts)]


def test_where_nothing_is_wrong_every_line_is_ok(tmp_path: Any) -> None:
    lines = said_of(tmp_path, {})
    assert {line.level for line in lines} == {"ok"}
    assert {line.check for line in lines} == {check.name for check in CHECKS} - {"data dir"}
    assert doctor.exit_code(lines) == 0


@pytest.mark.parametrize(
    ("check", "level", "changed", "words"), TROUBLES, ids=lambda part: part if isinstance(part, str) else ""
)
def test_each_trouble_is_found_by_its_check(
    tmp_path: Any, check: str, level: str, changed: dict[str, Any], words: str
) -> None:
    lines = said_of(tmp_path, changed)
    (said,) = [line for line in lines if words in line.says]
    assert (said.check, said.level) == (check, level)
    assert said.do
    assert {line.check for line in lines if line.level != "ok"} == {check}
    assert doctor.exit_code(lines) == (level == "bad")


def test_every_check_has_a_trouble_here() -> None:
    assert {check for check, *_ in TROUBLES} == {check.name for check in CHECKS} - {"data dir"}


def test_a_data_dir_of_another_format_is_named(tmp_path: Any) -> None:
    (tmp_path / "format").write_text("1\n")
    (said,) = [line for line in said_of(tmp_path, {}) if line.level != "ok"]
    assert (said.check, said.level) == ("data dir", "warn")


async def test_living_servers_are_looked_at(broker: str, settings: Make, processes: Start) -> None:
    own = settings(kafka=broker, partitions=2, metrics_port=ports.any_free())
    told = {line.check: line for line in await doctor.examine(own)}
    assert told["topics"].level == "bad"
    assert told["format"].level == "warn"
    await truth.create_topics(own)
    events = truth.estate(40)
    misplaced = [(b"%d" % number, value) for number, (_, value) in enumerate(truth.estate(20, seed=1))]
    await truth.publish(own, [*events, *misplaced, (b"x", b"no JSON")])
    processes("worker", own)
    await truth.until_counted(own, truth.completed(60))
    lines = await doctor.examine(own)
    found = {(line.check, line.level): line.says for line in lines}
    assert "bad" not in {line.level for line in lines}, lines
    assert "not JSON" in found["dead letters", "warn"]
    assert "had been sent to the wrong partition" in found["forwarded", "warn"]
    assert "of 60 task runs" in found["flow runs", "warn"]
    assert "of 60 the flow run has not been told" in found["flow runs", "warn"]
    assert found["partitions", "ok"]
    assert found["clock", "ok"]
    assert found["lag", "ok"]
    assert found["workers", "ok"].startswith("1 worker is in")
    assert found["ledgers", "ok"]
    for name in ("redis", "broker", "redis memory", "format"):
        assert found[name, "ok"]

    with Redis.from_url(own.redis_url) as redis:
        key = Keys(own.redis_prefix, GENERATION, "0").ledger
        redis.hset(key, "mark", redis.hget(key, "mark").rpartition(b",")[0] + b",1")
        (said,) = [line for line in await doctor.examine(own) if line.level == "bad"]
        assert said.check == "ledgers"
        assert "shard 0 stops: the record at offset" in said.says
        redis.hset(live_key(own.redis_prefix), "format", 99)
        (said,) = [line for line in await doctor.examine(own) if line.level == "bad"]
        assert "format 99" in said.says


def test_the_command_says_by_its_exit_code_whether_something_is_bad(settings: Make) -> None:
    own = settings(kafka=f"127.0.0.1:{ports.any_free()}")
    variables = {
        "RUNTALLY_KAFKA": own.kafka,
        "RUNTALLY_REDIS_URL": own.redis_url,
        "RUNTALLY_DATA_DIR": str(own.data_dir),
    }
    told = run("doctor", **variables)
    assert told.returncode == 1
    assert told.stderr == ""
    assert told.stdout.startswith("bad   broker")
    assert "→ bring Kafka up" in told.stdout
    found = json.loads(run("doctor", "--json", **variables).stdout)
    assert found["worst"] == "bad"
    assert found["lines"][0]["check"] == "broker"
    assert found["lines"][0]["level"] == "bad"
    assert run("doctor", "--kafka", "nonsense", **variables).returncode == 2

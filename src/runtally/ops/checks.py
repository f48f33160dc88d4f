"""The checks of `runtally doctor`: each a small function of what was found, a row of `CHECKS`."""

from __future__ import annotations

from typing import Final

from ..embedded.datadir import check_format
from ..errors import UnfitServerError, UserError
from ..store.fitness import RULES
from ..store.ledger import outdated
from ..store.stand import DAYS
from .check import Check, Facts, Level, Said

_CATALOG: Final = "c"
_CLOCK_WARN_US: Final = 1_000_000
_CLOCK_BAD_US: Final = 60_000_000
_LAG_WARN: Final = 10_000
_WELL: Final = {
    "eviction": "it evicts nothing",
    "persistence": "it keeps its data on disk",
    "listpacks": "it stores runs compactly",
}
"""What there is to say where a rule of `RULES` finds nothing."""
_FULL_WARN: Final = 0.8
_FULL_BAD: Final = 0.95
_FORWARDED_WARN: Final = 0.01
_UNTOLD_WARN: Final = 0.01


def _broker(facts: Facts) -> Said:
    if facts.log is None:
        yield "bad", facts.log_trouble, "bring Kafka up, or set RUNTALLY_KAFKA to where it is"
    else:
        yield "ok", f"Kafka answers at {facts.settings.kafka}", ""


def _topics(facts: Facts) -> Said:
    if facts.topics.refused:
        yield "bad", facts.topics.refused, "see the message"
        return
    names = {facts.settings.runs_topic, facts.settings.catalog_topic, facts.settings.dead_letters_topic}
    missing = sorted(names - {topic.name for topic in facts.topics.topics})
    if missing:
        yield "bad", f"no topic {', '.join(missing)}", "create them with `runtally topics create`"
    for topic in facts.topics.topics:
        for warning in topic.warnings:
            yield "warn", f"{topic.name} {warning}", "change the topic, or live with it"
        if not topic.warnings:
            yield "ok", f"{topic.name} has {topic.partitions} partition{'s' * (topic.partitions > 1)}", ""


def _partitions(facts: Facts) -> Said:
    live = facts.stand.live
    counts = {topic.name: topic.partitions for topic in facts.topics.topics}
    found = counts.get(facts.settings.runs_topic)
    if live is None or found is None:
        return
    if live.partitions == found:
        yield "ok", f"the data are of {found} partitions, as the topic", ""
    else:
        yield (
            "bad",
            f"the data in Redis are of {live.partitions} partitions, the topic has {found}: runs would count twice",
            "start workers and API with another RUNTALLY_REDIS_PREFIX, which the log fills anew",
        )


def _redis(facts: Facts) -> Said:
    if facts.redis is None:
        yield "bad", facts.redis_trouble, "bring Redis up, or set RUNTALLY_REDIS_URL to where it is"
    else:
        yield "ok", f"{facts.server.name} answers", ""


def _configuration(facts: Facts) -> Said:
    if facts.server.hidden:
        yield (
            "warn",
            f"Redis does not show its configuration ({facts.server.hidden})",
            "see to it yourself that maxmemory-policy is noeviction and that it persists",
        )
        return
    for name, rule in RULES.items():
        problem = rule(facts.server.config)
        if problem is None:
            yield "ok", _WELL[name], ""
        else:
            says, _, do = problem.text.rpartition(": " if problem.fatal else "; ")
            yield "bad" if problem.fatal else "warn", says, do


def _memory(facts: Facts) -> Said:
    used, limit = facts.server.used_bytes, facts.server.limit_bytes
    if not limit:
        yield "warn", f"Redis uses {_size(used)} and does not say of how much", "watch its memory yourself"
        return
    share = used / limit
    says = f"Redis uses {_size(used)} of {_size(limit)} ({share:.0%})"
    if share < _FULL_WARN:
        yield "ok", says, ""
    else:
        do = "raise maxmemory or give it more memory: when it is full, events wait in Kafka"
        yield "bad" if share >= _FULL_BAD else "warn", says, do


def _format(facts: Facts) -> Said:
    live = facts.stand.live
    if live is None:
        yield (
            "warn",
            f"nothing under the prefix {facts.settings.redis_prefix!r} yet",
            "start a worker, or set RUNTALLY_REDIS_PREFIX to where the data are",
        )
        return
    try:
        live.check_format(facts.settings)
    except UnfitServerError as error:
        says, _, do = str(error).rpartition(": ")
        yield "bad", says, do
    else:
        beside = f"; generation {live.filling} is being filled beside them" if live.filling else ""
        yield "ok", f"the data are of format {live.format}, generation {live.generation}{beside}", ""


def _data_dir(facts: Facts) -> Said:
    try:
        check_format(facts.settings.data_dir)
    except (UserError, OSError) as error:
        yield "warn", str(error), "only `runtally up` uses it"


def _ledgers(facts: Facts) -> Said:
    none = [name for name, ledger in facts.stand.ledgers.items() if ledger is None]
    if none:
        yield (
            "bad",
            f"no worker has been assigned yet: {_shards(none)}; the API answers nothing meanwhile",
            "start workers, or look at the log of those that run",
        )
    well = True
    for name, ledger in facts.stand.ledgers.items():
        if ledger is None:
            continue
        trouble = ledger.trouble or ("" if name == _CATALOG else outdated(ledger))
        if facts.log:
            trouble = trouble or facts.log.troubles.get(name, "")
        if trouble:
            well = False
            says = f"shard {name} stops: {trouble.removeprefix(f'shard {name}: ')}"
            yield "bad", says, "do what it says; more in operations.md, A shard stops"
        elif not ledger.caught_up:
            well = False
            says = f"shard {name} catches up: {ledger.next:,} of {ledger.caught_up_at:,}"
            yield "warn", says, "wait; start workers if there are none"
    if well and not none:
        yield "ok", "every shard has a ledger that fits its log", ""


def _workers(facts: Facts) -> Said:
    members = facts.topics.members
    if members is None:
        yield "ok", "this broker does not tell which workers there are", ""
    elif members:
        yield "ok", f"{members} worker{'s are' if members > 1 else ' is'} in the group {facts.settings.group_id}", ""
    else:
        yield "bad", f"no worker is in the group {facts.settings.group_id}", "start some: `runtally worker`"


def _lag(facts: Facts) -> Said:
    behind = {
        name: facts.topics.ends[name] - ledger.next
        for name, ledger in facts.stand.ledgers.items()
        if ledger is not None and name in facts.topics.ends
    }
    if not behind:
        return
    if min(behind.values()) < 0:
        yield "ok", "this broker tells ends that are too low: how far answers are behind is not known", ""
        return
    total = sum(behind.values())
    most = max(behind, key=lambda name: behind[name])
    says = f"{total:,} events are not applied yet, {behind[most]:,} of them of shard {most}"
    if total <= _LAG_WARN:
        yield "ok", says, ""
    else:
        over = facts.settings.max_lag and total > facts.settings.max_lag
        yield "bad" if over else "warn", says, "start workers, up to one a partition; see their log and metrics"


def _forwarded(facts: Facts) -> Said:
    sampled, forwarded = facts.topics.sampled, facts.topics.forwarded
    if not sampled:
        return
    says = f"{forwarded:,} of the newest {sampled:,} records had been sent to the wrong partition"
    if forwarded <= _FORWARDED_WARN * sampled:
        yield "ok", says, ""
    else:
        yield "warn", says, "set partitioner=murmur2_random in producers that use librdkafka"


def _dead_letters(facts: Facts) -> Said:
    for reason, count in sorted(facts.topics.dead.items(), key=lambda item: -item[1]):
        yield (
            "warn",
            f"{count:,} of the newest dead letters: {reason}",
            "mend the producer; events.md says what each reason means",
        )
    if not facts.topics.dead and facts.settings.dead_letters_topic in {one.name for one in facts.topics.topics}:
        yield "ok", "no dead letters", ""


def _flow_runs(facts: Facts) -> Said:
    census = facts.stand.census
    says = (
        f"of {census.runs:,} task runs of the newest {DAYS} days of each shard {census.alone:,} have no flow run, and "
        f"of {census.untold:,} the flow run has not been told"
    )
    if census.untold <= _UNTOLD_WARN * census.runs:
        yield "ok", says, ""
    else:
        yield (
            "warn",
            says,
            "publish events of those flow runs: until then filters on flows, deployments and tags do not find the runs",
        )


def _dictionaries(facts: Facts) -> Said:
    rows = (
        ("states", facts.stand.census.states, facts.settings.max_states, "RUNTALLY_MAX_STATES"),
        ("cohorts", facts.stand.census.cohorts, facts.settings.max_cohorts, "RUNTALLY_MAX_COHORTS"),
    )
    for name, found, most, setting in rows:
        says = f"a shard has up to {found:,} {name} of the {most:,} that it counts apart"
        if found < _FULL_WARN * most:
            yield "ok", says, ""
        else:
            yield "warn", says, f"raise {setting}, or use fewer names: what is past it is answered from raw runs"


def _clock(facts: Facts) -> Said:
    ahead = facts.server.ahead_us
    level: Level = "ok" if abs(ahead) <= _CLOCK_WARN_US else "warn" if abs(ahead) <= _CLOCK_BAD_US else "bad"
    do = "" if level == "ok" else "run NTP on both machines: lateness and run times of running tasks are off by that"
    yield level, f"the clock of Redis is {_seconds(ahead)} this machine's", do
    if facts.log is None or not facts.log.newest_ms:
        return
    # Of a broker only stamps of the past are seen: that its clock is behind, or how far, cannot be told.
    ahead = facts.log.newest_ms * 1000 - facts.now_us
    if ahead > _CLOCK_WARN_US:
        level = "warn" if ahead <= _CLOCK_BAD_US else "bad"
        yield level, f"the broker's clock is {_seconds(ahead)} this machine's, at least", "run NTP on both machines"
    else:
        yield "ok", "the broker's clock is not seen to be ahead of this machine's", ""


CHECKS: Final = (
    Check("broker", (), _broker),
    Check("topics", ("log",), _topics),
    Check("redis", (), _redis),
    Check("redis configuration", ("redis",), _configuration),
    Check("redis memory", ("redis",), _memory),
    Check("clock", ("redis",), _clock),
    Check("format", ("redis",), _format),
    Check("data dir", (), _data_dir),
    Check("partitions", ("data", "log"), _partitions),
    Check("ledgers", ("data",), _ledgers),
    Check("workers", ("log",), _workers),
    Check("lag", ("data", "log"), _lag),
    Check("forwarded", ("log",), _forwarded),
    Check("dead letters", ("log",), _dead_letters),
    Check("flow runs", ("data",), _flow_runs),
    Check("dictionaries", ("data",), _dictionaries),
)


def _shards(names: list[str]) -> str:
    return f"shard{'s' * (len(names) > 1)} {', '.join(names)}"


def _seconds(ahead_us: int) -> str:
    return f"{abs(ahead_us) / 1e6:.3f} s {'ahead of' if ahead_us >= 0 else 'behind'}"


def _size(count: int) -> str:
    for unit, width in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if count >= width:
            return f"{count / width:.1f} {unit}"
    return f"{count / 1024:.0f} KiB"

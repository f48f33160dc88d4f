"""Rules of the way from Kafka to a batch: what is taken, and how much at once."""

from __future__ import annotations

from .rule import Rule

FETCHES = "tests/stream/test_fetches.py"
LOAD = "tests/stream/test_load.py"
INTAKE = "tests/stream/test_intake.py"
SNAPSHOTS = "tests/events/test_snapshots.py"
LANE = "tests/stream/test_lane.py"

RULES = (
    # -- fetches
    Rule("stream/fetches.py", "proxy(fetch)", "fetch", "a fetch that was taken is gone at once", FETCHES),
    Rule(
        "stream/fetches.py",
        "_records_iterator, most)",
        "_records_iterator, None)",
        "no more of a partition is taken than there is room for",
        FETCHES,
    ),
    Rule(
        "stream/fetches.py",
        "        fetch._update_position()\n",
        "",
        "the position moves with what was taken",
        FETCHES,
    ),
    Rule(
        "stream/fetches.py",
        "not fetch.check_assignment(fetch._topic_partition) or ",
        "",
        "of a partition that is paused or given away nothing is taken",
        FETCHES,
    ),
    # -- from records to a batch
    Rule(
        "stream/intake.py",
        "if partition_of.all_belong_to(here, changes):",
        "if True:",
        "what belongs elsewhere is forwarded, also of a batch with nothing bad",
        INTAKE,
    ),
    Rule(
        "events/partition.py",
        "return all(self._of(owner) == partition for owner in owners)",
        "return any(self._of(owner) == partition for owner in owners)",
        "all belong to a partition only if each does",
        "tests/events/test_partition.py",
    ),
    Rule(
        "events/times.py",
        "    good &= day <= _MONTHS[at + 1] - _MONTHS[at]\n",
        "",
        "a day that its month does not have is no time",
        SNAPSHOTS,
    ),
    Rule("events/times.py", " & (day > 0)", "", "nor is the day before its first", SNAPSHOTS),
    Rule("events/times.py", "good &= (at >= 0) & ", "good &= ", "no time lies before 1970", SNAPSHOTS),
    Rule(
        "events/times.py",
        "if len({*lengths}) == 1:",
        "if lengths:",
        "texts of one length are told from those of several",
        "tests/events/test_times.py",
    ),
    # -- the load
    Rule(
        "stream/load.py",
        ", self.turns.batch // working",
        "",
        "no more is fetched at once than may be applied at once",
        LOAD,
    ),
    Rule(
        "stream/load.py",
        "self.weight + waiting[0][0] <= self._limit",
        "True",
        "batches that have their turn fit into the memory together",
        LOAD,
    ),
    Rule("stream/load.py", "not self.weight or self", "self", "one that is too heavy goes alone", LOAD),
    Rule("stream/load.py", "waiting[0][1].done() or ", "", "who gives up holds nobody up", LOAD),
    Rule(
        "stream/load.py",
        "if mine.done() and not mine.cancelled():",
        "if True:",
        "who had no turn gives none back",
        LOAD,
    ),
    Rule(
        "stream/lane.py",
        " or work > self._turns.batch",
        "",
        "no more fetches are joined than a batch may weigh",
        LANE,
    ),
    Rule(
        "stream/lane.py",
        "                        if self._is_wanted(fetched):",
        "                        if True:",
        "what came too late for its lane is not applied",
        LANE,
    ),
)

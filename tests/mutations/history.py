"""Rules that keep history right while it is put away, made anew, or lost and read again."""

from __future__ import annotations

from .rule import Rule

FENCE = "tests/store/test_fence.py"
RETENTION = "tests/store/test_retention.py"
REBUILD = "tests/store/test_rebuild.py"
FROM_LOG = "tests/ops/test_from_log.py"
LETTERS = "tests/ops/test_dead_letters.py"

AUDIT = "tests/store/test_audit.py"
LARGE = "tests/store/test_large_families.py"

RULES = (
    # -- who may write
    Rule(
        "store/fence.py",
        "if stand != _stand_of(known):\n            await",
        "if False:\n            await",
        "a ledger that moved is noticed",
        FENCE,
    ),
    Rule(
        "store/fence.py",
        '("WATCH", self.keys.ledger), self._stand(), *reads]',
        '("PING",), self._stand(), *reads]',
        "also while one is at work",
        FENCE,
    ),
    Rule("store/fence.py", '[("UNWATCH",), ("WATCH"', '[("PING",), ("WATCH"', "after a look all is new", FENCE),
    Rule("store/fence.py", '("WATCH", key), self._stand()]', '("PING",), self._stand()]', "or between batches", FENCE),
    Rule("store/fence.py", "after[1] == _stand_of(moved)", "True", "or at once after a commit", FENCE),
    Rule(
        "store/fence.py",
        "watched, self._watched = self._watched, False",
        "watched = self._watched",
        "a WATCH is lost",
        FENCE,
    ),
    Rule("store/rebuild.py", "        await fence.begin()\n", "", "a rebuild is done under the fence", REBUILD),
    Rule("store/expiry.py", "        await self._fence.begin()\n", "", "and so is expiry", RETENTION),
    Rule(
        "store/families.py",
        " + max(0, len(last) - _USUAL_LENGTH)",
        "",
        "long records count as long",
        "tests/store/test_families.py",
    ),
    Rule(
        "store/families.py",
        "                    await self._fence.begin()\n",
        "",
        "what a successor moved is no trouble",
        FENCE,
    ),
    # -- what is old
    Rule(
        "core/retention.py",
        "return max(0, day_of(watermark_us) - ",
        "return max(0, day_of(watermark_us) + 1 - ",
        "the horizon is the retention before today",
        RETENTION,
    ),
    Rule(
        "store/expiry.py",
        "(over & (last < horizon)).tolist()",
        "(over & (last <= horizon)).tolist()",
        "the first instant after the horizon is kept",
        RETENTION,
    ),
    Rule(
        "store/expiry.py",
        "(over & (last < horizon)).tolist()",
        "(last < horizon).tolist()",
        "open runs stay",
        RETENTION,
    ),
    Rule(
        "store/expiry.py",
        "horizon = self._due.cells if minute_of(records[0]) == NONE else self._due.raw",
        "horizon = self._due.raw",
        "runs without expected time stay until cells go",
        RETENTION,
    ),
    Rule(
        "store/expiry.py",
        "if all(index.gone(int(entry)) for entry in entries)",
        "if True",
        "a flow run stays while a run of it does",
        RETENTION,
    ),
    Rule(
        "store/expiry.py",
        "without.day * DAY_US < self._due.cells",
        "without.day * DAY_US <= self._due.cells",
        "the index is as old as cells",
        RETENTION,
    ),
    Rule(
        "store/expiry.py",
        "await self._commit([], horizon=due.raw, cells_horizon=due.cells)",
        "await self._commit([])",
        "horizons move before anything goes",
        RETENTION,
    ),
    Rule(
        "store/edit.py",
        "            if record == FROZEN:\n                self.frozen += len(changes)\n                continue\n",
        "            if record == FROZEN:\n                record = None\n",
        "an event of a frozen run is dropped",
        RETENTION,
    ),
    Rule(
        "store/edit.py",
        "if stored is None and any_forgotten and self._is_too_old(after):",
        "if False:",
        "so is one of which nothing can be known",
        RETENTION,
    ),
    # -- cells made anew
    Rule(
        "store/runs.py",
        "if known.cells_expired <= day * DAY_US < known.horizon}",
        "if False}",
        "days without records are carried over",
        RETENTION,
    ),
    Rule(
        "store/runs.py",
        "            self._rebuild = None\n            self._expiry = Expiry(",
        "            self._expiry = Expiry(",
        "a rebuild that is under way learns of a new horizon",
        RETENTION,
    ),
    # -- all data made anew
    Rule(
        "ops/from_log.py",
        "if all(shard.next_offset >= targets[shard.name]",
        "if any(shard.next_offset >= targets[shard.name]",
        "all is filled before it is live",
        FROM_LOG,
    ),
    Rule("ops/from_log.py", "if record.offset < target]", "]", "what is filled does not pass what is live", FROM_LOG),
    Rule(
        "ops/from_log.py",
        "for part in by_day(wanted, one.watermark_us, now_us):",
        "for part in [wanted]:",
        "a day begins a batch there too",
        FROM_LOG,
    ),
    Rule(
        "ops/from_log.py",
        "max(0, at - reached))",
        "(at - reached))",
        "a live shard that is behind has lost nothing",
        FROM_LOG,
    ),
    Rule(
        "ops/from_log.py",
        "            live = await _remove(link, settings, live, progress)\n            live = await generations.begin",
        "            live = await generations.begin",
        "what was to be removed is removed by the next one",
        FROM_LOG,
    ),
    Rule(
        "store/generations.py",
        "if live.filling and live.filling_format == FORMAT:",
        "if False:",
        "what was filled is gone on with",
        FROM_LOG,
    ),
    Rule(
        "store/generations.py",
        '            [("UNLINK", Keys(settings.redis_prefix, generation, shard).ledger) for shard in shards_of(live)]',
        "            []",
        "ledgers go first, which fences",
        FROM_LOG,
    ),
    Rule(
        "store/generations.py", "if live_of(flat) != live:", "if False:", "of two that fill one makes it live", FROM_LOG
    ),
    Rule(
        "store/fence.py",
        "if live.generation != self._generation:",
        "if False:",
        "a shard of another generation cannot be opened",
        FROM_LOG,
    ),
    # -- what is too much to be named
    Rule(
        "store/edit.py", "            self.floor = seq\n", "", "what is not named as touched is all read again", AUDIT
    ),
    Rule("store/audit.py", " or stand.floor > before.seq:", ":", "also by who checks a day", AUDIT),
    Rule("store/audit.py", "if moved <= {*again}:", "if True:", "and what was touched meanwhile", AUDIT),
    Rule(
        "store/fence.py",
        '            raise FencedError(self.shard, "somebody else wrote while the shard was read") from error',
        "            raise",
        "what makes no sense since somebody else writes ends no worker",
        RETENTION,
    ),
    # -- dead letters
    Rule("ops/dead_letters.py", "letter.identity in seen or ", "", "one that was written twice counts once", LETTERS),
    Rule(
        "ops/dead_letters.py",
        "            wanted.remove(letter.identity)\n",
        "",
        "and is published again once",
        LETTERS,
    ),
)

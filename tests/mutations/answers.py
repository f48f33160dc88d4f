"""Rules that answers from cells stand on."""

from __future__ import annotations

from .rule import Rule

ANSWERS = "tests/api/test_rollups_answer.py"
ATTACKS = "tests/api/test_cache_attacks.py"
CORE = "tests/core/test_cells.py"
FILTERS = "tests/api/test_filters_http.py"
LINK = "tests/store/test_link.py"
SELECTION = "tests/core/test_selection.py"

RULES = (
    # -- which cells may be used as a whole
    Rule("core/plan.py", "((first != last) | late_for_some", "(late_for_some", "a cell may lie in two bins", ANSWERS),
    Rule("core/plan.py", " | late_for_some", "", "some of a cell's open runs are expected after now", ANSWERS),
    Rule(
        "core/plan.py",
        "(sums.expected_hi >= now)",
        "(sums.expected_hi > now)",
        "a run expected exactly now is not late yet",
        CORE,
    ),
    Rule("core/plan.py", " | runs_for_some", "", "run times of the future are clamped one by one", ANSWERS),
    Rule("core/plan.py", " | sums.wide)", ")", "the sums of wide cells mean nothing", ANSWERS),
    Rule(
        "core/plan.py",
        "& (begin < within[1])\n",
        "& (begin + width < within[1])\n",
        "the range's last bucket counts",
        ANSWERS,
    ),
    Rule(
        "core/plan.py",
        "fine * width + width > within[0]",
        "fine * width > within[0]",
        "and its first, when split",
        ANSWERS,
    ),
    Rule(
        "api/answer.py",
        "bins, self._question.now) | (~said.certain & inside)",
        "bins, self._question.now)",
        "a filter may hold for some runs of a cell",
        ANSWERS,
    ),
    Rule(
        "api/answer.py",
        "Verdict(said.certain, said.possible & ~said.certain)",
        "Verdict(said.certain, said.possible & False)",
        "in a count too",
        ANSWERS,
    ),
    Rule("api/answer.py", "use &= ~split[unit]", "pass", "what is split, or taken from raw runs, counts once", ANSWERS),
    Rule(
        "api/answer.py",
        "chosen[0][~cut] if within is not None else np.append(chosen[0][~cut], NONE)",
        "chosen[0][~cut]",
        "a count has the runs without an expected time",
        ANSWERS,
    ),
    Rule("api/answer.py", "+ (beyond > 0)", "", "an instant inside of a minute divides it", ANSWERS),
    # -- whose cells they are
    Rule("store/scripts.py", "(at - 1) * 10 + child - 1", "(at - 1) * 10", "each bucket has its own cells", ANSWERS),
    Rule("api/numbering.py", "[first[position] + index]", "[index]", "each shard has its own numbers", ANSWERS),
    Rule(
        "api/sums.py", "here = [None not in stored", "here = [stored != (None,)", "all shards' cells are there", ANSWERS
    ),
    Rule("api/sums.py", "ready_places[~of_minute]", "ready_places[:0]", "what is not there is read, not none", ANSWERS),
    # -- what a filter says of a cell
    Rule(
        "core/selection.py",
        "Verdict(there & (high >= bound), there & (low >= bound))",
        "Verdict(there & (high >= bound), there & (high >= bound))",
        "`after` holds for all only if it holds for the earliest",
        ANSWERS,
    ),
    Rule(
        "core/selection.py",
        "Verdict(there & (low <= bound), there & (high <= bound))",
        "Verdict(there & (low <= bound), there & (low <= bound))",
        "`before` holds for all only if it holds for the latest",
        ANSWERS,
    ),
    Rule("core/selection.py", "min(end, bound + 1)", "min(end, bound)", "`before` is inclusive", ANSWERS),
    Rule(
        "core/selection.py",
        "if isinstance(tree, Joint) and not tree.either else (tree,)",
        "if isinstance(tree, Joint) else (tree,)",
        "a range narrows the bins only as a conjunct",
        SELECTION,
    ),
    Rule(
        "core/selection.py",
        "certain | (number == OTHER), certain",
        "certain, certain",
        "names past the cap may match",
        SELECTION,
    ),
    Rule(
        "core/selection.py",
        "verdict.certain.astype(np.int64) << 2 * number + 1",
        "verdict.possible.astype(np.int64) << 2 * number + 1",
        "other tags may match, and may not",
        ANSWERS,
    ),
    Rule(
        "core/selection.py",
        "bool(sets) or any(atom.column == _PARENT_COLUMN for atom in kinds)",
        "bool(sets)",
        "whether a raw run is of a subflow stands with its flow run",
        ANSWERS,
    ),
    Rule(
        "api/minutes.py",
        "group = group | np.where(child",
        "group = group | 0 * np.where(child",
        "and is looked up there",
        ANSWERS,
    ),
    # -- which cohorts a filter takes
    Rule(
        "api/resolved.py",
        "if known is not None and known[0] == catalog.version:",
        "if known is not None:",
        "the catalog moves",
        ANSWERS,
    ),
    Rule(
        "api/resolved.py",
        "        return True, False\n",
        "        return False, False\n",
        "other tags are not no tags",
        ANSWERS,
    ),
    Rule(
        "api/resolved.py",
        "np.array_equal(numbers == numbers[first], taken)",
        "bool((numbers == numbers[first])[taken].all())",
        "a flow's cells are those of all its cohorts",
        ANSWERS,
    ),
    Rule(
        "api/resolved.py",
        "if not taken.any() or (code[taken] != code[first]).any():",
        "if not taken.any():",
        "and only if all of them are taken alike",
        FILTERS,
    ),
    Rule(
        "api/resolved.py",
        "packed.startswith(longest)",
        "len(packed) > len(longest)",
        "another outcome has other sums",
        ANSWERS,
    ),
    Rule(
        "core/cohorts.py",
        '"flow_name": _field("flow_name")',
        '"flow_name": lambda _: None',
        "flows not yet known",
        ANSWERS,
    ),
    # -- what a cell means
    Rule(
        "core/fold.py",
        "np.add(sums.a, shift, out=sums.a, where=kinds.running)",
        "",
        "turns are relative to the bucket",
        ANSWERS,
    ),
    Rule(
        "core/fold.py",
        "np.add(sums.b, shift, out=sums.b, where=kinds.open)",
        "",
        "so are expected times",
        ANSWERS,
    ),
    Rule(
        "core/fold.py",
        " & ((fine.bucket != NONE) | (level_of_way == 0)[:, None])",
        "",
        "without an expected time there is one bucket",
        CORE,
    ),
    Rule("core/fold.py", "fine = selected(fine, fine.bucket != NONE)", "pass", "also among many", CORE),
    Rule(
        "core/cells.py",
        "(((hi + 1) * width - 1) >> _STEP_BITS)",
        "((hi * width) >> _STEP_BITS)",
        "expected bounds are outer ones",
        ANSWERS,
    ),
    Rule(
        "core/cells.py",
        "_ROUND: Final = np.array([[0], ",
        "_ROUND: Final = np.array([[(1 << _GRAIN_BITS) - 1], ",
        "start bounds are outer ones, below",
        ANSWERS,
    ),
    Rule(
        "core/cells.py",
        "[[0], [(1 << _GRAIN_BITS) - 1], ",
        "[[0], [0], ",
        "start bounds are outer ones, above",
        ANSWERS,
    ),
    Rule("core/cells.py", "[(1 << _GRAIN_BITS) - 1]])", "[0]])", "the turn's bound is an outer one", ANSWERS),
    Rule(
        "core/cells.py",
        "np.where((grains > _COARSE_MIN) & (grains < _COARSE_MAX), grains, _NOTHING_SAID)",
        "np.clip(grains, _COARSE_MIN + 1, _COARSE_MAX - 1)",
        "a bound too far away to be stored says nothing",
        ANSWERS,
    ),
    Rule(
        "core/cells.py",
        "        np.maximum.reduceat(parts[_HIGHS], first, axis=1, out=table[_HIGHS])\n",
        "",
        "bounds are widened",
        ANSWERS,
    ),
    Rule("core/cells.py", "np.minimum.reduceat", "np.maximum.reduceat", "those of starts too", ANSWERS),
    Rule(
        "core/cells.py",
        "table[_WIDE] |= table[_SIZE].view(np.float64) >= SUM_LIMIT",
        "pass",
        "a sum that may leave 64 bits is wide",
        CORE,
    ),
    Rule("core/fold.py", "~kinds.believed | (size", "(size", "states past the cap are not one state", ANSWERS),
    Rule("core/fold.py", "np.maximum(0, rows.total))", "rows.total)", "a negative run time is none", ANSWERS),
    Rule(
        "core/fold.py",
        "np.maximum(0, start - expected), 0)",
        "start - expected, 0)",
        "an early start is not late",
        ANSWERS,
    ),
    Rule(
        "core/fold.py",
        "rows.state_time - rows.total, 0)",
        "rows.state_time, 0)",
        "a turn is before its state by the total",
        ANSWERS,
    ),
    Rule(
        "core/fold.py", "np.where(timed, bucket * MINUTE_US, 0)", "np.where(timed, 0, 0)", "sums are relative", ANSWERS
    ),
    Rule(
        "core/combine.py",
        "kinds.open[use] & (sums.expected_hi[use] < self._now)",
        "kinds.open[use]",
        "what is expected later is not late",
        ANSWERS,
    ),
    Rule(
        "core/combine.py",
        "np.maximum(0, rows.total + np.where(running, now - rows.state_time, 0))",
        "rows.total + np.where(running, now - rows.state_time, 0)",
        "raw run times are clamped one by one",
        ANSWERS,
    ),
    # -- rows that move
    Rule(
        "store/edit.py",
        "return family.cohort != cohort_before",
        "return False",
        "a flow run's change moves its runs",
        ANSWERS,
    ),
    Rule(
        "store/edit.py",
        "self.old.add(record, cohort_before)\n                self._moved",
        "self.old.add(record, cohort)\n                self._moved",
        "what moves is taken from where it was",
        ANSWERS,
    ),
    # -- what is kept
    Rule("api/cells.py", "self._sums.drop(dropped.buckets)", "pass", "sums of changed buckets are dropped", ANSWERS),
    Rule(
        "api/minutes.py",
        "self._discard((position, minute), whose=whose)",
        "pass",
        "runs of changed minutes too",
        ANSWERS,
    ),
    Rule(
        "store/view.py",
        "self._drop(int(minute) for minute in look[3])",
        "pass",
        "copies of changed minutes are dropped",
        ANSWERS,
    ),
    Rule(
        "store/view.py",
        "                self._lose(Place(FLOW_RUN, 0, ALL, flow_run))",
        "                pass",
        "copies of changed flow runs are dropped",
        ANSWERS,
    ),
    Rule(
        "api/minutes.py",
        "self._discard(key, whose=True)",
        "pass",
        "what was made of changed flow runs goes with them",
        ATTACKS,
    ),
    Rule(
        "store/view.py",
        "before and records[: len(before)] == before",
        "before",
        "cohorts of another epoch may be others",
        ATTACKS,
    ),
    Rule(
        "api/shards.py",
        "return self._seen > begun",
        "return self._seen > 0",
        "another's refresh is of use only if it began later",
        ATTACKS,
    ),
    Rule(
        "store/view.py",
        "found.epoch != was.epoch or found.seq",
        "found.seq",
        "another epoch has other dictionaries",
        ATTACKS,
    ),
    Rule("store/view.py", "found.seq < was.seq or ", "", "a rolled back shard is read anew", ATTACKS),
    Rule(
        "store/view.py",
        "        self._dropped = None\n        if",
        "        if",
        "sums too",
        ATTACKS,
    ),
    Rule(
        "store/link.py",
        "                await self.close()\n                raise",
        "                raise",
        "no reply is left",
        LINK,
    ),
    Rule("store/scripts.py", " or stand[2] ~= ARGV[2 * at - 1] then", " then", "a ledger that moved is read", ATTACKS),
    Rule(
        "store/catalog_copy.py",
        "stand[1] == ARGV[1] and stand[2] == ARGV[2]",
        "stand[1] == ARGV[1]",
        "a rolled back catalog is read anew",
        ATTACKS,
    ),
)

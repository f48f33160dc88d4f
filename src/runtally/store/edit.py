"""What one batch makes of a shard: records and index entries to write, and the rows before and after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from ..core.changes import FLOW_RUN, TASK_RUN, Change, Entity
from ..core.cohorts import NO_FLOW_RUN, cohort_of
from ..core.groups import FIRST_STATE, NO_STATE, OTHER, State, States
from ..core.levels import COARSEST, MINUTE_US, NONE
from ..core.retention import Horizons, last_instant
from ..core.rows import NULL
from ..core.versions import Stored, merge, repeats
from .aside import Gone
from .cohort_book import CohortBook
from .families import FROZEN, SMALL_FAMILY, Family, Wanted
from .fence import Fence
from .index import deleted, packed
from .keys import raw_bucket
from .link import Command
from .records import (
    DEAD,
    decode_entity,
    decode_task_run,
    encode_cohort,
    encode_entity,
    encode_state,
    encode_task_run,
    minute_of,
)

MOST_TOUCHED: Final = 10_000
"""So many minutes a commit names as touched: each reader takes 40 ms to drop what it has of them. For more, readers
are told to begin anew."""
_FLOW_RUN_STATES: Final = len(FLOW_RUN.state_fields)


class Work:
    """A batch's changes by family: what has to be known, and what to apply, in the order of arrival."""

    def __init__(self, changes: Sequence[Change]) -> None:
        self.wanted: Wanted = {}
        self.flow_runs: dict[bytes, list[Change]] = {}
        self.task_runs: dict[bytes | None, dict[bytes, list[Change]]] = {}
        for change in changes:
            if change.entity == "task_run":
                flow_run = change.flow_run_id
                runs = self.task_runs.get(flow_run)
                if runs is None:
                    runs = self.task_runs[flow_run] = {}
                same = runs.get(change.id)
                if same is None:
                    runs[change.id] = [change]
                else:
                    same.append(change)
            else:
                self.flow_runs.setdefault(change.id, []).append(change)
        for flow_run, runs in self.task_runs.items():
            self.wanted[flow_run] = set(runs)
        for flow_run in self.flow_runs:
            self.wanted.setdefault(flow_run, set())


class Side:
    """Records on one side of a change, and the number of each one's cohort."""

    __slots__ = ("cohorts", "records")

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.cohorts: list[int] = []

    def add(self, record: bytes, cohort: int) -> None:
        """One more."""
        self.records.append(record)
        self.cohorts.append(cohort)


class Edit:
    """What one batch changes: records and index entries to write, rows before and after."""

    def __init__(self, fence: Fence, states: States, max_states: int, cohorts: CohortBook, today: int) -> None:
        self.new = Side()
        self.old = Side()
        self.gone = Gone()
        self.stale = self.duplicate = self.frozen = 0
        self.floor = fence.ledger.floor
        self._horizons: Horizons = fence.ledger.horizons
        self._today = today
        self._leaving: dict[bytes, None] = {}
        self._shard_keys = fence.keys
        self._states = states
        self._max_states = max_states
        self._fresh_states: list[State] = []
        self._cohorts = cohorts
        self._raw: defaultdict[int, list[bytes]] = defaultdict(list)
        self._index: defaultdict[bytes, list[bytes | int]] = defaultdict(list)
        self._index_gone: list[bytes] = []
        self._flow_runs: dict[bytes, bytes] = {}
        self._cohort_before: dict[bytes | None, int] = {}
        self._moved: set[bytes] = set()
        self._minutes: set[int] = set()

    def merge_flow_run(self, family: Family, flow_run: bytes, changes: list[Change]) -> bool:
        """Apply a flow run's events; whether that changes the rows of all its task runs."""
        before = family.flow_run
        if before == DEAD:
            self.stale += len(changes)
            return False
        if before == FROZEN:
            self.frozen += len(changes)
            return False
        self._cohort_before[flow_run] = cohort_before = self._cohort(family, flow_run)
        if any(change.action == "delete" for change in changes):
            family.flow_run = self._flow_runs[flow_run] = DEAD
            self._leaving[packed(b"d", flow_run)] = None
            return True
        old = decode_entity(before, _FLOW_RUN_STATES) if before else None
        stored = old
        for change in changes:
            after = merge(FLOW_RUN, stored, change)
            if after is stored:
                self._note_nothing_new(FLOW_RUN, after, change)
            stored = after
        if stored is None or stored is old:
            return False
        family.flow_run = self._flow_runs[flow_run] = encode_entity(stored)
        family.cohort = self._cohorts.number(cohort_of(stored.values))
        return family.cohort != cohort_before

    def merge_task_runs(self, family: Family, flow_run: bytes | None, runs: dict[bytes, list[Change]]) -> None:
        """Apply the events of one family's task runs."""
        if family.flow_run == DEAD:
            self.stale += sum(map(len, runs.values()))
            return
        members = family.members
        cohort = self._cohort(family, flow_run)
        cohort_before = self._cohort_before.get(flow_run, cohort)
        index = None if flow_run is None else self._index[self._shard_keys.members(flow_run)]
        names = self._states.names
        for run, changes in runs.items():
            record = members.get(run)
            if record == DEAD:
                self.stale += len(changes)
                continue
            if record == FROZEN:
                self.frozen += len(changes)
                continue
            old = None if record is None else decode_task_run(record, names)
            stored, deleted_now = old, False
            for change in changes:
                if change.action == "delete":
                    stored, deleted_now = None, True
                    break
                after = merge(TASK_RUN, stored, change)
                if stored is None and self._is_too_old(after):
                    self.frozen += 1
                    continue
                if after is stored:
                    self._note_nothing_new(TASK_RUN, after, change)
                stored = after
            if stored is old and not deleted_now:
                continue
            entries = index if index is not None else self._index[self._shard_keys.single(run)]
            if record is not None:
                self.old.add(record, cohort_before)
                self._moved.add(run)
            if stored is None:
                members[run] = DEAD
                entries += (run, deleted(self._today))
                self._leaving[packed(b"s", run) if flow_run is None else packed(b"m", flow_run)] = None
                if record is not None:
                    self.gone.singly[raw_bucket(minute_of(record))].append(run)
                continue
            written = encode_task_run(stored, self._state_number(stored), flow_run)
            members[run] = written
            self.new.add(written, cohort)
            self._moved.add(run)
            bucket = raw_bucket(minute_of(written))
            self._raw[bucket] += (run, written)
            was = None if record is None else raw_bucket(minute_of(record))
            if was != bucket:
                entries += (run, bucket)
                if was is not None:
                    self.gone.singly[was].append(run)

    def move_rows(self, family: Family, flow_run: bytes) -> None:
        """Attribute all remembered rows of a family anew, or take them away with their flow run."""
        cohort_before = self._cohort_before[flow_run]
        dead = family.flow_run == DEAD
        gone = self.gone.singly if len(family.members) <= SMALL_FAMILY else self.gone.with_them
        cohort = self._cohort(family, flow_run)
        for run, record in family.members.items():
            if record in (DEAD, FROZEN) or run in self._moved:
                continue
            self.old.add(record, cohort_before)
            if dead:
                gone[raw_bucket(minute_of(record))].append(run)
            else:
                self.new.add(record, cohort)
        if dead:
            self.gone.flow_runs.append(flow_run)
            family.members.clear()
            self._index_gone.append(self._shard_keys.members(flow_run))

    def move_others(self, family: Family, flow_run: bytes, others: Sequence[tuple[bytes, bytes]]) -> tuple[Side, Side]:
        """The same for members that are not remembered; their rows after and before it."""
        new, old = Side(), Side()
        dead = family.flow_run == DEAD
        cohort_before, cohort = self._cohort_before[flow_run], self._cohort(family, flow_run)
        for run, record in others:
            old.add(record, cohort_before)
            minute = minute_of(record)
            self._minutes.add(minute)
            if dead:
                self.gone.with_them[raw_bucket(minute)].append(run)
            else:
                new.add(record, cohort)
        return new, old

    def commands(self, seq: int, days: set[int]) -> list[Command]:
        """Everything but the cells and what is `gone`, as commands; adds the new rows' days to `days`. `floor` is then
        what the ledger's has to be: a commit that touches very many minutes names none."""
        keys = self._shard_keys
        minutes = self._minutes | {*map(minute_of, self.new.records), *map(minute_of, self.old.records)}
        commands: list[Command] = [
            *[("HSET", keys.raw(bucket), *pairs) for bucket, pairs in self._raw.items()],
            *[("HSET", key, *pairs) for key, pairs in self._index.items() if pairs],
            *[("UNLINK", key) for key in self._index_gone],
            *[("HSET", keys.flow_runs(run), run, record) for run, record in self._flow_runs.items()],
        ]
        if self._leaving:
            commands.append(("APPEND", keys.leaving(self._today), b"".join(self._leaving)))
        if self._cohorts.fresh:
            commands.append(("RPUSH", keys.cohorts, *map(encode_cohort, self._cohorts.fresh)))
        if self._fresh_states:
            commands.append(("RPUSH", keys.states, *map(encode_state, self._fresh_states)))
        fresh_days = {minute * MINUTE_US // COARSEST.width_us for minute in minutes if minute != NONE} - days
        if fresh_days:
            days |= fresh_days
            commands.append(("SADD", keys.days, *fresh_days))
        if len(minutes) > MOST_TOUCHED:
            self.floor = seq
            return [*commands, ("UNLINK", keys.touched, keys.touched_ids)]
        if minutes:
            commands.append(("ZADD", keys.touched, *[part for minute in minutes for part in (seq, minute)]))
        if self._flow_runs:
            commands.append(("ZADD", keys.touched_ids, *[part for run in self._flow_runs for part in (seq, run)]))
        commands += [("ZREMRANGEBYSCORE", key, "-inf", self.floor) for key in (keys.touched, keys.touched_ids)]
        return commands

    def _note_nothing_new(self, entity: Entity, stored: Stored, change: Change) -> None:
        if repeats(entity, stored, change):
            self.duplicate += 1
        else:
            self.stale += 1

    def _state_number(self, stored: Stored) -> int:
        state = stored.values[0]
        if state is None:
            return NO_STATE
        pair = (state[0], state[1])
        number = self._states.number(pair)
        if number is None:
            if len(self._states) - FIRST_STATE >= self._max_states:
                return OTHER
            number = len(self._states)
            self._states.extend([pair])
            self._fresh_states.append(pair)
        return number

    def _is_too_old(self, stored: Stored) -> bool:
        """Whether an unknown run would lie where no cells are kept: it may have been counted, and forgotten since."""
        if not self._horizons.cells:
            return False
        state, start, _, _, _, _, expected, _ = stored.values
        when = last_instant(start, state and state[2]) if expected is None else expected
        return NULL < when < self._horizons.cells

    def _cohort(self, family: Family, flow_run: bytes | None) -> int:
        """The number of a family's cohort, as its flow run is now; not for a deleted one that was read."""
        if family.cohort is None:
            if flow_run is None:
                cohort = NO_FLOW_RUN
            elif family.flow_run in (None, FROZEN):
                cohort = cohort_of(None)
            else:
                cohort = cohort_of(decode_entity(family.flow_run, _FLOW_RUN_STATES).values)
            family.cohort = self._cohorts.number(cohort)
        return family.cohort

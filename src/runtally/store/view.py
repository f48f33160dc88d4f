"""What this process knows of one shard, and of which state of it.

A view holds copies of cells and raw minutes, all of them as of one `seq`. A refresh is one MULTI: the ledger, what was
touched since, new dictionary entries, and whatever is wanted besides; copies of touched buckets are dropped.
So an answer made from a view, without awaiting in between, is made from one state of the shard.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..core.changes import FLOW_RUN as FLOW_RUN_FIELDS
from ..core.cohorts import Cohort, cohort_of
from ..core.groups import FLAG_BITS, MAX_STATES, NO_TYPE, OTHER, TYPE_CODES, State, States
from ..core.levels import COARSEST, MINUTE_US, NONE, ancestors
from ..core.rows import Rows
from ..core.scopes import ALL, COHORT, Scope
from ..errors import NotReadyError
from . import ledger as ledgers
from .block_copies import Asked, BlockCopies
from .blocks import decode as decode_block
from .bounded import Bounded
from .cohort_book import ALL_FIELD
from .flow_runs import FlowRuns
from .keys import Keys, raw_bucket
from .ledger import Ledger
from .link import Command
from .records import (
    DEAD,
    EXPECTED_AT,
    Packed,
    decode_cohorts,
    decode_entity,
    decode_states,
    flow_run_of,
    minute_of,
    rows_of,
    state_in_tail,
)

_FIRST_EXTRA: Final = MAX_STATES + 1
_OVERHEAD: Final = 200


class Place(NamedTuple):
    """Something to read: a bucket's cells of one kind of scope (of cohorts all, else those of the scope that `field`
    names); with `level` RAW a minute's raw runs, with BLOCK those of a block's six hours (or of the bucket without
    expected time), with FLOW_RUN the cohort of the flow run whose id is `field`."""

    level: int
    bucket: int
    kind: Scope = ALL
    field: bytes = ALL_FIELD


RAW: Final = -1
BLOCK: Final = -2
FLOW_RUN: Final = -3


@dataclass(frozen=True, slots=True)
class Stored:
    """Cells as they are stored: each scope's field in the hash, and its cells."""

    fields: Sequence[bytes]
    cells: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class RawMinute:
    """The runs of one minute as the shard holds them: ids and records in the same order, their rows, and where in
    `flow_runs` each one's flow run is (0: none).

    The rows' CHILD flag is not set: it belongs to the flow run.
    """

    ids: tuple[bytes, ...]
    records: tuple[bytes, ...]
    rows: Rows
    flow_runs: tuple[bytes | None, ...]
    flow_run: npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Reply:
    """A minute's raw runs that nobody has looked at yet."""

    pairs: list[bytes]


_LOOK: Final = """
local stand = redis.call('HMGET', KEYS[1], 'epoch', 'seq')
if stand[1] == ARGV[1] and stand[2] == ARGV[2] then return {} end
local found = {
  redis.call('HGETALL', KEYS[1]),
  redis.call('LRANGE', KEYS[2], ARGV[3], -1),
  redis.call('LRANGE', KEYS[3], ARGV[4], -1),
}
if ARGV[1] == '' then
  found[4] = redis.call('SMEMBERS', KEYS[4])
else
  found[4] = redis.call('ZRANGE', KEYS[5], '(' .. ARGV[2], '+inf', 'BYSCORE')
  found[5] = redis.call('ZRANGE', KEYS[6], '(' .. ARGV[2], '+inf', 'BYSCORE')
end
return found
"""
"""Server-side: nothing if the ledger stands where it stood (ARGV: epoch and seq, empty at first), else it and what is
new: states, cohorts (ARGV: how many are known), touched minutes and flow runs; at first all days in their place."""

_READ_VALUES: Final = """
local found = {}
for at = 1, #KEYS do found[at] = redis.call('HGET', KEYS[at], ARGV[at]) end
return found
"""
"""Server-side: a field (ARGV) of each hash (KEYS). One reply where each command would have two."""

_READ_HASHES: Final = """
local found = {}
for at = 1, #KEYS do found[at] = redis.call('HGETALL', KEYS[at]) end
return found
"""

_READ_MINUTES: Final = f"""
local wanted, found, pairs = {{}}, {{}}, redis.call('HGETALL', KEYS[1])
for at = 1, #ARGV do wanted[tonumber(ARGV[at])] = true end
for at = 1, #pairs, 2 do
  if wanted[math.floor(struct.unpack('<i8', pairs[at + 1], {EXPECTED_AT + 1}) / {MINUTE_US})] then
    found[#found + 1] = pairs[at]
    found[#found + 1] = pairs[at + 1]
  end
end
return found
"""
"""Server-side: ids and records of some minutes (ARGV) of a raw bucket (KEYS[1])."""

Copy = Stored | RawMinute | Reply | Cohort


class View:
    """One shard, as last read. `flow_runs_version` is another one whenever `cohort` may give something else."""

    def __init__(self, prefix: str, generation: str, shard: str, budget_bytes: int) -> None:
        self.shard = shard
        self._keys = Keys(prefix, generation, shard)
        self._copies: Bounded[Place, Copy] = Bounded(budget_bytes, _weigh)
        self._blocks_read: list[Place] = []
        self._values_read: list[Place] = []
        self._hashes_read: list[Place] = []
        self._minutes_read: defaultdict[int, list[int]] = defaultdict(list)
        self._places: dict[tuple[int, int], set[Place]] = {}
        self._dropped: set[tuple[int, int]] | None = set()
        self.cohorts: list[Cohort] = []
        self.flow_runs_version = 0
        self._ledger: Ledger | None = None
        self._states = States()
        self._extra: dict[State, int] = {}
        self._type_codes: npt.NDArray[np.uint8] = self._states.type_codes
        self._stale = True
        self._forgotten = 0
        self.days: set[int] = set()
        self._budget_bytes = budget_bytes
        self._asked: dict[int, Asked] = {}
        self.blocks = BlockCopies(self._keys, budget_bytes, self._name_others)
        self.flow_runs = FlowRuns(self._keys)

    def follow(self, prefix: str, generation: str) -> None:
        """Go on as a view of the same shard of another generation, from the next refresh on."""
        self._keys = Keys(prefix, generation, self.shard)
        self._ledger = None
        self._forget()

    @property
    def ledger(self) -> Ledger:
        """The ledger of this view's state. Raises `NotReadyError` when the shard has none."""
        if self._ledger is None:
            raise NotReadyError(f"shard {self.shard} has no ledger yet: no worker has been assigned its partition")
        return self._ledger

    @property
    def fresh(self) -> bool:
        """False when the last refresh found another epoch: another one is needed to read everything anew."""
        return not self._stale

    @property
    def kept_bytes(self) -> int:
        """About what copies take, but for blocks."""
        return self._copies.weight

    @property
    def type_codes(self) -> npt.NDArray[np.uint8]:
        """State type by state number, for the numbers that this view's cells and rows use."""
        return self._type_codes

    @property
    def states_version(self) -> tuple[int, int, int]:
        """Another value whenever `states` may give something else."""
        return self._forgotten, len(self._states), len(self._extra)

    def states(self) -> Iterator[tuple[int, State]]:
        """All (number, state) of the shard, and of runs beyond its cap that this view has met."""
        for number, state in enumerate(self._states.names):
            if state is not None:
                yield number, state
        for state, number in self._extra.items():
            yield number, state

    def holds(self, place: Place) -> bool:
        """Whether a copy is here, and as new as the view."""
        return self._copies.get(place) is not None

    def cells(self, place: Place) -> Stored | None:
        """The cells of a place, None when they are not here."""
        found = self._copies.get(place)
        assert found is None or isinstance(found, Stored)
        return found

    def cohort(self, flow_run: bytes) -> Cohort | None:
        """The cohort of a flow run's task runs, None when it is not here."""
        found = self._copies.get(Place(FLOW_RUN, 0, ALL, flow_run))
        assert found is None or isinstance(found, tuple)
        return found

    def dropped(self) -> set[tuple[int, int]] | None:
        """The buckets that changed since this was last asked, as (level, bucket); None: everything may have."""
        found, self._dropped = self._dropped, set()
        return found

    def raw(self, minute: int) -> RawMinute | None:
        """The raw runs of a minute, None when they are not here."""
        place = Place(RAW, minute)
        found = self._copies.get(place)
        if isinstance(found, Reply):
            found = self._raw_minute(found.pairs)
            self._copies.put(place, found)
        assert found is None or isinstance(found, RawMinute)
        return found

    def reads(self, wanted: Iterable[Place]) -> list[Command]:
        """The commands of a refresh; their replies, read in one MULTI, go to `take`."""
        keys = self._keys
        stand = ("", "") if self._stale or self._ledger is None else (self._ledger.epoch, self._ledger.seq)
        known = len(self._states) - len(States()), len(self.cohorts)
        looked_at = (keys.ledger, keys.states, keys.cohorts, keys.days, keys.touched, keys.touched_ids)
        commands: list[Command] = [("EVAL", _LOOK, len(looked_at), *looked_at, *stand, *known)]
        if self.flow_runs.known:
            commands.append(self.flow_runs.read_changed())
        self._asked = {}
        self._blocks_read, self._values_read, self._hashes_read = [], [], []
        self._minutes_read = defaultdict(list)
        values: list[tuple[bytes, bytes]] = []
        for place in dict.fromkeys(wanted):
            if place.level == RAW:
                self._minutes_read[raw_bucket(place.bucket)].append(place.bucket)
            elif place.level == BLOCK:
                self._blocks_read.append(place)
                asked = self._asked[place.bucket] = self.blocks.question(place.bucket)
                commands.append(asked.command)
            elif place.level != FLOW_RUN and place.kind is COHORT:
                self._hashes_read.append(place)
            else:
                self._values_read.append(place)
                hash_of_runs = place.level == FLOW_RUN
                key = keys.flow_runs(place.field) if hash_of_runs else keys.cells(place.kind, *place[:2])
                values.append((key, place.field))
        if values:
            commands.append(("EVAL", _READ_VALUES, len(values), *[key for key, _ in values], *[f for _, f in values]))
        if self._hashes_read:
            hashes = [keys.cells(COHORT, place.level, place.bucket) for place in self._hashes_read]
            commands.append(("EVAL", _READ_HASHES, len(hashes), *hashes))
        for bucket, minutes in self._minutes_read.items():
            whole: Command = ("HGETALL", keys.raw(bucket))
            commands.append(whole if bucket == NONE else ("EVAL", _READ_MINUTES, 1, whole[1], *minutes))
        return commands

    def take(self, replies: list[Any]) -> None:
        """Move to the state that the replies to `reads` show."""
        rest = iter(replies)
        look = next(rest)
        if look and not self._move(look):
            return
        if self.flow_runs.known:
            changed = next(rest)
            if self.ledger.floor > self.flow_runs.seq:
                self.flow_runs = FlowRuns(self._keys)
            else:
                self.flow_runs.take(changed, self.ledger.seq)
        for place in self._blocks_read:
            self.blocks.put(self._asked[place.bucket], decode_block(next(rest)))
        if self._values_read:
            for place, value in zip(self._values_read, next(rest), strict=True):
                if place.level == FLOW_RUN:
                    self._copies.put(place, _cohort(value))
                else:
                    self._put_cells(place, Stored((place.field,), (value,)) if value else Stored((), ()))
        if self._hashes_read:
            for place, pairs in zip(self._hashes_read, next(rest), strict=True):
                self._put_cells(place, Stored(pairs[::2], pairs[1::2]))
        for minutes, pairs in zip(self._minutes_read.values(), rest, strict=True):
            for minute, those in _by_minute(minutes, pairs).items():
                self._copies.put(Place(RAW, minute), Reply(those))

    def _move(self, look: list[Any]) -> bool:
        """Move to the state that a look found; False if nothing else of the replies is of use."""
        found = ledgers.decode(look[0])
        was, self._ledger = self._ledger, found
        if found is None:
            self._forget()
            return False
        if self._stale or was is None:
            self._forget()
            self.days = {int(day) for day in look[3]}
            self._stale = False
        elif found.epoch != was.epoch or found.seq < was.seq or found.floor > was.seq:
            self._forget()
            return False
        else:
            self._drop(int(minute) for minute in look[3])
            for flow_run in look[4]:
                self._copies.discard(Place(FLOW_RUN, 0, ALL, flow_run))
            self.flow_runs_version += bool(look[4])
        self._extend(decode_states(look[1]))
        self.cohorts += decode_cohorts(look[2])
        return True

    def _put_cells(self, place: Place, cells: Stored) -> None:
        self._places.setdefault((place.level, place.bucket), set()).add(place)
        self._copies.put(place, cells)

    def trim(self) -> None:
        """Keep within the memory budget: not in the middle of an answer."""
        self._copies.trim()

    def trim_blocks(self) -> None:
        """Keep blocks within what cells leave of the budget: while no scan gathers them."""
        self.blocks.trim(self._copies.weight)

    def _forget(self) -> None:
        self._forgotten += 1
        self.flow_runs_version += 1
        self._copies.clear()
        self._places.clear()
        self._dropped = None
        self.cohorts = []
        self.blocks = BlockCopies(self._keys, self._budget_bytes, self._name_others)
        self.flow_runs = FlowRuns(self._keys)
        self._states = States()
        self._extra = {}
        self._type_codes = self._states.type_codes
        self._stale = True
        self.days = set()

    def _drop(self, minutes: Iterable[int]) -> None:
        for minute in minutes:
            self._copies.discard(Place(RAW, minute))
            self.blocks.touch((raw_bucket(minute),))
            for level, bucket in ancestors(minute):
                if self._dropped is not None:
                    self._dropped.add((level, bucket))
                for place in self._places.pop((level, bucket), ()):
                    self._copies.discard(place)
            if minute != NONE:
                self.days.add(minute * MINUTE_US // COARSEST.width_us)

    def _extend(self, states: Iterable[State]) -> None:
        self._states.extend(states)
        self._renew_type_codes()

    def _renew_type_codes(self) -> None:
        if not self._extra:
            self._type_codes = self._states.type_codes
            return
        codes = np.full(_FIRST_EXTRA + len(self._extra), NO_TYPE, np.uint8)
        codes[: len(self._states)] = self._states.type_codes
        codes[_FIRST_EXTRA:] = [TYPE_CODES[state[0]] for state in self._extra]
        self._type_codes = codes

    def _raw_minute(self, reply: list[bytes]) -> RawMinute:
        ids, records = tuple(reply[::2]), tuple(reply[1::2])
        rows = rows_of(records, np.zeros(len(records), np.bool_))
        self._name_others(rows, records)
        flow_runs: dict[bytes | None, int] = {None: 0}
        numbers = [flow_runs.setdefault(flow_run_of(record), len(flow_runs)) for record in records]
        return RawMinute(ids, records, rows, tuple(flow_runs), np.array(numbers, np.intp))

    def _name_others(self, rows: Rows, records: Sequence[bytes] | Packed) -> None:
        """Give runs whose state is past the shard's cap a number of this view's own."""
        beyond = np.flatnonzero(rows.group >> FLAG_BITS == OTHER).tolist()
        if beyond:
            known = len(self._extra)
            for at in beyond:
                number = self._extra.setdefault(state_in_tail(records[at]), _FIRST_EXTRA + len(self._extra))
                rows.group[at] = number << FLAG_BITS | int(rows.group[at]) & (1 << FLAG_BITS) - 1
            if len(self._extra) != known:
                self._renew_type_codes()


def _by_minute(minutes: list[int], pairs: list[bytes]) -> dict[int, list[bytes]]:
    """Ids and records by the minute in which the run is expected."""
    if len(minutes) == 1:
        return {minutes[0]: pairs}
    found: dict[int, list[bytes]] = {minute: [] for minute in minutes}
    for run, record in zip(pairs[::2], pairs[1::2], strict=True):
        found[minute_of(record)] += (run, record)
    return found


def _cohort(record: bytes | None) -> Cohort:
    """The cohort of the task runs of a flow run that is there or only referred to; a deleted one has none."""
    values = None if record in (None, DEAD) else decode_entity(record or b"", len(FLOW_RUN_FIELDS.state_fields)).values
    return cohort_of(values)


def _weigh(copy: Copy) -> int:
    if isinstance(copy, RawMinute):
        return _OVERHEAD + 400 * len(copy.ids)
    if isinstance(copy, Reply):
        return _OVERHEAD + 150 * len(copy.pairs)
    if isinstance(copy, Stored):
        return _OVERHEAD + sum(map(len, copy.cells)) + 100 * len(copy.fields)
    return 2 * _OVERHEAD

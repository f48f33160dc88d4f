"""What this process knows of one shard, and of which state of it.

A view holds copies of cells and raw minutes, all of them as of one `seq`. A refresh is one MULTI: the ledger, what was
touched since, new dictionary entries, and whatever is wanted besides; copies of touched buckets are dropped.
So an answer made from a view, without awaiting in between, is made from one state of the shard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..core.cohorts import Cohort
from ..core.groups import State
from ..core.levels import COARSEST, MINUTE_US, NONE, ancestors, page_of
from ..core.scopes import ALL
from ..errors import NotReadyError
from . import ledger as ledgers
from .block_copies import Asked, BlockCopies
from .blocks import decode as decode_block
from .bounded import Bounded
from .cell_copies import CellCopies
from .flow_runs import FlowRuns
from .hot import Hot
from .keys import Keys, raw_bucket
from .ledger import Ledger, Stand
from .link import Command
from .places import (
    BLOCK,
    FLOW_RUN,
    RAW,
    Copy,
    Page,
    Place,
    RawMinute,
    Reads,
    Reply,
    cohort_in,
    minutes_in,
    pages_in,
    scope_pages_in,
    weigh,
)
from .records import decode_cohorts, flow_run_of, rows_of
from .scripts import LOOK
from .view_states import ViewStates

_OTHERS_PART: Final = 4
"""The share of the budget that raw runs and flow runs may take: a fourth, and what cells leave."""


class Dropped(NamedTuple):
    """Buckets, as (level, bucket), and ids of flow runs."""

    buckets: set[tuple[int, int]]
    flow_runs: set[bytes]


class View:
    """One shard, as last read."""

    def __init__(self, prefix: str, generation: str, shard: str, budget_bytes: int) -> None:
        self.shard = shard
        self._keys = Keys(prefix, generation, shard)
        self._copies: Bounded[Place, Copy] = Bounded(budget_bytes, weigh)
        self._cells = CellCopies(budget_bytes - budget_bytes // _OTHERS_PART)
        self._blocks_read: list[Place] = []
        self._read = Reads.of(())
        self._hot = Hot[Place]()
        self._dropped: Dropped | None = Dropped(set(), set())
        self.cohorts: list[Cohort] = []
        self._cohort_records: list[bytes] = []
        self._cohorts_before: tuple[list[bytes], list[Cohort]] = ([], [])
        self._ledger: Ledger | None = None
        self._states = ViewStates()
        self._stale = True
        self._look_commands = 0
        self._forgotten = 0
        self.days: set[int] = set()
        self._budget_bytes = budget_bytes
        self._asked: dict[int, Asked] = {}
        self.blocks = BlockCopies(self._keys, budget_bytes, self._states.name_others)
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
    def stand(self) -> Stand:
        """Where the ledger stands. Raises as `ledger` does."""
        return self._keys.ledger, self.ledger.epoch, self.ledger.seq

    @property
    def fresh(self) -> bool:
        """False when the last refresh found another epoch: another one is needed to read everything anew."""
        return not self._stale

    @property
    def kept_bytes(self) -> int:
        """About what copies take, but for blocks."""
        return self._copies.weight + self._cells.weight

    @property
    def type_codes(self) -> npt.NDArray[np.uint8]:
        """State type by state number, for the numbers that this view's cells and rows use."""
        return self._states.type_codes

    @property
    def states_version(self) -> tuple[int, int, int]:
        """Another value whenever `states` may give something else."""
        return self._forgotten, *self._states.version

    def states(self) -> Iterator[tuple[int, State]]:
        """All (number, state) of the shard, and of runs beyond its cap that this view has met."""
        return iter(self._states)

    def cells(self, places: Sequence[Place]) -> list[Page | None]:
        """The pages of places, None where they are not here."""
        self._hot.use(places)
        return self._cells.get(places)

    def cohorts_at(self, places: Sequence[Place]) -> list[Cohort | None]:
        """The cohort of the task runs of each flow run, None where it is not here."""
        return self._use(places)

    def dropped(self) -> Dropped | None:
        """What changed since this was last asked; None: everything may have."""
        found, self._dropped = self._dropped, Dropped(set(), set())
        return found

    def raw(self, minutes: Sequence[int]) -> list[RawMinute | None]:
        """The raw runs of each minute, None where they are not here."""
        places = [Place(RAW, minute) for minute in minutes]
        found = self._use(places)
        fresh = [at for at, copy in enumerate(found) if isinstance(copy, Reply)]
        decoded = self._raw_minutes([found[at].records for at in fresh]) if fresh else []
        for at, minute in zip(fresh, decoded, strict=True):
            found[at] = minute
            self._copies.put(places[at], minute)
        return found

    def reads(self, wanted: Iterable[Place], *, along: bool = False) -> list[Command]:
        """The commands of a refresh; their replies, read in one MULTI, go to `take`.

        What changed lately and was asked for again is read `along`, where the shard is known to have moved: it is
        likely to have changed.
        """
        keys = self._keys
        commands: list[Command]
        if self._stale or self._ledger is None:
            commands = [("HGETALL", keys.ledger), *(("LRANGE", key, 0, -1) for key in (keys.states, keys.cohorts))]
            commands.append(("SMEMBERS", keys.days))
        else:
            stand = self._ledger.epoch, self._ledger.seq
            known = self._states.known, len(self.cohorts), self._ledger.cells_expired
            looked_at = (keys.ledger, keys.states, keys.cohorts, keys.days, keys.touched, keys.touched_ids)
            commands = [("EVAL", LOOK, len(looked_at), *looked_at, *stand, *known)]
        self._look_commands = len(commands)
        if self.flow_runs.known:
            commands.append(self.flow_runs.read_changed())
        places = dict.fromkeys(wanted)
        self._hot.want(places)
        self._blocks_read = [place for place in places if place.level == BLOCK]
        self._asked = {}
        for place in self._blocks_read:
            asked = self._asked[place.bucket] = self.blocks.question(place.bucket)
            commands += asked.commands
        hot = (place for place in self._hot if place not in places)
        self._read = Reads.of(chain(places, hot) if along else places)
        return commands + self._read.commands(keys)

    def take(self, replies: list[Any]) -> None:
        """Move to the state that the replies to `reads` show."""
        rest = iter(replies)
        look = [*islice(rest, self._look_commands)]
        if self._look_commands == 1:
            (look,) = look
        if look and not self._move(look):
            return
        if self.flow_runs.known:
            changed = next(rest)
            if self.ledger.floor > self.flow_runs.seq:
                self.flow_runs = FlowRuns(self._keys)
            else:
                self.flow_runs.take(changed, self.ledger.seq)
        for place in self._blocks_read:
            asked = self._asked[place.bucket]
            self.blocks.put(asked, decode_block([*islice(rest, len(asked.commands))]))
        self._put(self._read, rest)
        if look:
            self._hot.move()

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
            if len(look) > 5:
                # Days that have gone were touched too.
                self.days = {int(day) for day in look[5]}
            for flow_run in look[4]:
                self._lose(Place(FLOW_RUN, 0, ALL, flow_run))
            if self._dropped is not None:
                self._dropped.flow_runs.update(look[4])
        self._states.extend(look[1])
        self._meet_cohorts(look[2])
        return True

    def _meet_cohorts(self, records: list[bytes]) -> None:
        """Decode what follows the cohorts that are known, or were before this epoch and are again."""
        before, cohorts = self._cohorts_before
        if not self.cohorts and before and records[: len(before)] == before:
            self._cohort_records, self.cohorts = before, cohorts
            records = records[len(before) :]
        self._cohort_records += records
        self.cohorts += decode_cohorts(records)

    def _put(self, read: Reads, replies: Iterator[Any]) -> None:
        self._cells.put(read.cells, pages_in([*islice(replies, len(read.cells))]))
        for place, reply in zip(read.others, replies, strict=False):
            self._copies.put(place, Reply(reply) if place.level == RAW else cohort_in(*reply))
        for places in read.scopes.values():
            self._cells.put(places, scope_pages_in(len(places), next(replies)))
        minutes = [*chain.from_iterable(read.minutes.values())]
        if minutes:
            for minute, found in zip(minutes, minutes_in(minutes, [*replies]), strict=True):
                self._copies.put(Place(RAW, minute), found)

    def trim(self) -> None:
        """Keep within the memory budget: not in the middle of an answer."""
        self._cells.trim()
        self._copies.trim(self._cells.weight)

    def trim_blocks(self) -> None:
        """Keep blocks within what cells leave of the budget: while no scan gathers them."""
        self.blocks.trim(self.kept_bytes)

    def _forget(self) -> None:
        self._forgotten += 1
        self._hot.clear()
        self._copies.clear()
        self._cells.clear()
        self._dropped = None
        if self.cohorts:
            self._cohorts_before = self._cohort_records, self.cohorts
        self._cohort_records, self.cohorts = [], []
        self._states = ViewStates()
        self.blocks = BlockCopies(self._keys, self._budget_bytes, self._states.name_others)
        self.flow_runs = FlowRuns(self._keys)
        self._stale = True
        self.days = set()

    def _drop(self, minutes: Iterable[int]) -> None:
        pages: set[tuple[int, int]] = set()
        for minute in minutes:
            self._lose(Place(RAW, minute))
            self.blocks.touch((raw_bucket(minute),))
            buckets = ancestors(minute)
            if self._dropped is not None:
                self._dropped.buckets.update(buckets)
            pages.update((level, page_of(level, bucket)) for level, bucket in buckets)
            if minute != NONE:
                self.days.add(minute * MINUTE_US // COARSEST.width_us)
        for level, page in pages:
            for place in self._cells.drop(level, page):
                self._hot.lose(place)

    def _lose(self, place: Place) -> None:
        """Drop a copy that is not as new as the view any more."""
        if place in self._copies:
            self._copies.discard(place)
            self._hot.lose(place)

    def _use(self, places: Sequence[Place]) -> list[Any]:
        """Copies that somebody asks for."""
        self._hot.use(places)
        return [*map(self._copies.get, places)]

    def _raw_minutes(self, replies: Sequence[list[bytes]]) -> list[RawMinute]:
        records = [*chain.from_iterable(replies)]
        rows = rows_of(records, np.zeros(len(records), np.bool_))
        self._states.name_others(rows, records)
        whose = map(flow_run_of, records)
        found: list[RawMinute] = []
        end = 0
        for reply in replies:
            begin, end = end, end + len(reply)
            flow_runs: dict[bytes | None, int] = {None: 0}
            numbers = [flow_runs.setdefault(flow_run, len(flow_runs)) for flow_run in islice(whose, end - begin)]
            found.append(RawMinute(rows.take(slice(begin, end)), tuple(flow_runs), np.array(numbers, np.intp)))
        return found

"""What producers have to tell: an estate that lives, and beside it everything that makes trouble.

Every event is known before it is sent, and each is sent at least once; what the broker has taken in the end is read
back from the log (see `log`).
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from runtally.errors import BadEventError
from runtally.events.publish import Message, checked
from runtally.settings import Settings
from runtally.simulate.estate import make
from runtally.simulate.play import Player

from ..strategies.estates import estate_of
from ..strategies.pools import text_of

SAMPLE = Path(__file__).parent.parent / "data" / "prefect-events.jsonl"
SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US
DAY_US = 24 * HOUR_US
_ALIVE_US = 300 * SECOND_US
BEGIN_US = 8 * HOUR_US
"""So long before now the estate begins, so that none of its times is ahead of the broker's clock."""
_ERA = 12
"""So many cycles the hostile events are about the same entities: in the end most of them are deleted."""

POISON = (
    b"not JSON",
    b"",
    b'{"entity":"task_run"}',
    b'{"entity":"task_run","action":"upsert","occurred":"2026-01-01T00:00:00Z","data":{"id":"x"}}',
    b'{"entity":"flow_run","action":"upsert","occurred":"never","data":{"id":"x","flow_id":"y"}}',
    b'{"entity":"task_run","action":"patch","occurred":"2199-01-01T00:00:00Z","data":{"id":"x","flow_run_id":null}}',
    b"\xff\xfe\x00",
    b'{"entity":"dragon","action":"delete","occurred":"2026-01-01T00:00:00Z","data":{"id":"x"}}',
)


class Told(NamedTuple):
    """A record to send. `partition`: a wrong one on purpose, None for the one of the key."""

    topic: str
    key: bytes
    value: bytes
    partition: int | None = None
    poison: bool = False


class Traffic:
    """Hands out what is told in each cycle; the same for the same seed and moment of the beginning."""

    def __init__(self, settings: Settings, dice: random.Random, now_us: int) -> None:
        self.now_us = now_us - BEGIN_US
        """The instant up to which the estate has lived."""
        self.estate = make(dice.randrange(1 << 30))
        self._settings = settings
        self._dice = dice
        self._player = Player(self.estate, settings.runs_topic, settings.catalog_topic)
        self._held: list[tuple[int, Told]] = []
        self._flow_runs: list[str] = []
        self._cycle = 0
        self._latest_us = now_us - HOUR_US
        self._told: list[Told] = []
        self._sample = [Told(*message) for message in _good(SAMPLE.read_bytes().splitlines(), settings, now_us)]

    def begin(self) -> list[Told]:
        """The catalog, and the runs that are there at the beginning."""
        return [*(Told(*message) for message in self._player.catalog()), *self._alive()]

    def days(self, count: int) -> list[Told]:
        """So many days pass of which nothing is told. Runs that had not ended go on as if there were no more of them,
        unless something of them comes late."""
        self.now_us += count * DAY_US
        self._latest_us += count * DAY_US
        told = self._alive()
        self._told += told
        return told

    def cycle(self, seconds: int) -> list[Told]:
        """What is told while the estate lives so many seconds: in disorder, with repeats and everything else."""
        self._cycle += 1
        self.now_us += seconds * SECOND_US
        lived = [Told(*message) for message in self._player.due(self.now_us, 1 << 20)]
        self._note(lived)
        told = [*self._on_time(lived), *self._hostile()]
        told += [*self.deletes(self._dice.randrange(4)), *self.poison(self._dice.randrange(12))]
        told += self._dice.choices(told, k=len(told) // 10)
        if self._dice.random() < 0.3:
            told += self._sample
        told = [self._misplaced(one) if self._dice.random() < 0.02 else one for one in told]
        self._dice.shuffle(told)
        self._told += told
        return told

    def again(self) -> list[Told]:
        """Some thousands of everything that was told so far, once more and in another order."""
        return self._dice.sample(self._told, min(len(self._told), 3000))

    def late(self) -> list[Told]:
        """All that has been held back so far, the newest first."""
        held, self._held = self._held, []
        return [one for _, one in reversed(held)]

    def deletes(self, count: int) -> list[Told]:
        """Deletes of so many flow runs, of task runs of theirs too; of some before anything else was told of them."""
        flow_runs = self._dice.sample(self._flow_runs, min(len(self._flow_runs), count))
        told = [self._event("flow_run", flow_run, {"id": flow_run}) for flow_run in flow_runs]
        told += [
            self._event("task_run", event["data"]["flow_run_id"], event["data"])
            for one in self._dice.sample(self._told, min(len(self._told), count))
            if not one.poison and b'"entity":"task_run"' in one.value
            if (event := json.loads(one.value))["data"].get("flow_run_id")
        ]
        return told

    def poison(self, count: int) -> list[Told]:
        """So many records that are no events."""
        topics = (self._settings.runs_topic, self._settings.runs_topic, self._settings.catalog_topic)
        return [
            Told(self._dice.choice(topics), self._dice.randbytes(4), value, poison=True)
            for value in self._dice.choices(POISON, k=count)
        ]

    def _alive(self) -> list[Told]:
        """The runs that did something lately, as they are now."""
        since = self.now_us - _ALIVE_US
        told = [Told(*m) for messages in self._player.catch_up(since, self.now_us) for m in messages]
        self._note(told)
        return told

    def _note(self, told: list[Told]) -> None:
        for one in told:
            if b'"entity":"flow_run"' in one.value:
                self._flow_runs.append(one.key.decode())

    def _on_time(self, lived: list[Told]) -> Iterator[Told]:
        """Those that are not held back for up to an hour, and those that have been held for long enough."""
        for one in lived:
            if self._dice.random() < 0.1:
                self._held.append((self.now_us + self._dice.randrange(HOUR_US), one))
            else:
                yield one
        for due_us, one in self._held:
            if due_us <= self.now_us:
                yield one
        self._held = [(due_us, one) for due_us, one in self._held if due_us > self.now_us]

    def _hostile(self) -> Iterator[Told]:
        """Few entities about which everything is said, in any order and with equal versions."""
        space = 1 + self._cycle // _ERA
        dices = [random.Random(self._dice.randrange(1 << 60)) for _ in range(self._dice.randrange(10, 60))]
        for event in estate_of(dices, self._latest_us):
            value = json.dumps(_moved(event, space)).encode()
            yield from (Told(*message) for message in _good([value], self._settings, self._latest_us))

    def _event(self, entity: str, key: str, data: dict[str, Any]) -> Told:
        event = {"entity": entity, "action": "delete", "occurred": text_of(self.now_us), "data": data}
        return Told(self._settings.runs_topic, key.encode(), json.dumps(event).encode())

    def _misplaced(self, one: Told) -> Told:
        if one.topic != self._settings.runs_topic or one.poison:
            return one
        return one._replace(partition=self._dice.randrange(self._settings.partitions))


def beacon(settings: Settings, now_us: int) -> Told:
    """An event whose arrival in Redis shows that its partition lives again."""
    own_id = str(uuid.uuid4())
    data = {"id": own_id, "flow_id": "beacons"}
    event = {"entity": "flow_run", "action": "upsert", "occurred": text_of(now_us), "data": data}
    return Told(settings.runs_topic, own_id.encode(), json.dumps(event).encode())


def _good(values: Sequence[bytes], settings: Settings, latest_us: int) -> Iterator[Message]:
    """Those that are events of interest, and not of times that are too far ahead."""
    for value in values:
        with suppress(BadEventError):
            message = checked(value, settings, latest_us)
            if isinstance(message, Message):
                yield message


def _moved(event: Any, space: int) -> Any:
    """The same about other entities: every UUID in another part of the space of ids."""
    if isinstance(event, dict):
        return {name: _moved(value, space) for name, value in event.items()}
    if isinstance(event, str) and len(event) >= 32:
        try:
            return str(uuid.UUID(int=uuid.UUID(event).int | space << 96))
        except ValueError:
            return event
    return event

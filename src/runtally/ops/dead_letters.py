"""`runtally dead-letters`: what was refused, by reason and by who may have sent it, and publishing it again.

A worker that dies at the wrong moment writes a dead letter twice; both tell the same place of the same event, and count
as one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from ..errors import BadEventError, ServerLostError, UserError
from ..events.dead_letter import DeadLetter
from ..events.publish import Publisher, Record, checked
from ..events.reader import reader, stop_reading
from ..events.wire import Ignored
from ..settings import Settings

_QUIET_MS: Final = 500
_PART: Final = 1000

Identity = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which dead letters are meant: of that reason, with a key that begins so; None: any."""

    reason: str | None = None
    key: str | None = None

    def __call__(self, letter: DeadLetter) -> bool:
        """Whether a dead letter is meant."""
        return (self.reason is None or letter.reason == self.reason) and key_text(letter).startswith(self.key or "")


@dataclass(slots=True)
class Group:
    """Dead letters of one reason whose keys begin alike; `shortened` of them cannot be published again. `place` and
    `detail` are those of the last one, times are those of the events, ms."""

    reason: str
    key_prefix: str
    count: int = 0
    shortened: int = 0
    first_ms: int = 0
    last_ms: int = 0
    place: tuple[str, int, int] = ("", 0, 0)
    detail: str = ""

    def add(self, letter: DeadLetter) -> None:
        """Count one more."""
        time = letter.timestamp_ms
        self.first_ms = min(self.first_ms, time) if self.count else time
        self.count += 1
        self.shortened += letter.shortened
        if time >= self.last_ms:
            self.last_ms, self.place, self.detail = time, letter.place, letter.detail


@dataclass(slots=True)
class Replayed:
    """What became of the chosen dead letters: published again; of which only the beginning was kept; and still bad, by
    reason."""

    chosen: int = 0
    published: int = 0
    shortened: int = 0
    still_bad: Counter[str] = field(default_factory=Counter)


def key_text(letter: DeadLetter) -> str:
    """The key of the original as text, "" without one."""
    return (letter.key or b"").decode("utf-8", "replace")


async def grouped(settings: Settings, chosen: Chosen, prefix: int) -> Sequence[Group]:
    """All chosen dead letters by reason and the first `prefix` characters of the key, the largest group first.

    Raises `UserError` when there is no topic of dead letters, `ServerLostError` when Kafka is away.
    """
    groups: dict[tuple[str, str], Group] = {}
    seen: set[Identity] = set()
    async with aclosing(_letters(settings)) as letters:
        async for letter in letters:
            if letter.identity in seen or not chosen(letter):
                continue
            seen.add(letter.identity)
            name = (letter.reason, key_text(letter)[:prefix])
            groups.setdefault(name, Group(*name)).add(letter)
    return sorted(groups.values(), key=lambda group: (-group.count, group.reason, group.key_prefix))


async def replay(
    settings: Settings, chosen: Chosen, *, publish: bool = True, progress: Callable[[int, int], None] = lambda *_: None
) -> Replayed:
    """Publish the events of the chosen dead letters again, where they belong. One that would be refused again is not
    published. `progress` is told how many of how many have been looked at.

    Doing so twice changes nothing. Raises as `grouped`.
    """
    wanted: set[Identity] = set()
    async with aclosing(_letters(settings)) as letters:
        async for letter in letters:
            if chosen(letter):
                wanted.add(letter.identity)
    done = Replayed(len(wanted))
    if not wanted:
        return done
    async with Publisher(settings) as publisher, aclosing(_letters(settings)) as letters:
        part: list[Record] = []
        # Not to the end of the topic: what is refused again meanwhile comes there too.
        async for letter in letters:
            if letter.identity not in wanted:
                continue
            wanted.remove(letter.identity)
            part += _again(letter, settings, done)
            if part and (len(part) >= _PART or not wanted):
                done.published += await publisher.forward(part) if publish else len(part)
                part = []
            progress(done.chosen - len(wanted), done.chosen)
            if not wanted:
                break
        # Some may have expired between the two looks.
        done.published += await publisher.forward(part) if publish else len(part)
    return done


def _again(letter: DeadLetter, settings: Settings, done: Replayed) -> Iterator[Record]:
    if letter.shortened:
        done.shortened += 1
        return
    try:
        if letter.value is None:
            raise BadEventError("no value")
        message = checked(letter.value, settings)
    except BadEventError as error:
        done.still_bad[error.reason] += 1
        return
    if isinstance(message, Ignored):
        done.still_bad["of no interest"] += 1
        return
    # Ours go: one of them says that the event has been forwarded, which is done once.
    headers = [(name, content) for name, content in letter.original_headers if not name.startswith("runtally-")]
    yield Record(message.topic, message.key, message.value, headers)


async def _letters(settings: Settings) -> AsyncGenerator[DeadLetter, None]:
    """Every record of the topic that is a dead letter, in the order of each partition."""
    topic = settings.dead_letters_topic
    try:
        consumer = await reader(settings, auto_offset_reset="earliest", fetch_max_wait_ms=100)
        try:
            known = await consumer._client.fetch_all_metadata()
            places = [TopicPartition(topic, number) for number in known.partitions_for_topic(topic) or ()]
            if not places:
                raise UserError(f"there is no topic {topic}: `runtally topics create` makes it")
            consumer.assign(places)
            await consumer.seek_to_beginning(*places)
            # Not by the ends alone: some brokers tell them too low.
            ends = await consumer.end_offsets(places)
            while True:
                fetched = await consumer.getmany(timeout_ms=_QUIET_MS)
                for records in fetched.values():
                    for record in records:
                        letter = DeadLetter(record.key, record.value, record.headers)
                        if letter.is_ours:
                            yield letter
                if not fetched and all([await consumer.position(place) >= ends[place] for place in places]):
                    return
        finally:
            await stop_reading(consumer)
    except (KafkaError, OSError) as error:
        raise ServerLostError(f"Kafka at {settings.kafka} does not show its dead letters: {error}") from None

"""The quiet point: everything that can be looked at, held against everything that it should be."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
from pydantic import ValidationError

from runtally.api.models import HistoryBody
from runtally.ops.verify import verify

from ..dashboards import HISTORY, Chosen, ranges, sent
from ..reference import Reference
from ..reference.times import body_time_us
from ..strategies import filters_of, question
from .log import Log
from .shadow import Shadow
from .traffic import Traffic
from .world import TroubleError, World

_MOST_SHOWN = 20
_MOST_CHECKED = 6
_ASK_EVERY_S = 0.3
_NO_RECORDS = "RUNTALLY_RAW_RETENTION"
"""What the refusal of a question says that needs records of days without any."""

Body = dict[str, Any]
Asked = tuple[str, Body]
"""Path and body."""


class Answer:
    """What the API said: to what, its JSON, and of which moment and state."""

    def __init__(self, path: str, body: Body, answer: httpx.Response) -> None:
        now, ledger = answer.headers["x-runtally-at"].removeprefix("now=").split("; ledger=")
        self.path = path
        self.body = body
        self.found = answer.json()
        self.now_us = body_time_us(now)
        self.ledger = {name: int(offset) for name, offset in (part.split(":") for part in ledger.split(","))}
        self.plan = answer.headers.get("x-runtally-plan", "")
        self.exact = "x-runtally-exact" not in answer.headers

    def differences(self, reference: Reference) -> list[str]:
        """How it differs from what is true."""
        return self.differs_from(
            reference.history(self.body, self.now_us) if self.path == HISTORY else reference.count(self.body)
        )

    def differs_from(self, want: Any) -> list[str]:
        """How it differs from that JSON."""
        if self.found == want:
            return []
        asked = f"{self.path} {self.body} at {self.now_us} of {self.ledger} ({self.plan})"
        return [f"{asked}: {self.found} instead of {want}"]


def questions(dice: random.Random, traffic: Traffic, count: int) -> Iterator[Asked]:
    """What dashboards ask of the time in which the estate lives, and anything else that may be asked."""
    tags = sorted({tag for flow in traffic.estate.flows.values() for tag in flow.kind.tags})
    flows = [flow.id for flow in traffic.estate.flows.values()]
    while count:
        if dice.random() < 0.5:
            chosen = Chosen(
                tuple(dice.sample(tags, dice.choice((0, 0, 1, 2)))),
                hide_subflows=dice.random() < 0.3,
                flow=dice.choice([None, None, *flows[:2]]),
            )
            start, end = dice.choice([*ranges(traffic.now_us).values()])
            one = dice.choice([*sent(start, end, chosen)])
            yield one.path, one.body
        else:
            body = {**question(dice)[0], **filters_of(dice)}
            try:
                HistoryBody.model_validate(body)
            except ValidationError:
                continue
            yield HISTORY, body
        count -= 1


async def ask(client: httpx.AsyncClient, asked: Asked) -> Answer | str:
    """The answer, or what 503 says why there is none now, or 422 why there is none any more. Raises `TroubleError` for
    anything else."""
    path, body = asked
    answer = await client.post(path, json=body)
    if answer.status_code == 503:
        if "retry-after" not in answer.headers:
            raise TroubleError(f"503 without Retry-After: {answer.text}")
        return answer.text
    if answer.status_code == 422 and _NO_RECORDS in answer.text:
        return answer.text
    if answer.status_code != 200:
        raise TroubleError(f"{answer.status_code} for {path} {body}: {answer.text}")
    return Answer(path, body, answer)


class Client:
    """Asks while things go wrong. Whatever it is answered has to be true of the state that the answer names."""

    def __init__(self, world: World, traffic: Traffic, dice: random.Random) -> None:
        self._world = world
        self._traffic = traffic
        self._dice = dice
        self._answers: list[Answer] = []
        self.checked = 0
        """How many answers the last look was at."""

    async def ask_until(self, done: asyncio.Task[None]) -> None:
        """Ask, one question after the other, until something is done."""
        async with self._world.client(120) as client:
            while not done.done():
                (asked,) = questions(self._dice, self._traffic, 1)
                with suppress(httpx.TransportError):
                    answer = await ask(client, asked)
                    if isinstance(answer, Answer):
                        self._answers.append(answer)
                await asyncio.sleep(_ASK_EVERY_S)

    def differences(self, log: Log) -> list[str]:
        """How some of the answers so far differ from what was true then. What that was where days are forgotten, the
        reference cannot tell."""
        if self._world.forgets:
            self._answers, self.checked = [], 0
            return []
        chosen = sorted(self._dice.sample(range(len(self._answers)), min(len(self._answers), _MOST_CHECKED)))
        answers = [self._answers[number] for number in chosen]
        self._answers, self.checked = [], len(answers)
        found = [words for answer in answers for words in answer.differences(log.at(answer.ledger))]
        log.at(log.next)
        return found


class QuietPoint:
    """Looks at a world in which nothing is on its way."""

    def __init__(self, world: World, log: Log, shadow: Shadow) -> None:
        self._world = world
        self._log = log
        self._shadow = shadow

    async def differences(self, acked: set[tuple[str, bytes]], asked: list[Asked]) -> list[str]:
        """Everything that is not as it should be; at most some of each kind."""
        log = self._log
        found = [f"acknowledged, but not in the log: {value!r}" for _, value in acked - log.values][:_MOST_SHOWN]
        found += [f"bad, but no dead letter: {place}" for place in log.bad - log.buried][:_MOST_SHOWN]
        found += [f"a dead letter of a good event: {place}" for place in log.buried - log.bad][:_MOST_SHOWN]
        found += await self._stored()
        found += await self._answers(asked)
        return found

    async def _answers(self, asked: list[Asked]) -> list[str]:
        found: list[str] = []
        async with self._world.client(120) as client:
            for one in asked:
                answer = await ask(client, one)
                if isinstance(answer, Answer) and answer.ledger != self._log.next:
                    found.append(f"an answer of {answer.ledger}, the log ends at {self._log.next}")
                elif self._world.forgets:
                    found += await self._differs_from_shadow(one, answer)
                elif isinstance(answer, str):
                    found.append(f"no answer at a quiet point: {answer} for {one}")
                else:
                    found += answer.differences(self._log.reference)
        return found

    async def _differs_from_shadow(self, asked: Asked, answer: Answer | str) -> list[str]:
        """Of what has been forgotten only who forgot it by the same log can tell. Which minutes count as a whole is
        a matter of how wide their zones have become, so that inexact answers need not be the same."""
        path, body = asked
        other = await self._shadow.asked(path, body, answer.now_us if isinstance(answer, Answer) else 0)
        if isinstance(answer, str):
            return [] if _NO_RECORDS in answer and other.status_code == 422 else [f"{asked}: {answer}, {other.text}"]
        if other.status_code != 200:
            return [f"{asked}: an answer instead of {other.text}"]
        if answer.exact and "x-runtally-exact" not in other.headers:
            return answer.differs_from(other.json())
        return []

    async def _stored(self) -> list[str]:
        verified = await verify(self._world.settings, None, lambda _done, _total: None)
        found = [f"verify: {one}" for one in verified.named[:_MOST_SHOWN]]
        await self._shadow.follow()
        generation = await self._world.generation()
        return found + await self._shadow.differences(self._world.settings, generation)

"""The world of the model: a played log, a real Valkey, workers that may hold the same shard, a reader, and commands
that make the data anew from the log.

Each method is something that happens, and checks what has to hold then: a write succeeds exactly when the ledger is as
its writer left it, and an answer is the reference's on the prefix of the log that it names.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from runtally.errors import BadRequestError, FencedError, NotReadyError, ServerLostError
from runtally.ops.verify import verify
from runtally.settings import Settings
from runtally.store.keys import Keys, live_key
from runtally.store.ledger import GENERATION
from runtally.store.link import Link
from runtally.store.rebuild import Request
from runtally.store.shard import Shard, shard

from ..api.living import asked, check_count, check_history, counted, living
from ..chaos.shadow import contents, differences
from .command import Command, CrashError, played
from .few import take_few_for_many
from .log import SHARDS, PlayedLog
from .snapshot import Snapshot

Stand = tuple[str, int, int]
"""Epoch, seq and next offset of a ledger."""

WORKERS: Final = 3
COMMANDS: Final = 2
_FAR: Final = 1 << 61
"""No clock is wrong."""


@dataclass(slots=True)
class Holder:
    """A worker's hold on a shard of a generation. `left`: the ledger as it left it; None: it has to open the shard
    first. `rewritten`: the ledger was put back since, and be it as it was: a commit may be refused for that."""

    shard: Shard
    generation: str
    left: Stand | None = None
    rewritten: bool = False


class World:
    """All of it. With `forgets` there are retentions, and no reference can tell what is true."""

    def __init__(self, settings: Settings, *, forgets: bool) -> None:
        self.settings = settings.model_copy(update={"max_clock_skew": _FAR})
        self.forgets = forgets
        self.log = PlayedLog()
        self._played = contextlib.ExitStack()
        self._played.enter_context(played())
        self._redis = Redis.from_url(settings.redis_url, protocol=2)
        self._link = Link(self._redis)
        self._snapshot = Snapshot(self._redis)
        self._followed = GENERATION
        self._holders: dict[tuple[int, str], Holder] = {}
        self._commands: list[Command | None] = [None] * COMMANDS

    async def start(self) -> None:
        """An empty Redis, of which one worker has opened all shards."""
        await self._redis.flushall()
        for worker in range(WORKERS):
            for name in SHARDS:
                self._holders[worker, name] = self._new(name, GENERATION)
        for name in SHARDS:
            await self._open(self._holders[0, name])
        self._living = living(self.settings)
        self._service = await self._living.__aenter__()

    def take_few_for_many(self) -> None:
        """See `few`."""
        take_few_for_many(self._played.enter_context(pytest.MonkeyPatch.context()))

    async def end(self, questions: list[tuple[dict[str, Any], int]]) -> None:
        """Whatever happened, when all has been applied the cells are right, and all answers."""
        try:
            for number in range(COMMANDS):
                await self.end_command(number)
            await self.catch_up()
            found = await verify(self.settings, None, lambda done, total: None)
            assert found.same, found.named
            for name in SHARDS:
                assert not await self._differences(name)
            for number, (body, now) in enumerate(questions):
                await self.ask(body, now, ("cells", "count")[number % 2])
        finally:
            await self.close()

    async def close(self) -> None:
        """Disconnect."""
        self._played.close()
        await self._living.__aexit__(None, None, None)
        for holder in self._holders.values():
            await holder.shard.close()
        await self._link.close()
        await self._redis.aclose()

    # -- workers

    async def take_over(self, worker: int, name: str) -> None:
        """A rebalance, or a worker that looks again: from now on only this one may write."""
        await self._open(self._holders[worker, name])

    async def replace(self, worker: int, name: str) -> None:
        """A process ends and another one begins in its place, which knows nothing."""
        await self._holders[worker, name].shard.close()
        self._holders[worker, name] = self._new(name, await self.live() or GENERATION)

    async def apply(self, worker: int, name: str, size: int) -> None:
        """Commit a batch; a zombie is refused, and has changed nothing."""
        await self._apply(self._holders[worker, name], size)

    async def expire(self, worker: int, name: str, steps: int) -> None:
        """Begin to put away what is old, and perhaps not come to the end."""
        holder = self._holders[worker, name]
        batch = self.log.batch(name, (await self._left(holder))[2], 1)
        for _ in range(steps if batch is not None else 0):
            if holder.left is not None:
                assert batch is not None
                await self._write(holder, functools.partial(holder.shard.expire, batch.watermark_us))

    async def rebuild(self, worker: int, name: str, steps: int) -> None:
        """Do some days of a rebuild that is asked for."""
        holder = self._holders[worker, name]
        await self._left(holder)
        for _ in range(steps):
            if holder.left is not None:
                await self._write(holder, holder.shard.step)

    async def ask_for_rebuild(self, name: str) -> None:
        """Somebody asks for a shard's cells to be made anew."""
        await Request(self._link, self.settings, name, await self.live() or GENERATION).ask()

    async def deliver_wrongly(self, worker: int, name: str, size: int, shift: int) -> None:
        """A batch comes once more, or one before it went missing: it is refused."""
        holder = self._holders[worker, name]
        left = await self._left(holder)
        batch = self.log.batch(name, max(0, left[2] + shift), size)
        if batch is None or batch.first_offset == left[2]:
            return
        before = await self._stand(holder)
        with pytest.raises(FencedError):
            await holder.shard.apply(batch)
        holder.left = None
        assert await self._stand(holder) == before

    async def catch_up(self, size: int = 50) -> None:
        """Everything that is in the log is applied by the first worker."""
        for name in SHARDS:
            owner = self._holders[0, name]
            if owner.left != await self._stand(owner) or owner.generation != await self.live():
                await self._open(owner)
            while (await self._left(owner))[2] < self.log.end(name):
                await self._apply(owner, size)

    async def lose_outcome(self, worker: int, name: str, size: int, *, committed: bool, dies: bool) -> None:
        """Redis goes away during a commit, before or after it was done; or the worker does."""
        holder = self._holders[worker, name]
        if holder.left is None or holder.rewritten or holder.left != await self._stand(holder):
            await self._open(holder)
        assert holder.left is not None
        batch = self.log.batch(name, holder.left[2], size)
        if batch is None:
            return
        fence: Any = holder.shard._fence  # type: ignore[attr-defined]
        commit = fence.commit

        async def interrupted(*arguments: Any) -> None:
            if committed:
                await commit(*arguments)
            raise CrashError if dies else ServerLostError("Redis is away")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fence, "commit", interrupted)
            with pytest.raises((CrashError, ServerLostError)):
                await holder.shard.apply(batch)
        holder.left = None
        if dies:
            await self.replace(worker, name)

    async def overtake(self, slow: int, quick: int, name: str, size: int, trips: int, *, more: bool) -> None:
        """Another worker takes the shard, and may write to it, while this one is at work on a batch: after so many of
        its round trips to Redis."""
        holder, other = self._holders[slow, name], self._holders[quick, name]
        if holder.left is None or holder.rewritten or holder.left != await self._stand(holder):
            await self._open(holder)
        assert holder.left is not None
        batch = self.log.batch(name, holder.left[2], size)
        if batch is None or holder.generation != await self.live():
            return
        link: Any = holder.shard._fence._link  # type: ignore[attr-defined]
        call = link.call
        left = trips

        async def overtaken(commands: Any) -> Any:
            nonlocal left
            left -= 1
            if left == -1:
                await self._open(other)
                if more:
                    await self._apply(other, size)
            return await call(commands)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(link, "call", overtaken)
            try:
                await holder.shard.apply(batch)
            except FencedError:
                assert left < 0
                holder.left = None
            else:
                assert left >= 0, "a worker that was overtaken has written"
                holder.left = await self._stand(holder)

    async def pulse(self, worker: int, name: str) -> None:
        """A worker sees whether the ledger is as it left it."""
        holder = self._holders[worker, name]
        if holder.left is None:
            return
        before = await self._stand(holder)
        position = holder.left[2] if holder.left[2] == self.log.end(name) else None
        same = await holder.shard.pulse(position)
        assert same is (before == holder.left)
        holder.left, holder.rewritten = await self._stand(holder) if same else None, False

    def _new(self, name: str, generation: str) -> Holder:
        return Holder(shard(self._redis, self.settings, name, generation), generation)

    async def _left(self, holder: Holder) -> Stand:
        if holder.left is None:
            await self._open(holder)
        assert holder.left is not None
        return holder.left

    async def _open(self, holder: Holder) -> None:
        """Open the shard of the generation that is live: of another one it cannot be."""
        name = holder.shard.name
        live = await self.live()
        before = await self._stand(holder)
        if live not in (None, holder.generation):
            assert live is not None
            with pytest.raises(FencedError):
                await holder.shard.open(self.log.ends(name))
            assert await self._stand(holder) == before
            await holder.shard.close()
            new = self._new(name, live)
            holder.shard, holder.generation = new.shard, new.generation
            before = await self._stand(holder)
        at = await holder.shard.open(self.log.ends(name))
        assert at == (0 if before is None else before[2])
        holder.left, holder.rewritten = await self._stand(holder), False

    async def _apply(self, holder: Holder, size: int) -> None:
        left = await self._left(holder)
        batch = self.log.batch(holder.shard.name, left[2], size)
        if batch is None:
            return
        await self._write(holder, functools.partial(holder.shard.apply, batch))
        if holder.left is not None:
            assert (holder.left[0], holder.left[2]) == (left[0], batch.next_offset)
            assert holder.left[1] > left[1]

    async def _write(self, holder: Holder, write: Callable[[], Awaitable[Any]]) -> None:
        """Some write: refused, and without an effect, exactly if the ledger is not as the worker left it, or may have
        been otherwise meanwhile. What has nothing to do need not notice that."""
        before = await self._stand(holder)
        if before == holder.left:
            try:
                await write()
            except FencedError:
                assert holder.rewritten, "refused though nobody else has written"
                assert await self._stand(holder) == before
                holder.left = None
            else:
                holder.left = await self._stand(holder)
            # What had nothing to do has not looked.
            holder.rewritten &= holder.left == before
            return
        try:
            assert await write() is False, "a zombie has written"
        except FencedError:
            holder.left = None
        assert await self._stand(holder) == before

    # -- Redis

    async def keep(self) -> None:
        """Remember what Redis holds."""
        await self._snapshot.keep()

    async def roll_back(self, node: str | None) -> None:
        """Redis, or what one of its nodes held (a shard's name, `live`), is what it was when it was last remembered."""
        await self._snapshot.restore(node)
        for (_, name), holder in self._holders.items():
            holder.rewritten |= node in (None, name)
        self._disturb()

    async def flush(self) -> None:
        """Redis is emptied."""
        await self._redis.flushall()
        self._disturb()

    # -- all data anew

    async def rebuild_from_log(self, number: int, steps: int, fuse: int | None) -> None:
        """A rebuild from the log begins or goes on, at most to where it waits for the so manyeth time; with a fuse it
        crashes after so many writes."""
        command = self._commands[number]
        if command is None or command.over:
            command = self._commands[number] = Command(self.settings, self.log)
            command.disturbed = await self.live() is None
        for other in self._commands:
            if other is not None and other is not command:
                other.disturbed = True
                command.disturbed |= not other.over
        done = None
        while steps and not command.over:
            steps -= 1
            done = await command.go_on(fuse)
        if done is not None:
            assert command.disturbed or await self.live() == done.generation
            assert not done.lost

    async def end_command(self, number: int) -> None:
        """A rebuild from the log ends where it is."""
        command = self._commands[number]
        if command is not None:
            await command.end()

    def _disturb(self) -> None:
        for command in self._commands:
            if command is not None:
                command.disturbed = True

    # -- answers

    async def ask(self, body: dict[str, Any], now: int, form: str) -> None:
        """An answer is what the reference makes of the log up to where the live ledgers are; or there is none."""
        # Where nothing says which generation is live, who answers goes on with the one before.
        self._followed = await self.live() or self._followed
        stands = {name: await self._stand_of(self._followed, name) for name in SHARDS}
        ledger = {name: stand[2] for name, stand in stands.items() if stand is not None}
        try:
            answer: Any = await (counted if form == "count" else asked)(self._service, body, now)
        except NotReadyError:
            assert len(ledger) < len(SHARDS), "there was an answer"
            return
        except BadRequestError as error:
            if self.forgets and "RUNTALLY_RAW_RETENTION" in str(error):
                return
            raise
        assert answer.stand.ledger == ledger
        if self.forgets:
            return
        reference = self.log.reference(ledger)
        if form == "count":
            check_count(answer, reference, body)
        else:
            check_history(answer, reference, body, now)

    # -- looking

    async def _differences(self, name: str) -> list[str]:
        """How a shard differs from what one worker makes of the same log without a fault."""
        settings = self.settings.model_copy(update={"redis_prefix": f"{self.settings.redis_prefix}-clean"})
        clean = shard(self._redis, settings, name, GENERATION)
        try:
            await clean.open(self.log.ends(name))
            while (batch := self.log.batch(name, clean.next_offset, 7)) is not None:
                await clean.apply(batch)
        finally:
            await clean.close()
        have = await contents(self._redis, self.settings, name, await self.live() or GENERATION)
        return differences(have, await contents(self._redis, settings, name))

    async def live(self) -> str | None:
        """The live generation; None when Redis is empty."""
        found = await self._redis.hget(live_key(self.settings.redis_prefix), "generation")
        return None if found is None else found.decode()

    async def _stand(self, holder: Holder) -> Stand | None:
        return await self._stand_of(holder.generation, holder.shard.name)

    async def _stand_of(self, generation: str, name: str) -> Stand | None:
        key = Keys(self.settings.redis_prefix, generation, name).ledger
        epoch, seq, next_ = await self._redis.hmget(key, "epoch", "seq", "next")
        return None if epoch is None else (epoch.decode(), int(seq), int(next_))

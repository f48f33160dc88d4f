"""One connection to Redis, many commands a round trip.

redis-py's pipelines decode each reply through a callback table; a shard's batches are thousands of commands
whose replies are wanted as they are, so this speaks through redis-py's connection (its pool, address,
authentication and TLS) and hiredis' packing without the client's layer above it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from hiredis import pack_command
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ExecAbortError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from ..errors import ServerLostError, UnfitServerError

Command = tuple[Any, ...]
Taker = Callable[[list[Any]], None]
"""What gets the replies of a transaction."""
_TIMEOUT_S = 30.0
_SENT_AT_ONCE = 1 << 20
_SENT_EARLY = 1 << 12
"""Enough for Redis to begin with, while the rest is being packed."""
_FULL = "Redis is full (maxmemory reached under noeviction): raise maxmemory; nothing is lost meanwhile"


class Link:
    """A connection of its own, for one task at a time; reconnects by itself on the next call."""

    def __init__(self, redis: Redis) -> None:
        self._pool = redis.connection_pool
        self._connection: AbstractConnection | None = None

    async def call(self, commands: Sequence[Command]) -> list[Any]:
        """Send all commands at once and return their replies in order.

        Raises `ServerLostError` when Redis is away, loading or full (what was sent may or may not have been done), the
        first error reply otherwise, after all replies have been read.
        """
        if not commands:
            return []
        async with self._connected() as connection:
            await self._send(connection, commands)
            return await self._receive(connection, len(commands))

    async def transaction(self, commands: Sequence[Command]) -> list[Any] | None:
        """MULTI, the commands, EXEC: their replies, or None when a watched key has changed."""
        replies = await self.call([("MULTI",), *commands, ("EXEC",)])
        done: list[Any] | None = replies[-1]
        _raise_failures(done)
        return done

    async def commit(self, commands: Sequence[Command], then: Sequence[Command]) -> list[Any] | None:
        """As `transaction`, and further commands in the same round trip: the replies of those."""
        replies = await self.call([("MULTI",), *commands, ("EXEC",), *then])
        done: list[Any] | None = replies[len(commands) + 1]
        _raise_failures(done)
        return None if done is None else replies[len(commands) + 2 :]

    async def transactions(self, groups: Iterable[Sequence[Command]], takers: Iterable[Taker]) -> None:
        """Send every group of commands in a MULTI of its own, and give its replies to the taker of the same index while
        Redis works on those that follow. For reads: nothing can be watched.

        Raises as `call` does, and what a taker raises.
        """
        async with self._connected() as connection:
            sizes: list[int] = []
            try:
                await self._send(connection, _in_transactions(groups, sizes), _SENT_EARLY)
                for size, taker in zip(sizes, takers, strict=True):
                    done = (await self._receive(connection, size))[-1]
                    _raise_failures(done)
                    taker(done)
            except BaseException:
                # Replies that nobody has read may be on their way.
                await self.close()
                raise

    async def close(self) -> None:
        """Give the connection back, closed: nothing half-read is ever reused."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AbstractConnection]:
        """The connection, for as long as a call may take; what fails is told apart."""
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                yield await self._usable()
        except asyncio.CancelledError:
            await self.close()
            raise
        except (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError, BusyLoadingError) as error:
            await self.close()
            if isinstance(error, AuthenticationError):
                raise UnfitServerError(f"Redis refused the login: {error}. Check RUNTALLY_REDIS_URL") from None
            raise ServerLostError(f"Redis is away: {error}") from error
        except (AuthenticationError, NoPermissionError) as error:
            raise UnfitServerError(f"Redis refused the login: {error}. Check RUNTALLY_REDIS_URL") from None
        except ReadOnlyError as error:
            await self.close()
            raise ServerLostError(f"Redis is a read-only replica now: {error}") from error
        except OutOfMemoryError as error:
            raise ServerLostError(_FULL) from error

    async def _usable(self) -> AbstractConnection:
        if self._connection is None:
            self._connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        elif not self._connection.is_connected:
            # redis-py would connect again without a word, and what is under WATCH would not be any more.
            raise RedisConnectionError("the connection has been closed")
        return self._connection

    async def _send(
        self, connection: AbstractConnection, commands: Iterable[Command], at_once: int = _SENT_AT_ONCE
    ) -> None:
        packed: list[bytes] = []
        size = 0
        for command in commands:
            packed.append(pack_command(command))
            size += len(packed[-1])
            if size > at_once:
                await connection.send_packed_command(b"".join(packed))
                # To pack all of a very large commit takes a while; others get their turn.
                await asyncio.sleep(0)
                packed, size = [], 0
        await connection.send_packed_command(b"".join(packed))

    async def _receive(self, connection: AbstractConnection, count: int) -> list[Any]:
        replies: list[Any] = []
        failure: ResponseError | None = None
        # Not through the connection: for each reply it has a timer and more, and a cold question has thousands. The
        # whole call has a time limit.
        parser: Any = connection._parser
        for _ in range(count):
            reply = await parser.read_response(disable_decoding=True)
            replies.append(reply)
            # The reply that says why comes first; an aborted EXEC only says that something was wrong.
            if isinstance(reply, ResponseError) and (failure is None or isinstance(failure, ExecAbortError)):
                failure = reply
        if failure is not None:
            raise failure
        return replies


class ReadLink(Link):
    """For reads alone, never a WATCH, which would be lost without a word: a connection that the server has closed since
    its last use, as a restart does, is replaced instead of failing a question."""

    async def _usable(self) -> AbstractConnection:
        # What can be read before anything was asked is the end.
        if self._connection is not None and await self._connection.can_read():
            await self.close()
        return await super()._usable()


def _in_transactions(groups: Iterable[Sequence[Command]], sizes: list[int]) -> Iterator[Command]:
    """The commands of all groups, each in a MULTI; its number of replies is appended to `sizes`."""
    for commands in groups:
        sizes.append(len(commands) + 2)
        yield ("MULTI",)
        yield from commands
        yield ("EXEC",)


def _raise_failures(done: list[Any] | None) -> None:
    """Raise what went wrong inside of a transaction."""
    for reply in done or ():
        if isinstance(reply, Exception):
            raise reply

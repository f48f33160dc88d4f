"""How a command comes to the live data."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from ..errors import UserError
from ..settings import Settings
from ..store.ledger import Live, read_live
from ..store.link import Link

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def live_data(stack: AsyncExitStack, redis: Redis, settings: Settings) -> tuple[Link, Live]:
    """A link, closed with the stack as the client is, and what is live.

    Raises `UserError` when there are no data, `ServerLostError`.
    """
    stack.push_async_callback(redis.aclose)
    link = Link(redis)
    stack.push_async_callback(link.close)
    live = await read_live(link, settings)
    if live is None:
        raise UserError(f"there are no data under the prefix {settings.redis_prefix!r}: start a worker first")
    return link, live

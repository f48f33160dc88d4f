"""What Redis held once, and what its nodes go back to."""

from __future__ import annotations

from typing import Final

from redis.asyncio import Redis

from .log import SHARDS

NODES: Final = [None, *SHARDS, "live"]
"""What goes back together: all of Redis, or the node that holds a shard or the key of all shards."""


class Snapshot:
    """All keys as they were when they were last remembered; none at first."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._held: dict[bytes, bytes] = {}

    async def keep(self) -> None:
        """Remember what Redis holds."""
        self._held = {key: await self._redis.dump(key) async for key in self._redis.scan_iter(count=1000)}

    async def restore(self, node: str | None) -> None:
        """What a node holds is what it held."""
        held = [key async for key in self._redis.scan_iter(count=1000) if _is_on(node, key)]
        if held:
            await self._redis.delete(*held)
        for key, value in self._held.items():
            if _is_on(node, key):
                await self._redis.restore(key, 0, value, replace=True)


def _is_on(node: str | None, key: bytes) -> bool:
    """Whether a key is on the node that holds a shard, of whatever generation, or the key of all shards."""
    if node is None:
        return True
    if node == "live":
        return b"{" not in key
    return key.partition(b"}")[0].endswith(f".{node}".encode())

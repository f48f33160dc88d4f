"""Taking very many task runs of deleted flow runs out of raw buckets without holding Redis up.

Readers must see a flow run go as a whole, so it goes in one commit; but half a million fields to delete are a second in
which Redis answers nobody. So of the buckets that lose most, what stays is put together aside, a piece at a time,
under a key that no reader knows, and the commit puts that in the bucket's place: the same few commands, however many
runs go. The keys aside are watched, so that a commit never finds one expired; what an ended worker leaves expires.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from .fence import Fence
from .link import Command
from .records import FLOW_RUN_AT, HAS_FLOW_RUN, WIDTH

AT_ONCE: Final = 20_000
"""So many fields a commit deletes by name, some 40 ms of Redis; of more, the buckets that lose most are replaced."""
_PIECE: Final = 1_000
_KEPT_S: Final = 3600

_KEEP: Final = f"""
local dead, stays, kept = {{}}, {{}}, 0
for at = 4, #ARGV do dead[ARGV[at]] = true end
local function put()
  if #stays > 0 then redis.call('HSET', KEYS[2], unpack(stays)) end
  kept, stays = kept + #stays / 2, {{}}
end
local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
for at = 1, #page[2], 2 do
  local record = page[2][at + 1]
  local owned = string.byte(record, 1) % {2 * HAS_FLOW_RUN} >= {HAS_FLOW_RUN}
  if not (owned and dead[string.sub(record, {FLOW_RUN_AT + 1}, {WIDTH})]) then
    stays[#stays + 1] = page[2][at]
    stays[#stays + 1] = record
    if #stays == 2000 then put() end
  end
end
put()
redis.call('EXPIRE', KEYS[2], ARGV[3])
return {{page[1], kept}}
"""
"""Server-side: look at a piece of a raw bucket (KEYS[1]) from a cursor on, and put what is of none of the flow runs
(ARGV but the first three) aside (KEYS[2]); the next cursor, and how many those were."""


class Gone:
    """Which runs a batch takes out of raw buckets: some `singly`, others with their whole flow runs, which are named
    too. By bucket."""

    __slots__ = ("flow_runs", "singly", "with_them")

    def __init__(self) -> None:
        self.singly: defaultdict[int, list[bytes]] = defaultdict(list)
        self.with_them: defaultdict[int, list[bytes]] = defaultdict(list)
        self.flow_runs: list[bytes] = []

    async def commands(self, fence: Fence) -> list[Command]:
        """What takes them out, to be committed before anything is put there. Between `begin` and `commit`."""
        commands: list[Command] = []
        aside: list[bytes] = []
        left = AT_ONCE
        for bucket, runs in sorted(self.with_them.items(), key=lambda item: len(item[1])):
            left -= len(runs)
            if left >= 0:
                self.singly[bucket] += runs
                continue
            raw, key = fence.keys.raw(bucket), fence.keys.aside(fence.ledger.epoch, bucket)
            commands.append(("UNLINK", raw))
            if await self._put_aside(fence, raw, key):
                aside.append(key)
                commands += [("RENAME", key, raw), ("PERSIST", raw)]
        if aside:
            await fence.read([("WATCH", *aside)])
        return commands + [("HDEL", fence.keys.raw(bucket), *runs) for bucket, runs in self.singly.items()]

    async def _put_aside(self, fence: Fence, raw: bytes, key: bytes) -> bool:
        """Whether anything stays."""
        cursor, kept = b"0", 0
        while True:
            command = ("EVAL", _KEEP, 2, raw, key, cursor, _PIECE, _KEPT_S, *self.flow_runs)
            ((cursor, more),) = await fence.read([command])
            kept += int(more)
            if cursor == b"0":
                return kept > 0

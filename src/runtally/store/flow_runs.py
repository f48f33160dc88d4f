"""A reader's copy of a shard's flow runs, kept up to date with each refresh."""

from __future__ import annotations

from typing import Final

from ..core.changes import FLOW_RUN
from ..core.versions import Stored
from .keys import Keys
from .link import Command
from .records import DEAD, decode_entity

_STATES: Final = len(FLOW_RUN.state_fields)
_READ: Final = """
local since = tonumber(ARGV[1])
local found = {}
if since < 0 then
  for bucket = 0, 4095 do
    local pairs = redis.call('HGETALL', KEYS[2] .. bucket)
    for _, part in ipairs(pairs) do found[#found + 1] = part end
  end
else
  for _, id in ipairs(redis.call('ZRANGE', KEYS[1], '(' .. since, '+inf', 'BYSCORE')) do
    local bucket = (string.byte(id, 15) % 16) * 256 + string.byte(id, 16)
    found[#found + 1] = id
    found[#found + 1] = redis.call('HGET', KEYS[2] .. bucket, id) or ''
  end
end
return found
"""


class FlowRuns:
    """Flow runs by id; None stands for a deleted one. `seq` is the shard's state that they are of, −1: none yet.

    `changed` counts changes of each id, so that what was derived from one can be told from what has to be derived anew.
    """

    def __init__(self) -> None:
        self.seq = -1
        self.by_id: dict[bytes, Stored | None] = {}
        self.journal: list[bytes] = []

    def read(self, keys: Keys, since: int) -> Command:
        """The command that gives what changed since; its reply goes to `take`."""
        prefix = keys.flow_runs(bytes(16))[:-1]
        return ("EVAL", _READ, 2, keys.touched_ids, prefix, since)

    def take(self, reply: list[bytes], seq: int) -> None:
        """Move to the state that the reply shows."""
        for identity, record in zip(reply[::2], reply[1::2], strict=True):
            self.by_id[identity] = None if record == DEAD else decode_entity(record, _STATES)
            self.journal.append(identity)
        self.seq = seq

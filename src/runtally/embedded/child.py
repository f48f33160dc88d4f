"""A child process with a log file that never outlives its parent.

A tiny shell watches a pipe that only the parent holds: when the parent is gone, however it went, the pipe ends and
the shell kills the child. (Linux' parent-death signal would do it without a shell, but it is tied to the thread
that started the child, and no other system has it.) The child has a session of its own, so that Ctrl-C in the terminal
reaches the parent alone, which then stops its children in order.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from ..errors import SystemError_

_WATCH = 'read -r _; kill -KILL "$0" 2>/dev/null'
_TAIL_BYTES = 16 << 10


class ChildError(SystemError_):
    """A child that did not start or died; the text ends with the end of its log."""


class Child:
    """One process. Not started until `start`; can be started again after it ended."""

    def __init__(
        self, name: str, command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = log
        self._command = [str(part) for part in command]
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        self._wanted = False

    @property
    def pid(self) -> int:
        """The process id; 0 before the first start."""
        return self._process.pid if self._process else 0

    @property
    def returncode(self) -> int | None:
        """None while it runs and before the first start; −n when signal n ended it."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Start the process; its output is appended to the log."""
        self._wanted = True
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = self._spawn(output)
        self._watch = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _spawn(self, output: BinaryIO) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **self._environment},
            start_new_session=True,
        )

    def wait_ready(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Poll `ready` until it holds. Raises `ChildError` when the child ends or the time is over."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.alive():
                raise ChildError(self.obituary())
            if time.monotonic() > deadline:
                self.stop(0)
                raise ChildError(f"{self.name} was not ready within {timeout_s:g} s; {self._log_end()}")
            time.sleep(0.01)

    def alive(self) -> bool:
        """Whether the process runs."""
        if self._process is None:
            return False
        if self._process.poll() is None:
            return True
        self._unwatch()
        return False

    def died(self) -> bool:
        """Whether it ended although nobody asked it to."""
        return self._wanted and self._process is not None and not self.alive()

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it runs."""
        if self.alive() and self._process:
            self._process.send_signal(number)

    def terminate(self) -> None:
        """Ask the process to end, and return at once."""
        self._wanted = False
        self.signal(signal.SIGTERM)

    def stop(self, grace_s: float = 5.0) -> None:
        """SIGTERM, then SIGKILL when it does not end within `grace_s`; returns when the process is gone."""
        self._wanted = False
        if self._process is None:
            return
        if grace_s > 0:
            self.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        if self.alive():
            self._process.kill()
            self._process.wait()
        self._unwatch()

    def tail(self, lines: int = 15) -> str:
        """The last lines of the log."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                text = file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def obituary(self) -> str:
        """How it ended, with the end of its log."""
        code = self.returncode
        if code is None:
            how = "is running"
        elif code < 0:
            how = f"was ended by signal {signal.Signals(-code).name}"
        else:
            how = f"ended with exit code {code}"
        return f"{self.name} {how}; {self._log_end()}"

    def _log_end(self) -> str:
        end = self.tail()
        return f"the end of {self.log}:\n{end}" if end else f"{self.log} is empty"

    def _unwatch(self) -> None:
        # Before the pid is free for others: a watch that outlived its child could kill a stranger.
        if self._watch is None:
            return
        self._watch.kill()
        self._watch.wait()
        if self._watch.stdin:
            self._watch.stdin.close()
        self._watch = None

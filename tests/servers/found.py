"""Which servers this run of the tests uses: URLs in the environment, else Docker, else local ones.

`kafka()` is a real Apache Kafka or the reason why there is none; whatever needs it is marked `kafka`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runtally.embedded.valkey import Valkey

from . import docker, jars


class Server(Protocol):
    """What all of them can do; `start` returns the address."""

    def start(self) -> str:
        """Start it and return its address."""

    def stop(self) -> None:
        """Stop it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """`words` for the head of the report, and how to make the server in a folder; None = there is none, `words` say
    why."""

    words: str
    make: Callable[[Path], Server] | None


@dataclass(frozen=True, slots=True)
class _Given:
    address: str

    def start(self) -> str:
        return self.address

    def stop(self) -> None:
        """It is not ours."""


def kafka() -> Choice:
    """The real Kafka."""
    given = os.environ.get("RUNTALLY_TEST_KAFKA")
    if given:
        return Choice(f"at {given}", lambda _: _Given(given))
    if docker.answers():
        return Choice(f"in Docker ({docker.KAFKA_IMAGE})", lambda _: docker.DockerKafka())
    lack = jars.missing()
    if lack is None:
        return Choice(f"{jars.VERSION} from jars ({jars.java()})", jars.JarKafka)
    return Choice(f"none: {lack}; name one in RUNTALLY_TEST_KAFKA", None)


def redis() -> Choice:
    """Redis or Valkey. It is emptied: never name one that holds anything."""
    given = os.environ.get("RUNTALLY_TEST_REDIS")
    if given:
        return Choice(f"at {given}", lambda _: _Given(given))
    if docker.answers():
        return Choice(f"in Docker ({docker.VALKEY_IMAGE})", lambda _: docker.DockerValkey())
    return Choice("Valkey from the wheel", Valkey)

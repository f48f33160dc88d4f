"""Settings of one worker, and servers that a test may stop and start."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtally.embedded import ports
from runtally.embedded.valkey import Valkey
from runtally.settings import Settings

from ..servers import jars

Make = Callable[..., Settings]


@pytest.fixture
def worker_settings(settings: Make) -> Make:
    """Settings with few partitions and a metrics port that the test knows."""

    def make(**given: Any) -> Settings:
        return settings(**{"partitions": 4, "metrics_port": ports.any_free(), **given})

    return make


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A Valkey that is not running yet and belongs to this test."""
    server = Valkey(tmp_path / "valkey")
    yield server
    server.stop()


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[jars.JarKafka]:
    """A Kafka that is not running yet and belongs to this test."""
    lack = jars.missing()
    if lack is not None:
        if os.environ.get("CI"):
            pytest.fail(f"no Kafka that can be stopped on CI: {lack}")
        pytest.skip(f"needs a Kafka that can be stopped; {lack}")
    server = jars.JarKafka(tmp_path / "kafka")
    yield server
    server.stop()

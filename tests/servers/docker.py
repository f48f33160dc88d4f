"""Kafka and Valkey in Docker, where an engine answers."""

from __future__ import annotations

import functools
import shutil
import subprocess
from typing import Any

from runtally.embedded import ports
from runtally.embedded.valkey import CONFIG

from .jars import VERSION

KAFKA_IMAGE = f"apache/kafka:{VERSION}"
VALKEY_IMAGE = "valkey/valkey:9"


@functools.cache
def answers() -> bool:
    """Whether a Docker engine answers."""
    if shutil.which("docker") is None:
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=10, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


class DockerKafka:
    """A one-node Kafka in KRaft mode."""

    def __init__(self) -> None:
        self.port = ports.any_free()
        self.address = f"{ports.HOST}:{self.port}"
        self._container: Any = None

    def start(self) -> str:
        """Start it, wait until it serves, and return its address."""
        from testcontainers.core.container import DockerContainer
        from testcontainers.core.wait_strategies import LogMessageWaitStrategy

        environment = {
            "KAFKA_NODE_ID": "1",
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
            "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{self.address}",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
            "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
            "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        }
        container = DockerContainer(KAFKA_IMAGE).with_bind_ports(9092, self.port)
        for name, value in environment.items():
            container = container.with_env(name, value)
        self._container = container.waiting_for(LogMessageWaitStrategy("Kafka Server started")).start()
        return self.address

    def stop(self) -> None:
        """Stop and remove it."""
        self._container.stop()


class DockerValkey:
    """A Valkey with the configuration of the embedded one."""

    def __init__(self) -> None:
        self.port = ports.any_free()
        self.url = f"redis://{ports.HOST}:{self.port}/0"
        self._container: Any = None

    def start(self) -> str:
        """Start it, wait until it answers, and return its URL."""
        from testcontainers.core.container import DockerContainer
        from testcontainers.core.wait_strategies import LogMessageWaitStrategy

        skipped = ("bind", "protected-mode", "daemonize", "logfile")
        options = " ".join(f"--{name} {value}" for name, value in CONFIG.items() if name not in skipped)
        container = DockerContainer(VALKEY_IMAGE).with_bind_ports(6379, self.port)
        container = container.with_command(f"valkey-server --protected-mode no {options}")
        self._container = container.waiting_for(LogMessageWaitStrategy("Ready to accept connections")).start()
        return self.url

    def stop(self) -> None:
        """Stop and remove it."""
        self._container.stop()

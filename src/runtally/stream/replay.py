"""An intake of records that workers have been through: what is not applied was sent elsewhere when they were."""

from __future__ import annotations

from typing import Any, Literal

from ..events.partition import Partitioner
from ..events.publish import Publisher
from ..metrics import Metrics
from ..settings import Settings
from .intake import Intake


class Replay(Intake):
    """Reads the records of one partition once more. Bad ones lie in the dead letters, and misplaced ones follow in the
    partition that they were forwarded to: nothing is sent again."""

    def __init__(
        self, settings: Settings, topic: Literal["runs", "catalog"], partition: int, partition_of: Partitioner
    ) -> None:
        super().__init__(settings, Publisher(settings), Metrics("worker"), topic, partition, partition_of)

    def _judge(self, *_: Any, **__: Any) -> None:
        """Workers let all of it pass."""

    async def _bury(self, *_: Any, **__: Any) -> None:
        """Done."""

    async def _forward(self, *_: Any, **__: Any) -> None:
        """Done."""

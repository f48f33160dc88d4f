"""An intake of records that workers have been through: what is not applied was sent elsewhere when they were."""

from __future__ import annotations

from typing import Any, Final, Literal

from ..events.publish import Publisher
from ..metrics import Metrics
from ..settings import Settings
from .intake import Intake

_NO_LIMIT: Final = 1 << 60


class Replay(Intake):
    """Reads the records of one partition once more. Bad ones lie in the dead letters, and misplaced ones follow in the
    partition that they were forwarded to: nothing is sent again."""

    def __init__(self, settings: Settings, topic: Literal["runs", "catalog"], partition: int, partitions: int) -> None:
        patient = settings.model_copy(update={"dead_letter_limit": _NO_LIMIT})
        super().__init__(patient, Publisher(settings), Metrics("worker"), topic, partition, partitions)

    async def _bury(self, *_: Any, **__: Any) -> None:
        return

    async def _forward(self, *_: Any, **__: Any) -> None:
        return

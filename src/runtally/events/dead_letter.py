"""Dead letters: where a refused event goes, with the reason, so that it never vanishes and never blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import BadEventError

MAX_VALUE_BYTES: Final = 64 << 10
_PREFIX: Final = "runtally-"

Header = tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record for the dead-letters topic: key and first 64 KiB of the original, and headers that say why
    (`runtally-reason`, `runtally-detail`) and from where (`-topic`, `-partition`, `-offset`, `-timestamp` in ms).
    """

    key: bytes | None
    value: bytes
    headers: Sequence[Header]

    @property
    def reason(self) -> str:
        """The reason to group by."""
        return dict(self.headers)[_PREFIX + "reason"].decode()


def dead_letter(
    error: BadEventError,
    *,
    topic: str,
    partition: int,
    offset: int,
    timestamp_ms: int,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[Header],
) -> DeadLetter:
    """The dead letter of a refused record; the original's headers come first, ours after."""
    said = {
        "reason": error.reason,
        "detail": error.detail[:1000],
        "topic": topic,
        "partition": str(partition),
        "offset": str(offset),
        "timestamp": str(timestamp_ms),
    }
    ours = [(_PREFIX + name, text.encode("utf-8", "replace")) for name, text in said.items()]
    return DeadLetter(key, (value or b"")[:MAX_VALUE_BYTES], [*headers, *ours])

"""Dead letters: where a refused event goes, with the reason, so that it never vanishes and never blocks.

A dead letter is the original record, shortened where it is long, and behind the original's headers ours: why
(`runtally-reason`, `runtally-detail`), from where (`runtally-topic`, `-partition`, `-offset`, `-timestamp` in ms) and
how long the value was (`runtally-bytes`; empty: there was none).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import BadEventError

MAX_VALUE_BYTES: Final = 64 << 10
_MAX_HEADERS_BYTES: Final = 64 << 10
_MAX_DETAIL: Final = 1000
_PREFIX: Final = "runtally-"
_OURS: Final = ("reason", "detail", "topic", "partition", "offset", "timestamp", "bytes")

Header = tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record for the dead-letters topic: key, first 64 KiB of the value, and the headers above."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]

    @property
    def reason(self) -> str:
        """The reason to group by."""
        return self._said("reason")

    @property
    def detail(self) -> str:
        """What exactly is wrong, and in which field."""
        return self._said("detail")

    @property
    def place(self) -> tuple[str, int, int]:
        """Topic, partition and offset of the original."""
        return self._said("topic"), int(self._said("partition")), int(self._said("offset"))

    @property
    def identity(self) -> tuple[str, int, int, int]:
        """Place and timestamp of the original: a dead letter that is written twice has the same, and a topic that was
        made anew has others."""
        return (*self.place, self.timestamp_ms)

    @property
    def is_ours(self) -> bool:
        """Whether it has our headers, and not only a place on the topic."""
        return {_PREFIX + name for name in _OURS} <= dict(self.headers).keys()

    @property
    def timestamp_ms(self) -> int:
        """The original's timestamp."""
        return int(self._said("timestamp"))

    @property
    def shortened(self) -> bool:
        """Whether the value is only the beginning of the original's."""
        return self.value is not None and len(self.value) < int(self._said("bytes"))

    @property
    def original_headers(self) -> list[Header]:
        """The original's own headers, those of an earlier dead letter among them."""
        return list(self.headers[: -len(_OURS)])

    def _said(self, name: str) -> str:
        return dict(self.headers)[_PREFIX + name].decode()


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
    """The dead letter of a refused record. Whatever the record holds, its dead letter fits into a message."""
    said = (
        error.reason,
        error.detail[:_MAX_DETAIL],
        topic,
        str(partition),
        str(offset),
        str(timestamp_ms),
        "" if value is None else str(len(value)),
    )
    ours = [(_PREFIX + name, text.encode("utf-8", "replace")) for name, text in zip(_OURS, said, strict=True)]
    return DeadLetter(
        None if key is None else key[:MAX_VALUE_BYTES],
        None if value is None else value[:MAX_VALUE_BYTES],
        [*_fitting(headers), *ours],
    )


def _fitting(headers: Sequence[Header]) -> Iterator[Header]:
    room = _MAX_HEADERS_BYTES
    for name, content in headers:
        room -= len(name) + len(content or b"")
        if room < 0:
            return
        yield name, content

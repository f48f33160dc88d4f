"""Identities: UUIDs in any spelling, or any other text, as 16 bytes."""

from __future__ import annotations

import re
import uuid
from binascii import unhexlify
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from ..core.changes import ENTITIES, EntityName
from ..errors import BadEventError
from .contract import bad

Mask = npt.NDArray[np.bool_]

MAX_ID_BYTES: Final = 250
_HYPHENATED: Final = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_SPELLING: Final = re.compile(
    rf"(?:urn:uuid:)?{_HYPHENATED}|[0-9a-f]{{32}}|\{{{_HYPHENATED}\}}", re.IGNORECASE | re.ASCII
)
_NAMESPACES: Final = {name: uuid.uuid5(uuid.NAMESPACE_URL, f"runtally:{name}") for name in ENTITIES}


def identity(entity: EntityName, text: str) -> bytes:
    """The 16 bytes of an id: a UUID's own, else uuid5 of the text in the entity's namespace.

    Raises `BadEventError` for an empty text or one over 250 bytes.
    """
    if len(text) == 36 and text[8:24:5] == "----":
        digits = text.replace("-", "")
        if len(digits) == 32:
            try:
                return unhexlify(digits)
            except ValueError:
                pass
    return _identity(entity, text)


_NO_DIGIT: Final = 255
_DIGIT: Final = np.full(256, _NO_DIGIT, np.uint8)
for _number, _digit in enumerate("0123456789abcdef"):
    _DIGIT[[ord(_digit), ord(_digit.upper())]] = _number
_WIDTH: Final = 37
_HYPHENS_AT: Final = np.array([8, 13, 18, 23])
_DIGITS_AT: Final = np.setdiff1d(np.arange(36), _HYPHENS_AT)


def identities(entity: EntityName, texts: Sequence[str]) -> tuple[list[bytes], Mask]:
    """`identity` of many texts at once, and which of them it does not refuse."""
    found, good = _usual(texts)
    for at in np.flatnonzero(~good).tolist():
        with suppress(BadEventError):
            found[at] = identity(entity, texts[at])
            good[at] = True
    return found, good


def _usual(texts: Sequence[str]) -> tuple[list[bytes], Mask]:
    """The same of UUIDs with hyphens, refusing all others."""
    joined = "".join(texts)
    # To numpy a text that ends with NULs is the same as one without them.
    if "\0" in joined or not joined.isascii():
        return [b""] * len(texts), np.zeros(len(texts), np.bool_)
    chars = np.ascontiguousarray(np.array(texts, f"S{_WIDTH}").view(np.uint8).reshape(-1, _WIDTH).T)
    digits = _DIGIT[chars[_DIGITS_AT]]
    good = (digits.max(axis=0) != _NO_DIGIT) & (chars[_HYPHENS_AT] == ord("-")).all(axis=0) & (chars[-1] == 0)
    packed = np.ascontiguousarray(((digits[::2] << 4) | digits[1::2]).T)
    return packed.view("V16").ravel().tolist(), good


@lru_cache(maxsize=65_536)
def known_identity(entity: EntityName, text: str) -> bytes:
    """`identity`, remembered: of what many events name, such as the flow run of task runs."""
    return identity(entity, text)


def text_of(identity_bytes: bytes) -> str:
    """Hyphenated lower-case text."""
    return str(uuid.UUID(bytes=identity_bytes))


@lru_cache(maxsize=4_096)
def uuid_text(text: str) -> str:
    """A UUID in any spelling as hyphenated lower-case text; any other text as it is."""
    return text_of(_uuid_bytes(text)) if _SPELLING.fullmatch(text) else text


def _uuid_bytes(text: str) -> bytes:
    return bytes.fromhex(text.strip("{}").replace("-", "")[-32:])


def _identity(entity: EntityName, text: str) -> bytes:
    if _SPELLING.fullmatch(text):
        return _uuid_bytes(text)
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        raise bad("wrong value", f"an id of a {entity} has to be text in UTF-8") from None
    if not 0 < length <= MAX_ID_BYTES:
        raise bad("wrong value", f"an id of a {entity} has to have 1 to {MAX_ID_BYTES} bytes")
    return uuid.uuid5(_NAMESPACES[entity], text).bytes

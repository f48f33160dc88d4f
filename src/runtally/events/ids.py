"""Identities: UUIDs in any spelling, or any other text, as 16 bytes."""

from __future__ import annotations

import re
import uuid
from typing import Final

from ..core.changes import ENTITIES, EntityName
from ..errors import BadEventError

MAX_ID_BYTES: Final = 250
_SPELLING: Final = re.compile(
    r"(?:urn:uuid:)?(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})"
    r"|\{[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\}",
    re.IGNORECASE,
)
_NAMESPACES: Final = {name: uuid.uuid5(uuid.NAMESPACE_URL, f"runtally:{name}") for name in ENTITIES}


def identity(entity: EntityName, text: str) -> bytes:
    """The 16 bytes of an id: a UUID's own, else uuid5 of the text in the entity's namespace.

    Raises `BadEventError` for an empty text or one over 250 bytes.
    """
    if len(text) == 36 and text[8] == text[13] == text[18] == text[23] == "-":
        digits = text.replace("-", "")
        if len(digits) == 32:
            try:
                found = bytes.fromhex(digits)
            except ValueError:
                found = b""
            if len(found) == 16:
                return found
    return _identity(entity, text)


def text_of(identity_bytes: bytes) -> str:
    """Hyphenated lower-case text."""
    return str(uuid.UUID(bytes=identity_bytes))


def _identity(entity: EntityName, text: str) -> bytes:
    if _SPELLING.fullmatch(text):
        return uuid.UUID(text).bytes
    if not text or len(text.encode("utf-8", "surrogatepass")) > MAX_ID_BYTES:
        raise BadEventError("wrong value", f"an id of a {entity} has to have 1 to {MAX_ID_BYTES} bytes")
    return uuid.uuid5(_NAMESPACES[entity], text).bytes

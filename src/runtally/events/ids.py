"""Identities: UUIDs in any spelling, or any other text, as 16 bytes."""

from __future__ import annotations

import re
import uuid
from binascii import unhexlify
from functools import lru_cache
from typing import Final

from ..core.changes import ENTITIES, EntityName
from .contract import bad

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


@lru_cache(maxsize=65_536)
def flow_run_identity(text: str) -> bytes:
    """`identity` of a flow run; remembered, since all its task runs name it."""
    return identity("flow_run", text)


def text_of(identity_bytes: bytes) -> str:
    """Hyphenated lower-case text."""
    return str(uuid.UUID(bytes=identity_bytes))


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

"""Which version of Prefect's API we speak, and the check of the header in which clients say theirs."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request

from .errors import ApiVersionError

API_VERSION: Final = "0.8.4"
OLDEST_API_VERSION: Final = "0.8.0"
VERSION_HEADER: Final = "X-PREFECT-API-VERSION"


def check_api_version(request: Request) -> None:
    """Let a request pass that names no version or one that is new enough, else raise `ApiVersionError`."""
    asked = request.headers.get(VERSION_HEADER)
    if not asked:
        return
    try:
        version = _numbers(asked)
    except ValueError:
        raise ApiVersionError(
            f"Invalid {VERSION_HEADER} header format.Expected header in format 'x.y.z' but received {asked}"
        ) from None
    if version < _numbers(OLDEST_API_VERSION):
        raise ApiVersionError(
            f"The request specified API version {asked} but this server requires version "
            f"{OLDEST_API_VERSION} or higher."
        )


def _numbers(text: str) -> tuple[int, int, int]:
    major, minor, patch = (int(part) for part in text.split("."))
    return major, minor, patch

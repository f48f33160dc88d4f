"""A rule of the code, and which test misses it."""

from __future__ import annotations

from typing import NamedTuple


class Rule(NamedTuple):
    """`old` in `file` replaced by `new` must make `test` fail, because of `why`."""

    file: str
    old: str
    new: str
    why: str
    test: str

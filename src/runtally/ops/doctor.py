"""`runtally doctor`: everything around runtally looked at once, each thing in a line with what to do about it.

First Redis and Kafka are looked at (`store.stand`, `ops.log_look`), then every check of `checks.CHECKS` that has what
it needs says its lines. It changes nothing and joins no group.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict

from ..errors import RuntallyError, SystemError_
from ..settings import Settings
from ..store import stand
from . import log_look
from .check import LEVELS, Facts, Line
from .checks import CHECKS


async def examine(settings: Settings) -> list[Line]:
    """All lines, in the order of the checks. Raises `SettingError` for a setting that cannot be used."""
    facts = await _facts(settings)
    return [line for check in CHECKS if check.can_look(facts) for line in check.look(facts)]


def exit_code(lines: Sequence[Line]) -> int:
    """1 when something is bad, else 0: a warning is no failure."""
    return int(any(line.level == "bad" for line in lines))


def as_json(lines: Sequence[Line]) -> str:
    """One JSON object."""
    worst = max((line.level for line in lines), key=LEVELS.index, default="ok")
    return json.dumps({"worst": worst, "lines": [asdict(line) for line in lines]})


async def _facts(settings: Settings) -> Facts:
    facts = Facts(settings, time.time_ns() // 1000)
    try:
        facts.redis = await stand.look(settings)
    except SystemError_ as error:
        facts.redis_trouble = str(error)
    try:
        facts.log = await log_look.look(settings, facts.redis.ledgers if facts.redis else {})
    except RuntallyError as error:
        facts.log_trouble = str(error)
    return facts

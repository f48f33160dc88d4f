"""What processes log: lines for people, or with `--log-json` one JSON object a line.

An object has `time` (UTC), `level`, `logger` and `message`, `exception` (a traceback) where there is one, and whatever
the record was given besides, such as `shard`. Every record of the process goes this way, also those of libraries.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

from .settings import Settings

_PLAIN: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_NOT_BESIDES: Final = {*vars(logging.makeLogRecord({})), "message", "asctime", "color_message", "data"}
"""Attributes of any record, and what Faust and uvicorn add for their own formatters."""

_CHATTY: Final = ("aiokafka", "httpcore", "httpx")
"""Libraries that tell of each request what nobody asks."""


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, without its end."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        said: dict[str, Any] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            said["stack"] = record.stack_info
        said |= {name: value for name, value in vars(record).items() if name not in _NOT_BESIDES and name not in said}
        return json.dumps(said, default=str)


def configure(settings: Settings) -> None:
    """Send every record of this process to the error output; replaces what was configured before."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if settings.log_json else logging.Formatter(_PLAIN))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.NOTSET if settings.log_level == "debug" else logging.WARNING)
    if settings.log_json:
        logging.captureWarnings(capture=True)
        sys.excepthook = _log_uncaught


def in_json() -> bool:
    """Whether this process logs JSON."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers)


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("runtally").critical("%s", error, exc_info=(kind, error, trace))


def silence_kafka() -> None:
    """For commands: what the client says of a broker that is away is said in a line of ours."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)

"""`up.json`: where the servers of a running `runtally up` are, for every other command.

The file exists while `up` runs and is replaced as a whole; `read` gives None when there is none or when its
process is gone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import psutil

from .. import settings as runtally_settings
from ..settings import Settings

NAME: Final = "up.json"


@dataclass(frozen=True, slots=True)
class UpFile:
    """What a running `up` says of itself. `pids`: process name → pid, `up` itself among them; `started`: seconds
    since the epoch at which `up` began, as the system tells it."""

    kafka: str
    redis_url: str
    api_url: str
    metrics_url: str
    pids: dict[str, int]
    started: float

    def alive(self) -> bool:
        """Whether the `up` that wrote this still runs (a reused pid has another start time)."""
        try:
            return abs(_start_of(self.pids["up"]) - self.started) < 2
        except (KeyError, psutil.Error):
            return False


def read(data_dir: Path) -> UpFile | None:
    """The addresses of the `up` that runs on this data dir; None when none does."""
    found = read_any(data_dir)
    return found if found is not None and found.alive() else None


def load_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings of a command that runs beside an `up`: what neither `overrides` nor a variable names is where the
    running `up` says. An override of None counts as not given. Raises `SettingError`."""
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    settings = runtally_settings.load(given)
    up = read(settings.data_dir)
    if up is None:
        return settings
    known = {"kafka": up.kafka, "redis_url": up.redis_url, "url": up.api_url}
    missing = {name: value for name, value in known.items() if name not in settings.model_fields_set}
    return runtally_settings.load({**given, **missing})


def read_any(data_dir: Path) -> UpFile | None:
    """The same, also when its `up` is gone."""
    try:
        content: Any = json.loads((data_dir / NAME).read_text())
        return UpFile(**{field.name: content[field.name] for field in fields(UpFile)})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(data_dir: Path, content: UpFile) -> None:
    """Replace the file."""
    temporary = data_dir / f"{NAME}.new"
    temporary.write_text(json.dumps(asdict(content), indent=2) + "\n")
    temporary.replace(data_dir / NAME)


def remove(data_dir: Path) -> None:
    """`up` has ended in order."""
    (data_dir / NAME).unlink(missing_ok=True)


def own_start() -> float:
    """When this process began, as `UpFile.started` wants it."""
    return _start_of(os.getpid())


def _start_of(pid: int) -> float:
    return float(psutil.Process(pid).create_time())

"""A process of tests that never outlives the one that started it: its servers and commands go with it."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Final

_EVERY_S: Final = 0.2


def end_with_parent() -> None:
    """From now on this process is killed when its parent is gone, whatever it does then."""
    threading.Thread(target=_watch, args=(os.getppid(),), name="parent watch", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_EVERY_S)
    os.kill(os.getpid(), signal.SIGKILL)

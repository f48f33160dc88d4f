"""When the API looks for cycles among its objects.

Answers leave next to none behind, and what is kept of Redis, hundred thousands of objects, is in none: to look through
all of it takes tens of milliseconds, which Python by itself would do in the middle of an answer, again and again while
copies become more.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Final

_AFTER: Final = 100_000
"""So many new objects until cycles among them are looked for."""
_EVERY_S: Final = 600.0


def settle() -> None:
    """Leave alone what there is by now, and from now on all that stays; new objects are looked through at times."""
    gc.freeze()
    gc.set_threshold(_AFTER, 10, 1 << 30)


async def collect_at_times() -> None:
    """Look through everything every ten minutes, until it is cancelled: connections that lasted may leave cycles."""
    while True:
        await asyncio.sleep(_EVERY_S)
        gc.collect()

"""A client of the API in a process of its own, so that what asks does not slow what is asked."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from http.client import HTTPConnection
from multiprocessing import get_context
from typing import Any, Final

from ..errors import SystemError_

_TIMEOUT_S: Final = 120.0
_LONG_S: Final = 20.0

Question = tuple[str, dict[str, Any]]
"""Path and body."""


class Client:
    """Asks over connections that stay open, from another process."""

    def __init__(self, host: str, port: int) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin, initargs=(host, port))

    def ask(self, questions: Sequence[Question], clients: int = 1) -> list[float]:
        """Milliseconds of each question; several clients share them, and stop asking after 20 s.

        Raises `SystemError_` for a status but 200.
        """
        return self._pool.submit(_ask_all, questions, clients).result()

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()


_connections: list[HTTPConnection] = []
"""Of the process that asks."""


def _begin(host: str, port: int) -> None:
    _connections.append(HTTPConnection(host, port, timeout=_TIMEOUT_S))


def _ask_all(questions: Sequence[Question], clients: int) -> list[float]:
    first = _connections[0]
    while len(_connections) < clients:
        _connections.append(HTTPConnection(first.host, first.port, timeout=_TIMEOUT_S))
    with ThreadPoolExecutor(clients) as threads:
        shares = [questions[number::clients] for number in range(clients)]
        found = threads.map(_ask_in_turn, _connections[:clients], shares)
        return [ms for share in found for ms in share]


def _ask_in_turn(connection: HTTPConnection, questions: Sequence[Question]) -> list[float]:
    found: list[float] = []
    until = time.perf_counter() + _LONG_S
    for path, body in questions:
        if found and time.perf_counter() > until:
            break
        text = json.dumps(body)
        began = time.perf_counter()
        connection.request("POST", path, text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        found.append((time.perf_counter() - began) * 1000)
        if answer.status != 200:
            raise SystemError_(f"the API answered {answer.status}: {content[:500].decode(errors='replace')}")
    return found

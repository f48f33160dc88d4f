"""Every error that runtally raises on purpose.

    RuntallyError
    ├── UserError                    the person can mend it; `str(error)` says how
    │   ├── SettingError             a RUNTALLY_* variable or an option is wrong
    │   ├── BadEventError            an event breaks the contract of docs/events.md
    │   ├── BadRequestError          a history request that cannot be answered as asked (422)
    │   ├── TooLargeError            a body or a scan over its budget (413 or 422)
    │   └── AlreadyRunningError      another `runtally up` holds the data dir
    └── SystemError_                 something around us is not as it must be
        ├── NotReadyError            a shard has no ledger yet, or is behind (503)
        ├── BusyError                too much at once; try again (503 with Retry-After)
        ├── ServerLostError          Kafka or Redis is away; wait and go on
        ├── FencedError              another writer moved the ledger; read it again and seek
        ├── LedgerTroubleError       ledger and log do not fit; that shard stops and needs a decision
        ├── TooManyBadError          nearly everything on a partition is bad; its shard stops likewise
        └── UnfitServerError         a server whose configuration would lose data (eviction, other format)

An error carries its data as attributes and its advice in its text.
"""

from __future__ import annotations


class RuntallyError(Exception):
    """The root of the tree above."""


class UserError(RuntallyError):
    """The person can mend it; the text says how."""


class SettingError(UserError):
    """A setting that cannot be used; `name` is the environment variable."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name
        self.problem = problem


class BadEventError(UserError):
    """An event that breaks the contract; `reason` is one short phrase, stable enough to group by.

    `index`: which event of a request it is, counted from 0; None when it came by itself or no event could be told.
    """

    def __init__(self, reason: str, detail: str = "", index: int | None = None) -> None:
        text = f"{reason}: {detail}" if detail else reason
        super().__init__(text if index is None else f"event {index}: {text}")
        self.reason = reason
        self.detail = detail
        self.index = index


class BadRequestError(UserError):
    """A request that validates but cannot be answered as asked (HTTP 422, `{"detail": …}`)."""


class TooLargeError(UserError):
    """A request over one of the budgets; `status` is 413 (a body) or 422 (a scan)."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status


class AlreadyRunningError(UserError):
    """Another `runtally up` holds the data dir."""


class SystemError_(RuntallyError):  # noqa: N801, N818 - the plain word is a builtin
    """Something around us is not as it must be."""


class NotReadyError(SystemError_):
    """The answer would be wrong or incomplete now (HTTP 503); the text says what is missing."""


class BusyError(SystemError_):
    """Too much at once (HTTP 503 with Retry-After: `retry_after_s`)."""

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ServerLostError(SystemError_):
    """Kafka or Redis is away; the caller waits and goes on."""


class FencedError(SystemError_):
    """Another writer moved the ledger of `shard`: nothing was written; read the ledger and seek."""

    def __init__(self, shard: str, detail: str) -> None:
        super().__init__(f"shard {shard}: {detail}")
        self.shard = shard


class LedgerTroubleError(SystemError_):
    """Ledger and log of `shard` do not fit: that shard stops until somebody decides. `detail` says why, and what to
    do."""

    def __init__(self, shard: str, detail: str) -> None:
        super().__init__(f"shard {shard}: {detail}")
        self.shard = shard
        self.detail = detail


class TooManyBadError(SystemError_):
    """Nearly everything that `shard` reads is bad: a misconfigured producer, which must not drain the topic into dead
    letters. That shard stops before the record at `offset`; `detail` says why, and what to do."""

    def __init__(self, shard: str, detail: str, offset: int) -> None:
        super().__init__(f"shard {shard}: {detail}")
        self.shard = shard
        self.detail = detail
        self.offset = offset


class UnfitServerError(SystemError_):
    """A server whose configuration or content would lose data or be misread."""

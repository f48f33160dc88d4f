"""Answers as bytes and headers.

Seconds are written from integer µs, so they are exact however large a sum is: always with a fraction part, at
most six digits of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from ..core.combine import Entry
from ..core.groups import State
from ..core.request import SECOND_US
from ..core.time import text_of
from .service import Explanation, HistoryAnswer, Stand, Work

AT: Final = "X-Runtally-At"
EXACT: Final = "X-Runtally-Exact"
PLAN: Final = "X-Runtally-Plan"
LAG: Final = "X-Runtally-Lag"
TIMING: Final = "Server-Timing"
HEADERS: Final = (AT, EXACT, PLAN, LAG, TIMING)
"""The headers of an answer, for browsers that have to be told what they may read."""
_PLAIN_FROM_US: Final = 100
_PLAIN_BELOW_US: Final = 10**15
"""Between these the shortest text of the nearest double is the number itself: no more than 15 digits, no exponent."""


def seconds(duration_us: int) -> str:
    """A duration that is not negative as a JSON number of seconds."""
    if _PLAIN_FROM_US <= duration_us < _PLAIN_BELOW_US or duration_us == 0:
        return repr(duration_us / SECOND_US)
    whole, fraction = divmod(duration_us, SECOND_US)
    return f"{whole}.{fraction:06d}".rstrip("0") + ("" if fraction else "0")


def encode_history(answer: HistoryAnswer) -> bytes:
    """The body of a history answer; keys stand in Prefect's order."""
    heads = _Heads()
    bins = answer.bins
    edges = [text_of(bins.start + k * bins.width) for k in range(bins.count + 1)]
    parts = [
        f'{{"interval_start":"{edges[k]}","interval_end":"{edges[k + 1]}","states":[{_entries(entries, heads)}]}}'
        for k, entries in enumerate(answer.entries)
    ]
    return f"[{','.join(parts)}]".encode()


class _Heads(dict[State, str]):
    """How the entries of a state begin."""

    def __missing__(self, state: State) -> str:
        self[state] = f'{{"state_type":"{state[0]}","state_name":{json.dumps(state[1])},"count_runs":'
        return self[state]


def _entries(entries: Sequence[Entry], heads: _Heads) -> str:
    return ",".join(
        [
            f'{heads[state]}{count},"sum_estimated_run_time":{seconds(run_us)},"sum_estimated_lateness":{seconds(late_us)}}}'
            for state, count, run_us, late_us in entries
        ]
    )


def explanation_json(found: Explanation) -> dict[str, Any]:
    """The body of an explanation."""
    bins = found.bins
    return {
        "plan": found.stand.plan,
        "answered_by": "scan" if found.scan else "cells",
        "bins": {
            "start": text_of(bins.start),
            "end": text_of(bins.end),
            "count": bins.count,
            "seconds": bins.width / SECOND_US,
        },
        "parts": [
            {"scope": share.scope, "level": share.level, "buckets": share.buckets, "cells": share.cells}
            for share in found.shares
        ],
        "estimated": _work(found.estimated),
        "real": _work(found.real),
        "ways": [
            {
                "way": way.name,
                "taken": way.taken,
                "buckets": way.buckets,
                "values": way.values,
                "raw_rows": way.rows,
            }
            for way in found.ways
        ],
        "because": [
            {"about": reason.about, "raw_minutes": reason.minutes, "why": reason.why, "instead": reason.instead}
            for reason in found.reasons
        ],
    }


def _work(work: Work) -> dict[str, int]:
    return {"buckets": work.buckets, "raw_minutes": work.minutes, "raw_rows": work.rows}


def stand_headers(stand: Stand, spent_s: float, behind: int | None) -> dict[str, str]:
    """Of which state of the log an answer is true, the catalog first, how many events that is behind if known, whether
    it is exact, how it was found and how long that took."""
    shards = sorted(stand.ledger, key=lambda shard: (shard.isdecimal(), int(shard) if shard.isdecimal() else 0))
    ledger = ",".join(f"{shard}:{stand.ledger[shard]}" for shard in shards)
    steps = {**stand.spent_s, "total": spent_s}
    headers = {
        AT: f"now={text_of(stand.now_us)}; ledger={ledger}",
        TIMING: ", ".join(f"{name};dur={step_s * 1000:.1f}" for name, step_s in steps.items()),
    }
    if stand.plan:
        headers[PLAN] = stand.plan
    if behind is not None:
        headers[LAG] = str(behind)
    if not stand.exact:
        frozen = "" if stand.frozen_before_us is None else f"; frozen before {text_of(stand.frozen_before_us)}"
        headers[EXACT] = f"false{frozen}"
    return headers

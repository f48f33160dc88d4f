"""Answers as bytes and headers.

Seconds are written from integer µs, so they are exact however large a sum is: always with a fraction part, at
most six digits of it.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any, Final

import msgspec

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
_PLAIN_FROM_US: Final = 10
_PLAIN_BELOW_US: Final = 10**15
"""Between these the shortest text of the nearest double is the number itself: no more than 15 digits, no exponent."""


class _State(msgspec.Struct, gc=False):
    """An entry; keys stand in Prefect's order."""

    state_type: str
    state_name: msgspec.Raw
    count_runs: int
    sum_estimated_run_time: float | msgspec.Raw
    sum_estimated_lateness: float | msgspec.Raw


class _Bin(msgspec.Struct, gc=False):
    interval_start: str
    interval_end: str
    states: list[_State]


class _Names(dict[str, msgspec.Raw]):
    """How JSON spells names. What is no Unicode can be spelt as well."""

    def __missing__(self, name: str) -> msgspec.Raw:
        self[name] = msgspec.Raw(json.dumps(name).encode())
        return self[name]


def seconds(duration_us: int) -> float | msgspec.Raw:
    """A duration that is not negative, as what JSON spells in seconds."""
    if _PLAIN_FROM_US <= duration_us < _PLAIN_BELOW_US or duration_us == 0:
        return duration_us / SECOND_US
    whole, fraction = divmod(duration_us, SECOND_US)
    return msgspec.Raw(f"{whole}.{fraction:06d}".rstrip("0").encode() + (b"" if fraction else b"0"))


def encode_history(answer: HistoryAnswer) -> bytes:
    """The body of a history answer."""
    names = _Names()
    bins = answer.bins
    edges = [text_of(bins.start + k * bins.width) for k in range(bins.count + 1)]
    return msgspec.json.encode(
        [
            _Bin(
                begin,
                end,
                [
                    _State(kind, names[name], count, seconds(run_us), seconds(late_us))
                    for (kind, name), count, run_us, late_us in entries
                ],
            )
            for (begin, end), entries in zip(pairwise(edges), answer.entries, strict=True)
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

"""Known answers: estates as events, requests, and what Prefect's server was seen to answer.

Every estate has its own ids, so that several may live in one server. A case is (filter, answer); a history body
is `{**vectors.range, **filter}`, and `now` is `vectors.now_us`.
"""

from .bins import BIN_COUNTS, BIN_EDGES, TASK_RUN_BINS, TIMES_US, WIDTHS_US
from .estimates import ESTIMATES
from .selections import COUNTS, SELECTIONS
from .told import DT, DT_US, Vectors, at, body

__all__ = [
    "BIN_COUNTS",
    "BIN_EDGES",
    "COUNTS",
    "DT",
    "DT_US",
    "ESTIMATES",
    "SELECTIONS",
    "TASK_RUN_BINS",
    "TIMES_US",
    "WIDTHS_US",
    "Vectors",
    "at",
    "body",
]

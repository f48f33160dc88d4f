"""Hypothesis strategies: estates as events, history bodies, moments and filters.

Every event, request and filter comes from one drawn seed of its own, so drawing is cheap and a failing example
shrinks by leaving events out. Ids, names and versions come from small pools: collisions, ties and
disorder are the rule.
"""

from __future__ import annotations

import random
from typing import Any

from hypothesis import strategies as st

from .estates import estate_of, estates, flow_run_of
from .filters import filters, filters_of, sub_filters
from .histories import histories, question, questions
from .pools import dice_exactly

__all__ = [
    "estate_of",
    "estates",
    "filters",
    "filters_of",
    "flow_run_of",
    "histories",
    "question",
    "questions",
    "requests",
    "sub_filters",
]


def requests(count: int, *, filtered: bool = True) -> st.SearchStrategy[list[tuple[dict[str, Any], int]]]:
    """So many (history body, `now` in µs) for one estate, the bodies with filters unless told otherwise.

    For many requests of one estate take this and not a list of `questions`: see `pools.dice_up_to`.
    """

    def request(dice: random.Random) -> tuple[dict[str, Any], int]:
        body, now_us = question(dice)
        return {**body, **(filters_of(dice) if filtered else {})}, now_us

    return dice_exactly(count).map(lambda dices: [request(dice) for dice in dices])

"""Requests for a history without filters, and the moments at which they are asked."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import strategies as st

from .pools import BASE_US, DAY_US, FAR_US, LAST_US, LEVELS_US, SECOND_US, SEEDS, instant_us, text_of

Body = dict[str, Any]

WIDTHS_S = [1, 1.5, 1.123456, 7.5, 60, 61, 90, 300, 599.999999, 600, 3600, 4319.99995, 4320, 21_600, 30_240, 86_400]
WIDE_S = [90_000, 604_800, 31_536_000]
BINS = [0, 1, 1, 2, 3, 5, 13, 20, 21, 60, 100, 499, 500, 501, 700]


def histories() -> st.SearchStrategy[Body]:
    """The three required fields: any alignment, widths from a second to a year, up to 700 bins, ends before starts."""
    return SEEDS.map(lambda seed: question(random.Random(seed))[0])


def questions() -> st.SearchStrategy[tuple[Body, int]]:
    """A history body and a `now` in µs: before, inside and after its range, at the edges of its bins, far away."""
    return SEEDS.map(lambda seed: question(random.Random(seed)))


def question(dice: random.Random) -> tuple[Body, int]:
    """What `questions` draws."""
    body, start, end = _history(dice)
    inside = start + dice.randrange(max(end - start, 1))
    near = dice.choice([start, end, inside, instant_us(dice), instant_us(dice)]) + dice.choice((-1, 0, 1))
    now_us = dice.choices(
        [near, start - dice.randrange(DAY_US), end + dice.randrange(DAY_US), dice.choice(FAR_US)], [8, 2, 2, 1]
    )
    return body, min(max(now_us[0], 0), LAST_US)


def _history(dice: random.Random) -> tuple[Body, int, int]:
    width_s = dice.choice(WIDE_S) if dice.random() < 0.12 else dice.choice(WIDTHS_S)
    width_us = round(width_s * SECOND_US)
    bins = dice.choice(BINS)
    chance = dice.random()
    if chance < 0.1:
        start = dice.choice([0, BASE_US - 400 * width_us, LAST_US])
    elif chance < 0.3:
        step = dice.choice([width_us, *LEVELS_US])
        start = BASE_US + dice.randrange(-3, 3) * step
    else:
        start = instant_us(dice) - dice.randrange(max(bins, 1)) * width_us
    start = max(start + dice.choice((-1, 0, 0, 1)), 0)
    if dice.random() < 0.06:
        end = start - dice.randrange(2 * DAY_US)
    else:
        end = start + bins * width_us + dice.choice((-1, 0, 0, 1, width_us // 2))
    end = max(end, 0)
    body = {
        "history_start": _time(dice, start),
        "history_end": _time(dice, end),
        "history_interval_seconds": str(width_s) if dice.random() < 0.1 else width_s,
    }
    return body, start, end


def _time(dice: random.Random, instant: int) -> str | int:
    """Text in one of its spellings, or a number: seconds, or milliseconds where a server takes it for that."""
    chance = dice.random()
    if chance < 0.1 and instant % SECOND_US == 0:
        return instant // SECOND_US
    if chance < 0.2 and instant % 1000 == 0 and instant // 1000 > 20_000_000_000:
        return str(instant // 1000)
    return text_of(instant, dice)

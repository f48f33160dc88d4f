"""What estates and requests are drawn from: few ids, names and instants, and the ways to spell them."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

SECOND_US = 1_000_000
BASE_US = 1_625_097_600_000_000  # 1 July 2021, where buckets of every width begin
LAST_US = 7_258_118_399_999_999
LEVELS_US = [width_s * SECOND_US for width_s in (60, 600, 3600, 21_600, 86_400)]
FAR_US = [0, 1, 86_400 * SECOND_US, BASE_US * 2, LAST_US - 1, LAST_US]
DAY_US = LEVELS_US[-1]

TASK_RUNS = [str(uuid.UUID(int=0x7A5C_0000 + number)) for number in range(14)]
FLOW_RUNS = [*(str(uuid.UUID(int=0xF10E_0000_0000 + number)) for number in range(5)), "scheduled__2021-07-01"]
FLOWS = [*(str(uuid.UUID(int=0xF10 + number)) for number in range(3)), "dag:étl"]
DEPLOYMENTS = [str(uuid.UUID(int=0xDE0 + number)) for number in range(4)]
CREATORS = [str(uuid.UUID(int=0xC0 << 64 | number)) for number in range(2)]
STATES = [
    ("SCHEDULED", "Scheduled"),
    ("SCHEDULED", "Late"),
    ("PENDING", "Pending"),
    ("RUNNING", "Running"),
    ("RUNNING", "Retrying"),
    ("RUNNING", "Läuft"),
    ("COMPLETED", "Completed"),
    ("COMPLETED", "Custom"),
    ("FAILED", "Failed"),
    ("FAILED", "Custom"),
    ("CANCELLED", "Cancelled"),
    ("CRASHED", "Crashed"),
    ("PAUSED", "Paused"),
    ("CANCELLING", "Cancelling"),
]
NAMES = ["", "alpha-1", "Alpha_1", "alpha%1", "ALPHA", "a\\b", "ÀÉ-load", "straße", "x.*y", "zwei\nZeilen"]
TAGS = ["a", "b", "ü", "A", ""]
WORDS = ["q1", "q2", "Q1", "v1"]
LIKES = [
    "",
    "%",
    "_",
    "a",
    "ALPHA",
    "a_1",
    r"a\%1",
    r"a\_1",
    "à",
    "SS",
    "ß",
    "%a%a%",
    "\\",
    "a\\\\b",
    ".*",
    "[a-z]",
    "l%1",
]
TOTALS_S = [0, 0.5, 1.1, 1.9, 3600, 0.000001, -2.5, 86_400.000001, 1e9, 3_155_760_000, -3_155_760_000]

# No wider: hypothesis draws small numbers far more often from a range of over 24 bits.
SEEDS = st.integers(0, 2**24 - 1)


def dice_up_to(most: int) -> st.SearchStrategy[list[random.Random]]:
    """Up to `most` dice, each the source of one thing; shrinks by leaving dice out."""
    return seeds_up_to(most).map(_dice)


def dice_exactly(count: int) -> st.SearchStrategy[list[random.Random]]:
    """So many dice, as different as those of `dice_up_to`."""
    return st.builds(_thrown, SEEDS, st.lists(SEEDS, min_size=count, max_size=count, unique=True)).map(_dice)


def seeds_up_to(most: int) -> st.SearchStrategy[list[int]]:
    """Up to `most` seeds, each the source of one thing; shrinks by leaving seeds out, since low ones stand for none.

    A list of varying length would be short nearly always. Hypothesis builds most of its examples by copying parts of
    earlier ones; that repeated seeds are left out, and mixed with one of the list's own, keeps examples from being the
    same few things.
    """
    seeds = st.lists(SEEDS, min_size=most, max_size=most)
    return st.builds(_thrown, SEEDS, seeds.map(lambda found: [seed for seed in dict.fromkeys(found) if seed >= 256]))


def _thrown(base: int, seeds: list[int]) -> list[int]:
    return [base << 24 | seed for seed in seeds]


def _dice(seeds: list[int]) -> list[random.Random]:
    return [random.Random(seed) for seed in seeds]


def instant_us(dice: random.Random) -> int:
    """An instant within ±1 µs of where a bucket of some level begins, or anywhere in three days, or far away."""
    chance = dice.random()
    if chance < 0.04:
        return dice.choice(FAR_US)
    if chance < 0.2:
        return BASE_US + dice.randrange(3 * DAY_US)
    return BASE_US + dice.choice(LEVELS_US) * dice.randrange(4) + dice.choice((-1, 0, 0, 1))


def text_of(instant_us: int, dice: random.Random | None = None) -> str:
    """An instant as RFC 3339; with `dice` in one of the spellings that a request may use."""
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=instant_us)
    text = instant.isoformat().replace("+00:00", "Z")
    if dice is None:
        return text
    fraction = "" if instant.microsecond == 0 else f".{instant.microsecond:06d}"
    ahead = (instant + timedelta(hours=2, minutes=30)).strftime("%Y-%m-%dT%H:%M:%S") + fraction
    spellings = [text, text[:-1], text[:-1].replace("T", " ") + "+00:00", f"{ahead}+02:30", f"{ahead}+0230"]
    if fraction:
        spellings += [text.replace(".", ","), text[:-1] + "999Z"]
    return dice.choice(spellings)


def spelled(dice: random.Random, text: str) -> str:
    """A UUID in one of its spellings; any other text as it is."""
    if len(text) != 36 or dice.random() < 0.7:
        return text
    return dice.choice([text.upper(), text.replace("-", ""), f"{{{text}}}", f"urn:uuid:{text}"])

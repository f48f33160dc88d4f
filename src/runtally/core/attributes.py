"""What a filter attribute is: a value, a test, the columns it is asked of, and how it is answered.

How an attribute is answered (`By`): a *group*, *zone* or *cohort* attribute can be answered from rollups, a *raw*
one needs the runs themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final, NamedTuple

from .request import FilterName, Value


class Kind(Enum):
    """What an attribute's value is in JSON, as the docs say it."""

    UUIDS = "list of UUIDs"
    TEXTS = "list of texts"
    STATE_TYPES = "list of state types"
    LIKE = "text"
    BOOL = "boolean"
    TIME = "date and time"
    INT = "integer"


class By(Enum):
    """Which kind of atom an attribute compiles to."""

    GROUP = "group"
    ZONE = "zone"
    COHORT = "cohort"
    RAW = "raw"
    NOTHING = "nothing"


class Test(StrEnum):
    """What an atom asks of its column; `RULES` has the details."""

    __test__ = False  # no test case, whatever its name makes pytest think

    IN = "in"
    NOT_IN = "not in"
    BEFORE = "at or before"
    AFTER = "at or after"
    IS = "is"
    IS_NULL = "is null"
    LIKE = "contains"
    TAGS_ALL = "has all of"
    TAGS_ANY = "has any of"
    TAGS_EMPTY = "is empty"


class Rule(NamedTuple):
    """A test's words, and what it makes of a NULL in the column and of an empty list or text as the value.

    Every test but IS_NULL gives NULL (neither true nor false) on a NULL; that selects nothing. `ignores_empty`:
    an empty value restricts nothing, as if the attribute were absent.
    """

    words: str
    on_null: str
    on_empty: str
    ignores_empty: bool = False


RULES: Final[dict[Test, Rule]] = {
    Test.IN: Rule("is one of the list, exactly", "no", "matches nothing"),
    Test.NOT_IN: Rule("is none of the list", "no", "no restriction", ignores_empty=True),
    Test.BEFORE: Rule("≤", "no", "–"),
    Test.AFTER: Rule("≥", "no", "–"),
    Test.IS: Rule("equals", "no", "–"),
    Test.IS_NULL: Rule("true: is NULL; false: is not NULL", "–", "–"),
    Test.LIKE: Rule("contains, ignoring case; `%` and `_` are wildcards", "no", "no restriction", ignores_empty=True),
    Test.TAGS_ALL: Rule("holds every tag of the list", "–", "no restriction", ignores_empty=True),
    Test.TAGS_ANY: Rule("holds at least one tag of the list", "–", "matches nothing"),
    Test.TAGS_EMPTY: Rule("true: has no tags; false: has some", "–", "–"),
}
NO_RULE: Final = Rule("is checked and ignored", "–", "–")


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a sub-filter.

    `path` is its place below the sub-filter (`type.any_` inside `state`). It holds if `test` holds on one of the
    `columns`; with `inverted` a true value asks for the test to be false (existence is asked as not NULL).
    No test: accepted and ignored. `note` adds to what the test's rule says already.
    """

    path: str
    kind: Kind
    test: Test | None
    columns: tuple[str, ...]
    by: By
    note: str = ""
    inverted: bool = False
    default: bool | None = None

    @property
    def description(self) -> str:
        """What the attribute asks, as a sentence."""
        rule = RULES[self.test] if self.test else NO_RULE
        words = ["" if self.inverted else f"{rule.words[0].upper()}{rule.words[1:]}.", self.note]
        if rule.on_empty != "–":
            words.append(f"Empty: {rule.on_empty}.")
        return " ".join(word for word in words if word)

    def restricts(self, value: Value) -> bool:
        """Whether the attribute with this value is a condition at all."""
        if value is None or self.test is None:
            return False
        return not (RULES[self.test].ignores_empty and not value)


@dataclass(frozen=True, slots=True)
class SubFilterRow:
    """One sub-filter and its attributes; `operator`: it says itself whether they combine by and or by or."""

    name: str
    subject: str
    attributes: tuple[Attribute, ...]
    operator: bool = False


@dataclass(frozen=True, slots=True)
class FilterRow:
    """One entity filter; `model` is the name of its model in the API's schema."""

    name: FilterName
    model: str
    subject: str
    parts: tuple[SubFilterRow, ...]

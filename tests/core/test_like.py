"""`like_`: PostgreSQL's rules, the same in the matcher and in the pattern for polars."""

from __future__ import annotations

import time

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtally.core.like import fold, like_matcher, like_to_regex

from ..reference.like import like

ALPHABET = "aAbB%_\\.*+?()[]{}^$|#&-~<>sſK\u212a\n ßéÉ\u1fd3\u0390\x00"
TEXTS = st.text(ALPHABET, max_size=8)

TABLE = [
    ("", "", True),
    ("%", "", True),
    ("_", "", False),
    ("_", "x", True),
    ("d_1", "d-1-1", True),
    ("ALPHA", "an alpha flow", True),
    ("a\\%b", "xa%by", True),
    ("a\\%b", "axxb", False),
    ("a\\_b", "axb", False),
    ("\\\\", "back\\slash", True),
    ("\\a", "bar", True),
    ("50\\", "a 50%", True),
    ("50\\", "50% off", False),
    ("a%z", "a\nz", True),
    ("àé", "ÀÉ", True),
    ("ss", "ß", False),
    ("a.c", "abc", False),
]


@pytest.mark.parametrize(("pattern", "name", "expected"), TABLE)
def test_the_rules(pattern, name, expected):
    assert like_matcher(pattern)(name) is expected
    assert pl.Series([name]).str.contains(like_to_regex(pattern)).to_list() == [expected]


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=20))
def test_matcher_regex_and_reference_agree(pattern, names):
    expected = [like(name, pattern) for name in names]
    assert [like_matcher(pattern)(name) for name in names] == expected
    assert pl.Series(names).str.contains(like_to_regex(pattern)).to_list() == expected
    folded = pl.Series(["".join(map(fold, name)) for name in names])
    assert folded.str.contains(like_to_regex(pattern, folded=True)).to_list() == expected


def test_folding_is_that_of_the_regex_engine():
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    cased = [c for c in characters if len({c, c.lower(), c.upper(), c.casefold(), c.title()}) > 1]
    folded = pl.Series([fold(c) for c in cased])
    column = pl.Series(cased)
    for step in range(0, len(cased), 97):
        character = cased[step]
        same = column.str.contains(like_to_regex(character))
        assert (same == (folded == fold(character))).all(), hex(ord(character))


def test_a_pattern_of_many_runs_takes_linear_time():
    began = time.process_time()
    assert not like_matcher("%a" * 128 + "b")("a" * 20_000)
    assert time.process_time() - began < 2

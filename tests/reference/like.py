"""`like_`: PostgreSQL's ILIKE with %, _ and the backslash, by dynamic programming."""

from __future__ import annotations


def like(name: str, value: str) -> bool:
    r"""ILIKE '%' || value || '%' by PostgreSQL's rules: % any run, _ one character, \ escapes the next.

    `reached` holds the lengths of `name`'s beginnings that the pattern so far can match.
    """
    text = [folded(char) for char in name]
    pattern = f"%{value}%"
    reached = {0}
    position = 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "%":
            reached = set(range(min(reached), len(text) + 1)) if reached else set()
        elif char == "_":
            reached = {length + 1 for length in reached if length < len(text)}
        else:
            if char == "\\":
                char = pattern[position]
                position += 1
            reached = {length + 1 for length in reached if length < len(text) and text[length] == folded(char)}
    return len(text) in reached


LATER_PAIRS = {"\u1fd3": "\u0390", "\u1fe3": "\u03b0", "\ufb05": "\ufb06"}
"""Pairs that Unicode 15.1 added to simple folding; Python 3.11's tables are older."""


def folded(char: str) -> str:
    """Unicode's simple case folding: one character to one character."""
    if char in LATER_PAIRS:
        return LATER_PAIRS[char]
    for form in (char.casefold(), char.lower()):
        if len(form) == 1:
            return form
    return char

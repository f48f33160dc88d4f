r"""`like_` patterns: PostgreSQL's `ILIKE '%' || value || '%'`, evaluated in linear time.

`%` matches any run of characters, `_` exactly one, and a backslash makes the next character an ordinary one.
The appended `%` is part of the pattern, so a backslash at the very end makes *it* an ordinary character: the
value `50\` matches names that end in `50%`. Case is folded by Unicode's simple case folding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

ANY_ONE: Final = -1
ANY_RUN: Final = -2

_REGEX_SYNTAX: Final = frozenset("\\.+*?()|[]{}^$#&-~")
# Pairs that Unicode added to simple folding after the tables of older Pythons.
_LATER_FOLDINGS: Final = {"\u1fd3": "\u0390", "\u1fe3": "\u03b0", "\ufb05": "\ufb06"}


@dataclass(frozen=True, slots=True)
class Like:
    """A parsed pattern.

    `tokens` are single characters, ANY_ONE or ANY_RUN, without the surrounding runs; `open_end` tells that
    more may follow.
    """

    tokens: tuple[str | int, ...]
    open_end: bool


@lru_cache(maxsize=256)
def parse_like(value: str) -> Like:
    """Take a `like_` value apart."""
    tokens: list[str | int] = []
    characters = iter(value)
    for character in characters:
        if character == "\\":
            escaped = next(characters, None)
            if escaped is None:
                return Like((*tokens, "%"), open_end=False)
            tokens.append(escaped)
        elif character == "_":
            tokens.append(ANY_ONE)
        elif character != "%":
            tokens.append(character)
        elif tokens and tokens[-1] != ANY_RUN:
            tokens.append(ANY_RUN)
    if tokens and tokens[-1] == ANY_RUN:
        tokens.pop()
    return Like(tuple(tokens), open_end=True)


def like_to_regex(value: str, *, folded: bool = False) -> str:
    """The pattern for a linear-time engine with Rust's syntax, to be searched for anywhere in a name.

    `folded`: in a name of which every character is folded, where it takes half the time.
    """
    if folded:
        value = "".join(map(fold, value))
    like = parse_like(value)
    body = "".join(_regex_of(token) for token in like.tokens)
    flags = "(?s)" if folded else "(?is)"
    return f"{flags}{body}" if like.open_end else rf"{flags}{body}\z"


def _regex_of(token: str | int) -> str:
    if token == ANY_ONE:
        return "."
    if token == ANY_RUN:
        return ".*"
    character = str(token)
    return f"\\{character}" if character in _REGEX_SYNTAX else character


def fold(character: str) -> str:
    """Unicode's simple case folding of one character."""
    if character in _LATER_FOLDINGS:
        return _LATER_FOLDINGS[character]
    folded = character.casefold()
    if len(folded) > 1:
        folded = character.lower()
    return folded if len(folded) == 1 else character


@lru_cache(maxsize=256)
def like_matcher(value: str) -> Callable[[str], bool]:
    """A test of whether names match.

    It walks all positions of the pattern at once, one bit each: a step a character, never a step back.
    """
    like = parse_like(value)
    consume: dict[str, int] = {}
    anything = 0
    stay = 1
    position = 0
    for token in like.tokens:
        if token == ANY_RUN:
            stay |= 1 << position
            continue
        if token == ANY_ONE:
            anything |= 1 << position
        else:
            folded = fold(str(token))
            consume[folded] = consume.get(folded, 0) | 1 << position
        position += 1
    final = 1 << position
    if like.open_end:
        stay |= final

    def matches(name: str) -> bool:
        reached = 1
        for character in name:
            step = consume.get(fold(character), 0) | anything
            reached = (reached & step) << 1 | reached & stay
        return bool(reached & final)

    return matches

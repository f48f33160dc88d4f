"""Predicates, column by column.

A mask says where a question is *true*. SQL's other two values need no mask of their own: a tree has no NOT, so
whether a term is false or NULL never changes where the tree is true.

A column that repeats itself is a list of distinct values and, for each row, a number in it: the question is then asked
once a value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from ..core.attributes import Test
from ..core.like import fold, like_to_regex
from ..core.predicate import Atom, Node, Or, atoms, evaluate
from ..core.rows import NULL, Ints
from ..errors import BadRequestError

Mask = npt.NDArray[np.bool_]
_FEW_PART: Final = 2
"""Up to one row in so many, it takes less time to gather them than to search in all."""


def answer(node: Node, open_: Mask, ask: Callable[[Atom, Mask], Mask]) -> Mask:
    """Where a tree is true, of the rows that are open; `ask` gives an atom's mask, which elsewhere may say anything.

    Patterns come last: they cost by the row, and few rows may still be open then.
    """
    if isinstance(node, Atom):
        return ask(node, open_) & open_
    terms = sorted(node.terms, key=_has_pattern)
    if isinstance(node, Or):
        found = np.zeros(len(open_), np.bool_)
        for term in terms:
            found |= answer(term, open_ & ~found, ask)
        return found
    for term in terms:
        open_ = answer(term, open_, ask)
    return open_


def _has_pattern(node: Node) -> bool:
    return any(atom.test is Test.LIKE for atom in atoms(node))


def by_value(atom: Atom, values: Sequence[Any]) -> Mask:
    """An atom's mask over a list of values. Raises `BadRequestError` for a pattern that cannot be searched for."""
    wanted: Any = atom.value
    match atom.test:
        case Test.LIKE:
            return like(atom, folded(pl.Series(values, dtype=pl.String)))
        case Test.IN:
            return np.array([value in wanted for value in values], np.bool_)
        case Test.BEFORE | Test.AFTER:
            return of_times(atom, times(values))
        case Test.TAGS_ALL:
            return np.array([wanted.issubset(value) for value in values], np.bool_)
        case Test.TAGS_ANY:
            return np.array([not wanted.isdisjoint(value) for value in values], np.bool_)
        case _:
            return np.array([evaluate(atom, {atom.column: value}) is True for value in values], np.bool_)


def like(atom: Atom, names: pl.Series) -> Mask:
    """The mask of LIKE over `folded` texts. Raises `BadRequestError` for a pattern too large to search for."""
    try:
        return _true(names.str.contains(like_to_regex(str(atom.value), folded=True)))
    except pl.exceptions.ComputeError as error:
        raise BadRequestError(f"This like_ pattern cannot be searched for: {error}") from None


def like_some(atom: Atom, names: pl.Series, open_: Mask) -> Mask:
    """The same where rows are open; nothing is said about the others."""
    if np.count_nonzero(open_) * _FEW_PART > len(open_):
        return like(atom, names)
    which = np.flatnonzero(open_)
    found = np.zeros(len(open_), np.bool_)
    found[which] = like(atom, names.gather(which))
    return found


def one_of(atom: Atom, names: pl.Series) -> Mask:
    """The mask of IN over texts."""
    wanted: Any = atom.value
    return _true(names.is_in(list(wanted)))


def folded(names: pl.Series) -> pl.Series:
    """Texts in the case in which LIKE compares them: to search for a text as it is takes half the time."""
    lower = names.str.to_lowercase()
    other = (names.str.len_bytes() != names.str.len_chars()).fill_null(value=False).arg_true()
    if not len(other):
        return lower
    # Unicode's simple folding is not its lower case.
    texts = pl.Series(list(map(folded_text, names.gather(other))), dtype=pl.String)
    return lower.scatter(other, texts)


def folded_text(name: str | None) -> str | None:
    """The same of one text."""
    if name is None:
        return None
    return name.lower() if name.isascii() else "".join(map(fold, name))


def times(values: Sequence[int | None]) -> Ints:
    """Times as a column, `rows.NULL` for None."""
    return np.array([NULL if value is None else value for value in values], np.int64)


def of_times(atom: Atom, column: Ints) -> Mask:
    """The mask of BEFORE, AFTER and IS_NULL over times, where NULL is `rows.NULL`."""
    bound: Any = atom.value
    match atom.test:
        case Test.IS_NULL:
            found: Mask = (column == NULL) == bound
        case Test.AFTER:
            # NULL is before all times.
            found = column >= bound
        case _:
            found = (column <= bound) & (column != NULL)
    return found


def _true(found: pl.Series) -> Mask:
    mask: Mask = (found.fill_null(value=False) if found.null_count() else found).to_numpy()
    return mask

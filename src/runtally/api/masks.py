"""Predicates, column by column.

A mask says where a question is *true*. SQL's other two values need no mask of their own: a tree has no NOT, so
whether a term is false or NULL never changes where the tree is true.

A column that repeats itself is a list of distinct values and, for each row, a number in it: the question is then asked
once a value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ..core.attributes import Test
from ..core.like import fold, like_to_regex
from ..core.predicate import Atom, Node, Or, evaluate
from ..core.rows import NULL, Ints
from ..errors import BadRequestError

Mask = npt.NDArray[np.bool_]


def answer(node: Node, size: int, ask: Callable[[Atom], Mask]) -> Mask:
    """Where a tree is true, for `size` rows; `ask` gives an atom's mask."""
    if isinstance(node, Atom):
        return ask(node)
    either = isinstance(node, Or)
    found = np.full(size, not either)
    for term in node.terms:
        if either:
            found |= answer(term, size, ask)
        else:
            found &= answer(term, size, ask)
    return found


def by_value(atom: Atom, values: Sequence[Any]) -> Mask:
    """An atom's mask over a list of values. Raises `BadRequestError` for a pattern that cannot be searched for."""
    wanted: Any = atom.value
    match atom.test:
        case Test.LIKE:
            return like(atom, folded(values))
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


def one_of(atom: Atom, names: pl.Series) -> Mask:
    """The mask of IN over texts."""
    wanted: Any = atom.value
    return _true(names.is_in(list(wanted)))


def folded(names: Sequence[str | None]) -> pl.Series:
    """Texts in the case in which LIKE compares them: to search for a text as it is takes half the time."""
    return pl.Series(
        [name and (name.lower() if name.isascii() else "".join(map(fold, name))) for name in names],
        dtype=pl.String,
    )


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

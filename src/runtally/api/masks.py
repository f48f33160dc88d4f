"""Three-valued logic, column by column.

An atom's answer is two masks, where it is true and where it is false; NULL is neither.

    AND  true where all are true, false where one is false      OR  the other way round

A column that repeats itself is a list of distinct values and, for each row, a number in it: the atom is then asked
once a value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ..core.attributes import Test
from ..core.like import like_to_regex
from ..core.predicate import Atom, Node, Or, evaluate
from ..core.rows import NULL, Ints
from ..errors import BadRequestError

Mask = npt.NDArray[np.bool_]
Masks = tuple[Mask, Mask]


def answer(node: Node, size: int, ask: Callable[[Atom], Masks]) -> Masks:
    """A tree's answer for `size` rows; `ask` gives an atom's."""
    if isinstance(node, Atom):
        return ask(node)
    true, false = np.ones(size, np.bool_), np.zeros(size, np.bool_)
    if isinstance(node, Or):
        true, false = false, true
    for term in node.terms:
        term_true, term_false = answer(term, size, ask)
        if isinstance(node, Or):
            true, false = true | term_true, false & term_false
        else:
            true, false = true & term_true, false | term_false
    return true, false


def two_valued(mask: Mask) -> Masks:
    """The answer of a question that is never NULL."""
    return mask, ~mask


def by_value(atom: Atom, values: Sequence[Any]) -> Masks:
    """An atom's answer for each of a list of values.

    Raises `BadRequestError` for a pattern that cannot be searched for.
    """
    match atom.test:
        case Test.LIKE:
            return of_names(atom, pl.Series(values, dtype=pl.String))
        case Test.IN | Test.NOT_IN:
            wanted: Any = atom.value
            hit = np.array([value in wanted for value in values], np.bool_) != (atom.test is Test.NOT_IN)
            known = np.array([value is not None for value in values], np.bool_)
            return hit & known, ~hit & known
        case Test.BEFORE | Test.AFTER:
            return of_times(atom, np.array([NULL if value is None else value for value in values], np.int64))
        case _:
            found = [evaluate(atom, {atom.column: value}) for value in values]
            return np.array([f is True for f in found], np.bool_), np.array([f is False for f in found], np.bool_)


def of_names(atom: Atom, names: pl.Series) -> Masks:
    """The answer to LIKE and IN on texts. Raises `BadRequestError` for a pattern too large to search for."""
    wanted: Any = atom.value
    if atom.test is Test.LIKE:
        try:
            found = names.str.contains(like_to_regex(wanted))
        except pl.exceptions.ComputeError as error:
            raise BadRequestError(f"This like_ pattern cannot be searched for: {error}") from None
    else:
        found = names.is_in(list(wanted))
    hit = found.fill_null(value=False).to_numpy()
    if not names.null_count():
        return hit, ~hit
    known = names.is_not_null().to_numpy()
    return hit & known, ~hit & known


def of_times(atom: Atom, column: Ints) -> Masks:
    """The answer to BEFORE, AFTER and IS_NULL on times, where NULL is `rows.NULL`."""
    known = column != NULL
    if atom.test is Test.IS_NULL:
        return two_valued(known != atom.value)
    bound: Any = atom.value
    found: Mask = column <= bound if atom.test is Test.BEFORE else column >= bound
    return found & known, ~found & known

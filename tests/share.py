"""How many of random valid bodies are answered without a scan: `uv run python -m tests.share [BODIES]`.

Bodies are those of the properties: each of the four filters in two of five, with up to three sub-filters of all that
there are, evenly. Edges of bins and `now` are left aside: they may take the raw runs of single minutes.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from pydantic import ValidationError

from runtally.api.cells import scanned
from runtally.api.explain import raw_filters
from runtally.api.models import CountBody, filters_of
from runtally.core.predicate import compile_filters
from runtally.core.request import Filters
from runtally.core.selection import selection_of

from .strategies.filters import filters_of as drawn

BODIES = 10_000
_MOST_NAMED = 10


class Share(NamedTuple):
    """Of `bodies` valid ones, by the number of their sub-filters: how many there are, and how many need no scan.

    `because`: filters by how many bodies need a scan for them.
    """

    bodies: int
    by_size: dict[int, tuple[int, int]]
    because: Counter[str]

    @property
    def from_cells(self) -> int:
        """How many need no scan."""
        return sum(count for _, count in self.by_size.values())


def share(bodies: int) -> Share:
    """Look at so many valid bodies, the same ones each time."""
    drawn_by_size: Counter[int] = Counter()
    from_cells: Counter[int] = Counter()
    because: Counter[str] = Counter()
    for filters in _valid(bodies):
        size = sum(len(getattr(filters, entity).parts) for entity in filters.given())
        selection = selection_of(compile_filters(filters))
        drawn_by_size[size] += 1
        if scanned(selection):
            because.update(raw_filters(filters, selection))
        else:
            from_cells[size] += 1
    by_size = {size: (drawn_by_size[size], from_cells[size]) for size in sorted(drawn_by_size)}
    return Share(bodies, by_size, because)


def _valid(bodies: int) -> Iterator[Filters]:
    dice = random.Random(5)
    left = bodies
    while left:
        try:
            filters = filters_of(CountBody.model_validate(drawn(dice)))
        except ValidationError:
            continue
        left -= 1
        yield filters


def main() -> None:
    """Print the share."""
    found = share(int(sys.argv[1]) if len(sys.argv) > 1 else BODIES)
    print(f"{found.from_cells / found.bodies:.1%} of {found.bodies:,} random bodies need no scan of raw runs")
    for size, (count, from_cells) in found.by_size.items():
        print(f"  {size:2} sub-filters: {from_cells / count:6.1%} of {count:,}")
    print("the others need it for")
    for name, count in found.because.most_common(_MOST_NAMED):
        print(f"  {name}: {count:,}")


if __name__ == "__main__":
    main()

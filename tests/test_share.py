"""The share of random bodies that cells answer does not fall unseen."""

from __future__ import annotations

from .share import share


def test_what_asks_little_is_mostly_answered_from_cells() -> None:
    found = share(2000)
    shares = {size: from_cells / count for size, (count, from_cells) in found.by_size.items()}
    assert shares[0] == 1
    assert shares[1] > 0.7
    assert found.from_cells / found.bodies > 0.65

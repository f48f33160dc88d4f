"""Limits from which on something is very much, so low that the model's small estates reach them."""

from __future__ import annotations

import pytest

from runtally.store import aside, edit, families, rollups


def take_few_for_many(patch: pytest.MonkeyPatch) -> None:
    """From now on few members of a flow run, minutes and cells are very many."""
    patch.setattr(families, "SMALL_FAMILY", 0)
    patch.setattr(edit, "SMALL_FAMILY", 0)
    patch.setattr(edit, "MOST_TOUCHED", 1)
    patch.setattr(aside, "AT_ONCE", 1)
    patch.setattr(rollups, "STRETCH", 3)

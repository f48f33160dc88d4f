"""Being an earlier version."""

from __future__ import annotations

import pytest

from runtally.core import cohorts
from runtally.store import ledger, records


def without(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a version that does not know one of the cohort attributes."""
    left = {known: way for known, way in cohorts.ATTRIBUTES.items() if known != name}
    names = tuple(left)
    monkeypatch.setattr(cohorts, "ATTRIBUTES", left)
    monkeypatch.setattr(cohorts, "_AT", {known: number for number, known in enumerate(names)})
    for module in (cohorts, records, ledger):
        monkeypatch.setattr(module, "NAMES", names)

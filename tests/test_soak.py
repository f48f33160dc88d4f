"""The soak sees a leak that is a twentieth of what is there, and no other growth."""

from __future__ import annotations

from .soak import RISE, Seen

MIB = 1 << 20


def seen(worker: list[float]) -> Seen:
    """A minute a moment, of which API and Valkey stay as they are."""
    count = len(worker)
    rest = {"api": [150 * MIB] * count, "valkey": [30 * MIB] * count, "a_run": [200.0] * count}
    return Seen([60.0 * at for at in range(count)], [int(each * MIB) for each in worker], **rest)  # type: ignore[arg-type]


def test_caches_that_fill_in_the_first_half_and_noise_are_flat() -> None:
    rises = seen([100, 120, 135, 138, 140, 140, 141, 139, 140, 141, 140]).rises()
    assert max(rises.values()) <= RISE


def test_what_grows_by_a_twentieth_in_the_second_half_is_not_flat_and_is_named() -> None:
    rises = seen([130 + 1.5 * at for at in range(11)]).rises()
    assert [name for name, rise in rises.items() if rise > RISE] == ["worker RSS"]

"""What is known to change and to be asked for, and for how long."""

from __future__ import annotations

from runtally.store.hot import Hot


def test_what_was_lost_and_then_wanted_is_hot_until_it_is_not_used_for_some_moves() -> None:
    hot = Hot[int]()
    hot.want([1])
    assert [*hot] == []
    hot.lose(1)
    hot.want([1, 2])
    for _ in range(10):
        assert [*hot] == [1]
        hot.use([1])
        hot.move()
    moves = 0
    while [*hot]:
        hot.move()
        moves += 1
    assert 1 < moves < 10


def test_of_what_is_lost_and_never_wanted_little_is_remembered() -> None:
    hot = Hot[int](most_lost=8)
    for key in range(1000):
        hot.lose(key)
    hot.want(range(1000))
    assert 0 < len([*hot]) <= 8

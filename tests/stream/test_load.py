"""What is on its way never weighs more than its limit, and what got lost does not weigh for ever."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from runtally.errors import SettingError
from runtally.settings import load as settings_from
from runtally.stream.load import Carried, Load

LIMIT = 10_000_000
HERE, THERE = TP("t", 0), TP("t", 1)


def fetched(count: int, size: int = 400) -> list[Any]:
    return [SimpleNamespace(key=b"k", value=bytes(size)) for _ in range(count)]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5_000)), max_size=60), st.integers(1, 5))
def test_the_limit_holds_and_partitions_that_stand_still_keep_no_room_from_others(
    steps: list[tuple[int, int]], partitions: int
) -> None:
    load = Load(LIMIT)
    assigned = [TP("t", number) for number in range(partitions)]
    load.put_down(HERE, load.take(HERE, fetched(1)))
    waiting: list[tuple[TP, Carried]] = []
    for number, offered in steps:
        tp = assigned[number % partitions]
        open_, most = load.room(assigned)
        if tp in open_ and offered:
            waiting.append((tp, Carried(fetched(min(offered, most)), load, tp)))
        elif waiting and not offered:
            waiting.pop(0)[1].put_down()
        assert load.weight <= LIMIT
        assert set(assigned) - {where for where, _ in waiting} <= load.room(assigned)[0]


def test_a_partition_with_more_than_half_its_part_on_its_way_is_not_fetched_until_that_is_put_down() -> None:
    load = Load(LIMIT)
    load.put_down(HERE, load.take(HERE, fetched(1)))
    carried = [Carried(fetched(load.room([HERE, THERE])[1]), load, HERE) for _ in range(2)]
    assert load.room([HERE, THERE])[0] == {THERE}
    for each in carried:
        each.put_down()
        each.put_down()
        assert each == []
    assert load.weight == 0
    assert load.room([HERE, THERE])[0] == {HERE, THERE}


def test_what_nobody_holds_any_more_weighs_nothing() -> None:
    load = Load(LIMIT)
    carried = Carried(fetched(10), load, HERE)
    assert load.weight > 0
    del carried
    assert load.weight == 0


def test_what_is_found_to_be_lost_while_others_are_looked_at_is_put_down_at_once() -> None:
    load = Load(LIMIT)
    lost = [Carried(fetched(10), load, HERE)]

    class Losing(list[TP]):
        def __iter__(self):  # type: ignore[no-untyped-def]
            lost.clear()
            return super().__iter__()

    assert load.room(Losing([HERE]))[0] == {HERE}
    assert load.weight == 0


def test_of_large_events_fewer_are_fetched_and_one_at_least() -> None:
    load = Load(LIMIT)
    most = []
    for size in (100, 10_000, 100_000_000):
        load.put_down(HERE, load.take(HERE, fetched(1, size)))
        most.append(load.room([HERE])[1])
    assert most == sorted(most, reverse=True)
    assert most[-1] == 1


def test_a_memory_that_is_too_small_is_refused_by_name() -> None:
    with pytest.raises(SettingError, match=r"RUNTALLY_WORKER_MEMORY: .* 67108864 "):
        settings_from({"worker_memory": "63MiB"})

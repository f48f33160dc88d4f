"""What is on its way never weighs more than its limit, and what got lost does not weigh for ever."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from runtally.errors import SettingError
from runtally.settings import load as settings_from
from runtally.stream.load import Carried, Load, Turns

LIMIT = 10_000_000
HERE, THERE = TP("t", 0), TP("t", 1)


def fetched(count: int, size: int = 400) -> list[Any]:
    return [SimpleNamespace(key=b"k", value=bytes(size)) for _ in range(count)]


def seen(load: Load, size: int = 400) -> None:
    """Let it know how large events are."""
    load.put_down(HERE, load.take(HERE, 1, size))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5_000)), max_size=60), st.integers(1, 5))
def test_the_limit_holds_and_partitions_that_stand_still_keep_no_room_from_others(
    steps: list[tuple[int, int]], partitions: int
) -> None:
    load = Load(LIMIT)
    assigned = [TP("t", number) for number in range(partitions)]
    seen(load)
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
    seen(load)
    part = LIMIT // 4
    carried: list[Carried] = []
    while HERE in load.room([HERE, THERE])[0]:
        assert load.weight <= part / 2
        carried.append(Carried(fetched(load.room([HERE, THERE])[1]), load, HERE))
    assert load.room([HERE, THERE])[0] == {THERE}
    assert part / 2 < load.weight <= part
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
        seen(load, size)
        most.append(load.room([HERE])[1])
    assert most == sorted(most, reverse=True)
    assert most[-1] == 1


def test_what_may_be_fetched_at_once_may_be_applied_at_once_and_is_no_more_than_a_fourth_of_what_may_be() -> None:
    load = Load(LIMIT)
    seen(load)
    carried = Carried(fetched(load.room([HERE])[1]), load, HERE)
    assert 0.9 * load.turns.batch < carried.work <= load.turns.batch <= LIMIT / 8


async def test_batches_have_their_turn_in_their_order_and_together_weigh_no_more_than_the_limit() -> None:
    turns = Turns(9)
    begun: list[int] = []
    ends = [asyncio.Event() for _ in range(7)]

    async def work(number: int, weight: int) -> None:
        async with turns.turn(weight):
            begun.append(number)
            await ends[number].wait()

    async def settled() -> list[int]:
        for _ in range(5):
            await asyncio.sleep(0)
        return begun

    tasks = [asyncio.create_task(work(number, weight)) for number, weight in enumerate((4, 5, 1, 99, 4, 3, 3))]
    assert (await settled(), turns.weight) == ([0, 1], 9)
    ends[0].set()
    assert (await settled(), turns.weight) == ([0, 1, 2], 6)
    # Who gives up keeps no place, and nobody behind comes before a heavy one, which goes when it is alone.
    tasks[4].cancel()
    ends[1].set()
    assert (await settled(), turns.weight) == ([0, 1, 2], 1)
    tasks[2].cancel()
    assert (await settled(), turns.weight) == ([0, 1, 2, 3], 99)
    tasks[3].cancel()
    assert (await settled(), turns.weight) == ([0, 1, 2, 3, 5, 6], 6)
    ends[5].set()
    ends[6].set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert turns.weight == 0


async def test_a_heavy_batch_that_gives_up_holds_nobody_up() -> None:
    turns = Turns(9)
    begun = asyncio.Event()

    async def work(weight: int) -> None:
        async with turns.turn(weight):
            begun.set()

    async with turns.turn(5):
        heavy, light = asyncio.create_task(work(99)), asyncio.create_task(work(4))
        await asyncio.sleep(0)
        heavy.cancel()
        await asyncio.wait_for(begun.wait(), 10)
    await asyncio.gather(heavy, light, return_exceptions=True)
    assert turns.weight == 0


async def test_a_turn_that_comes_to_one_who_has_just_given_up_is_the_next_ones() -> None:
    turns = Turns(1)
    begun = asyncio.Event()

    async def work() -> None:
        async with turns.turn(1):
            begun.set()

    async with turns.turn(1):
        tasks = [asyncio.create_task(work()) for _ in range(2)]
        await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.wait_for(begun.wait(), 10)
    assert (await asyncio.gather(*tasks, return_exceptions=True))[1] is None
    assert turns.weight == 0


def test_a_memory_that_is_too_small_is_refused_by_name() -> None:
    with pytest.raises(SettingError, match=r"RUNTALLY_WORKER_MEMORY: .* 67108864 "):
        settings_from({"worker_memory": "63MiB"})

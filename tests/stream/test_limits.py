"""When so many events are bad that it cannot be chance; and when it may be."""

from __future__ import annotations

from runtally.stream.limits import WINDOW, Limits, Tally, TooMany

LIMITS = Limits(in_a_row=5, share=0.5)


def judged(*batches: str) -> Tally | TooMany:
    """The tally after batches of good (`.`) and bad (`x`) events, each batch at once."""
    tally: Tally | TooMany = Tally()
    for batch in batches:
        assert isinstance(tally, Tally)
        tally = tally.after(len(batch), [at for at, event in enumerate(batch) if event == "x"], LIMITS)
    return tally


def test_one_good_event_in_a_batch_does_not_hide_the_bad_ones_around_it() -> None:
    assert judged("." * 20 + "xxxxx" + ".") == TooMany(20, "5 events in a row")
    assert judged("." * 20, "xxxx.xxxx") == Tally(4, 29, 8)


def test_bad_events_in_a_row_are_counted_over_batches() -> None:
    assert judged("." * 20 + "xx", "xx", "x.") == TooMany(0, "5 events in a row")
    assert judged("." * 20 + "xx", "xx", ".x") == Tally(1, 26, 5)


def test_a_share_that_is_too_great_stops_at_its_first_bad_event_and_only_from_so_many_on() -> None:
    assert judged("x.x.x.", ".x") == Tally(1, 8, 4)
    assert judged("x.x.x.", ".xx") == TooMany(1, "5 of the last 9 events")
    assert judged("x.x.x.", ".xx.") == Tally(0, 10, 5)


def test_good_events_of_long_ago_weigh_nothing() -> None:
    tally = judged("." * 100 * WINDOW)
    assert tally == Tally(0, WINDOW, 0)
    batches = 0
    while isinstance(tally, Tally) and batches < 100:
        tally = tally.after(1000, range(0, 1000, 2), Limits(1000, 0.4))
        batches += 1
    assert isinstance(tally, TooMany)
    assert 10 < batches < 30


def test_a_share_of_one_is_never_exceeded() -> None:
    tally: Tally | TooMany = Tally()
    for _ in range(50):
        assert isinstance(tally, Tally)
        tally = tally.after(1000, [*range(999)], Limits(1000, 1.0))
    assert isinstance(tally, Tally)

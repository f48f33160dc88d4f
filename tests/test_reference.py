"""The reference gives every known answer, so that it may judge the rest."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .conftest import examples
from .reference import Reference
from .reference.entities import Row
from .reference.events import id_text, uuid_of
from .reference.history import width_us
from .reference.like import like
from .reference.times import body_time_us
from .reference.vectors import (
    BIN_COUNTS,
    BIN_EDGES,
    COUNTS,
    DT_US,
    ESTIMATES,
    SELECTIONS,
    TASK_RUN_BINS,
    TIMES_US,
    WIDTHS_US,
    Vectors,
    at,
    body,
)
from .strategies import estates, filters_of, requests, sub_filters

RUN, FLOW_RUN = "0c0ffee0-0000-4000-8000-000000000001", "0c0ffee0-0000-4000-8000-000000000002"


def told(vectors: Vectors) -> Reference:
    return referred(vectors.events)


def referred(events: list[dict[str, Any]]) -> Reference:
    reference = Reference()
    for event in events:
        assert reference.apply(event) == "applied"
    return reference


def event(action: str = "upsert", entity: str = "task_run", occurred: str = at(hours=1), **data: Any) -> dict[str, Any]:
    own = {"id": RUN, "flow_run_id": FLOW_RUN} if entity == "task_run" else {}
    return {"entity": entity, "action": action, "occurred": occurred, "data": {**own, **data}}


def snapshot(state: tuple[str, str] = ("COMPLETED", "Completed"), **data: Any) -> dict[str, Any]:
    parts = {"name": "n", "state_type": state[0], "state_name": state[1], "state_timestamp": at()}
    occurred = data.pop("occurred", at(hours=1))
    return event(occurred=occurred, **{**parts, **data})


def only(reference: Reference) -> Row:
    (row,) = reference.task_runs()
    assert row["task_run"] is not None
    return row["task_run"]


# -- known answers


@pytest.mark.parametrize(("filter_", "expected"), COUNTS.cases, ids=lambda case: json.dumps(case, default=str))
def test_counts_are_prefects(filter_: dict[str, Any], expected: int) -> None:
    assert told(COUNTS).count(filter_) == expected


@pytest.mark.parametrize(("filter_", "selected"), SELECTIONS.cases, ids=lambda case: json.dumps(case, default=sorted))
def test_selections_are_prefects(filter_: dict[str, Any], selected: set[str]) -> None:
    reference = told(SELECTIONS)
    bins = reference.history({**SELECTIONS.range, **filter_}, SELECTIONS.now_us)
    assert {f"t{number}" for number, bin_ in enumerate(bins) if bin_["states"]} == selected
    assert reference.count(filter_) == len(selected)


@pytest.mark.parametrize(("filter_", "expected"), TASK_RUN_BINS.cases)
def test_bins_of_task_runs_are_prefects(filter_: dict[str, Any], expected: list[dict[tuple[str, str], int]]) -> None:
    bins = told(TASK_RUN_BINS).history_us({**TASK_RUN_BINS.range, **filter_}, TASK_RUN_BINS.now_us)
    assert [{state: sums[0] for state, sums in states.items()} for _, _, states in bins] == expected


def test_estimates_are_prefects() -> None:
    (_, expected), *_ = ESTIMATES.cases
    ((_, _, states),) = told(ESTIMATES).history_us(ESTIMATES.range, ESTIMATES.now_us)
    assert states == expected


@pytest.mark.parametrize(("seconds", "width", "bins"), BIN_COUNTS)
def test_there_are_as_many_bins_as_prefect_makes(seconds: float, width: float, bins: int) -> None:
    answer = Reference().history_us(body(at(), at(seconds=seconds), width), 0)
    assert len(answer) == bins
    assert answer[0][:2] == (DT_US, DT_US + width * 1_000_000)
    assert answer[-1][0] == DT_US + (bins - 1) * width * 1_000_000


@pytest.mark.parametrize(("seconds", "width", "edges"), BIN_EDGES)
def test_bins_begin_and_end_where_prefects_do(seconds: float, width: float, edges: list[float]) -> None:
    answer = Reference().history_us(body(at(), at(seconds=seconds), width), 0)
    instants = [DT_US + round(edge * 1_000_000) for edge in edges]
    assert [(start, end) for start, end, _ in answer] == list(itertools.pairwise(instants))


@pytest.mark.parametrize(("given", "width"), WIDTHS_US)
def test_a_width_is_rounded_before_it_is_judged(given: Any, width: int | None) -> None:
    if width is None:
        with pytest.raises(ValueError, match="History interval must not be less than 1 second"):
            width_us(given)
    else:
        assert width_us(given) == width


@pytest.mark.parametrize(("given", "instant"), TIMES_US)
def test_times_of_a_body_are_understood(given: Any, instant: int) -> None:
    assert body_time_us(given) == instant


def test_an_answer_reads_as_prefects_json() -> None:
    reference = referred([snapshot(expected_start_time=at(seconds=1.5), total_run_time=2, start_time=at(seconds=2))])
    assert reference.history(body(at(), at(seconds=2), 1.5), DT_US) == [
        {"interval_start": "2021-07-01T00:00:00Z", "interval_end": "2021-07-01T00:00:01.500000Z", "states": []},
        {
            "interval_start": "2021-07-01T00:00:01.500000Z",
            "interval_end": "2021-07-01T00:00:03Z",
            "states": [
                {
                    "state_type": "COMPLETED",
                    "state_name": "Completed",
                    "count_runs": 1,
                    "sum_estimated_run_time": 2.0,
                    "sum_estimated_lateness": 0.5,
                }
            ],
        },
    ]


# -- like_


@pytest.mark.parametrize(
    ("name", "value", "matches"),
    [
        ("d-1-1", "d_1", True),
        ("", "%", True),
        ("", "_", False),
        ("a\nb", "a_b", True),
        ("100%", r"0\%", True),
        ("100x", r"0\%", False),
        ("a_c", r"a\_c", True),
        ("abc", r"a\_c", False),
        ("a\\b", r"a\\b", True),
        ("abc", r"\a\b", True),
        ("ends with %", "with \\", True),
        ("ends with", "with\\", False),
        ("gamma ÀÉ", "àé", True),
        ("STRASSE", "straße", False),
        ("straẞe", "STRAßE", True),
        ("K", "\N{KELVIN SIGN}", True),
        ("x" * 300, "%x" * 120, True),
        ("x" * 300, "%x" * 120 + "y", False),
        ("[a-z].*", "[A-Z].*", True),
        ("abc", "[a-z]", False),
    ],
)
def test_like_matches_by_the_rules_of_postgresql(name: str, value: str, matches: bool) -> None:
    assert like(name, value) is matches


# -- events


def test_every_order_of_arrival_ends_in_the_newest_state() -> None:
    states = [
        ("PENDING", "Pending", at()),
        ("RUNNING", "Running", at(minutes=1)),
        ("COMPLETED", "Completed", at(minutes=2)),
    ]
    patches = [
        event("patch", occurred=then, state_type=kind, state_name=name, state_timestamp=then)
        for kind, name, then in states
    ]
    patches[1]["data"]["start_time"] = at(minutes=1)
    for order in itertools.permutations(patches):
        run = only(referred([*order, *order[:1]]))
        assert (run["state_name"], run["start_time"]) == ("Completed", DT_US + 60_000_000)


def test_an_older_state_does_not_hide_a_newer_one() -> None:
    running = snapshot(("RUNNING", "Running"), state_timestamp=at(seconds=5))
    late = snapshot(state_timestamp=at(seconds=4), name="renamed", occurred=at(hours=2))
    run = only(referred([running, late]))
    assert (run["state_name"], run["name"]) == ("Running", "renamed")


def test_between_equal_versions_the_greater_bytes_win() -> None:
    same = [snapshot(name="a", tags=["z"]), snapshot(name="é", tags=[]), snapshot(name="b", tags=["a", "b"])]
    for order in itertools.permutations(same):
        run = only(referred(list(order)))
        assert (run["name"], run["tags"]) == ("é", [])


def test_a_patch_says_nothing_of_what_it_does_not_carry() -> None:
    run = only(referred([snapshot(tags=["a"]), event("patch", occurred=at(hours=2), name=None)]))
    assert (run["name"], run["tags"], run["state_name"]) == (None, ["a"], "Completed")


def test_a_delete_is_final_whatever_its_time() -> None:
    gone = event("delete", occurred=at(hours=-9))
    assert referred([gone, snapshot()]).task_runs() == []
    owner_gone = event("delete", entity="flow_run", id=FLOW_RUN)
    assert referred([owner_gone, snapshot()]).task_runs() == []


def test_what_is_only_referred_to_exists_but_for_a_deployment() -> None:
    (row,) = referred([snapshot()]).task_runs()
    assert row["flow_run"] is not None
    assert row["flow"] is not None
    assert (row["flow_run"]["name"], row["flow_run"]["tags"]) == (None, [])
    assert (row["flow"]["id"], row["flow"]["tags"], row["deployment"]) == (None, [], None)


def test_a_flow_runs_word_for_its_flow_counts_until_the_catalog_has_one() -> None:
    owner = event(entity="flow_run", id=FLOW_RUN, flow_id="a flow", flow_name="told")
    reference = referred([snapshot(), owner])
    assert reference.count({"flows": {"name": {"any_": ["told"]}}}) == 1
    reference.apply(event(entity="flow", id="a flow", name="known"))
    assert reference.count({"flows": {"name": {"any_": ["known"]}}}) == 1
    reference.apply(event("delete", entity="flow", id="a flow"))
    assert reference.count({"flows": {}}) == 0
    assert reference.count({}) == 1


def test_ids_are_uuids_in_any_spelling_or_texts_of_their_entity() -> None:
    plain = RUN.replace("-", "")
    assert {uuid_of(text) for text in (RUN, RUN.upper(), plain, f"{{{RUN}}}", f"urn:uuid:{RUN}")} == {RUN}
    assert uuid_of("x" + plain[1:]) is None
    assert id_text("flow", "a") != id_text("flow_run", "a")


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"[]",
        b"{",
        b'{"entity": NaN}',
        json.dumps(event(entity="flow", id="a", name="n", unknown="\ud800")),
        "\ud800",
        b" " * (1 << 20) + b"{}",
        {},
        {"entity": "pool", "action": "upsert", "occurred": at(), "data": {"id": "a"}},
        {"entity": "flow", "action": "merge", "occurred": at(), "data": {"id": "a"}},
        event(entity="flow", id="a"),
        event(entity="flow", id="", name="n"),
        event(entity="flow", id="é" * 126, name="n"),
        event(entity="flow", id="a", name=1),
        event(entity="flow", id="a", name="n", tags=["a", None]),
        event(entity="flow", id="a", name="n", occurred="2021-07-01T00:00:00"),
        event(entity="flow", id="a", name="n", occurred="2200-01-01T00:00:00Z"),
        event(entity="flow", id="a", name="n", occurred="1970-01-01T00:00:00+00:01"),
        event(entity="deployment", id="a", name="n"),
        event(entity="deployment", id="a", name="n", flow_id="f", paused="no"),
        event("patch", start_time=at()),
        event("patch", start_time=None),
        event("patch", state_type="RUNNING", state_name="Running", state_timestamp=None),
        event(entity="flow_run", id="a", flow_id="f", end_time=at()),
        event(entity="flow_run", id="a", flow_id="f", state_type="RUNNING"),
        snapshot(("Running", "Running")),
        snapshot(total_run_time=True),
        snapshot(total_run_time=3_155_760_000.1),
        {"entity": "task_run", "action": "delete", "occurred": at(), "data": {"id": RUN}},
        {"event": "prefect.task-run.Running", "resource": {"prefect.orchestration": "client"}, "occurred": at()},
    ],
    ids=lambda bad: repr(bad)[:90],
)
def test_a_bad_event_is_refused(bad: Any) -> None:
    reference = Reference()
    assert reference.apply(bad).startswith("bad: ")
    assert reference.task_runs() == []


def test_a_clock_far_ahead_of_its_record_is_bad() -> None:
    reference = Reference(max_clock_skew_us=1_000_000)
    ahead = snapshot(occurred=at(), state_timestamp=at(seconds=1, microseconds=1))
    assert reference.apply(ahead, DT_US).startswith("bad: ")
    assert reference.apply(ahead, DT_US + 1) == "applied"


def test_prefects_own_events_are_patches() -> None:
    lines = (Path(__file__).parent / "data" / "prefect-events.jsonl").read_bytes().splitlines()
    reference = Reference()
    outcomes = [reference.apply(line) for line in lines]
    assert {outcome: outcomes.count(outcome) for outcome in outcomes} == {"applied": 52, "ignored": 2}
    assert (reference.count({}), reference.count({"flow_runs": {}})) == (15, 14)
    assert (
        reference.count({"flow_runs": {"name": {"any_": ["jade-mouflon"]}}, "task_runs": {"tags": {"all_": ["etl"]}}})
        > 0
    )
    runs = [row["task_run"]["state_name"] for row in reference.task_runs()]
    assert sorted(set(runs)) == ["Cached", "Completed", "CustomDone", "Failed", "NotReady", "Scheduled", "TimedOut"]


# -- the strategies, judged by the reference


@examples(200)
@given(estates(), requests(5), st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_changes_an_answer(
    events: list[dict[str, Any]], asked: list[tuple[dict[str, Any], int]], dice: Random
) -> None:
    once, again = referred(events), referred([*events[::2], *dice.sample(events, len(events))])
    assert once.task_runs() == again.task_runs()
    for request, now_us in asked:
        assert once.history_us(request, now_us) == again.history_us(request, now_us)
        assert once.count(request) == again.count(request)


@examples(200)
@given(estates(latest_us=DT_US))
def test_an_estate_keeps_to_the_clock_it_is_told(events: list[dict[str, Any]]) -> None:
    reference = Reference(max_clock_skew_us=0)
    assert {reference.apply(json.dumps(told), DT_US) for told in events} <= {"applied"}


def test_the_filters_reach_every_attribute() -> None:
    drawn = {
        (entity, sub, attribute)
        for seed in range(2000)
        for entity, filter_ in filters_of(Random(seed)).items()
        for sub, attributes in (filter_ or {}).items()
        if isinstance(attributes, dict)
        for attribute in attributes
    }
    assert set(sub_filters()) <= drawn

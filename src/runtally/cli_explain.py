"""`runtally history --explain`: how an answer is found, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table


def shown(found: dict[str, Any]) -> Group:
    """What the answer was made from, the ways in which it could be found (`*` the one that was taken), and why raw
    runs were needed."""
    from rich.console import Group
    from rich.text import Text

    bins = found["bins"]
    head = f"{bins['count']} bins of {bins['seconds']:g} s from {bins['start']} to {bins['end']}"
    reasons = [
        Text.assemble((f"{reason['about']}: ", "bold"), f"{reason['why']} {reason['instead']}")
        for reason in found["because"]
    ]
    return Group(Text(f"{head}\n{found['plan']}"), _parts(found), _ways(found), *reasons)


def _parts(found: dict[str, Any]) -> Table:
    table = _table("read", "level", "buckets", "cells or runs")
    for part in found["parts"]:
        table.add_row(part["scope"], part["level"], _number(part["buckets"]), _number(part["cells"]))
    real = found["real"]
    table.add_row("raw runs", "", _number(real["raw_minutes"]), _number(real["raw_rows"]))
    return table


def _ways(found: dict[str, Any]) -> Table:
    table = _table("", "way", "buckets", "values at most", "raw runs, about")
    for way in found["ways"]:
        numbers = (_number(way[name]) for name in ("buckets", "values", "raw_rows"))
        table.add_row("*" if way["taken"] else "", way["way"], *numbers)
    return table


def _table(*titles: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for number, title in enumerate(titles):
        table.add_column(title, justify="left" if number < 2 else "right", no_wrap=True)
    return table


def _number(count: int) -> str:
    return f"{count:,}" if count else "·"

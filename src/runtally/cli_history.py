"""`runtally history`: a thin client of `POST /api/task_runs/history` and a table of its answer."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from .embedded.upfile import load_settings
from .errors import SettingError, SystemError_, UserError
from .settings import NEVER_US, Settings, parse_duration_us

if TYPE_CHECKING:
    import httpx
    from rich.table import Table

_WIDTHS_S: Final = (1, 5, 10, 15, 30, 60, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 604_800)
_ROWS: Final = 24
_MOST_BINS: Final = 500
_WATCH_S: Final = 1.0
_STYLES: Final = {
    "SCHEDULED": "yellow",
    "PENDING": "bright_black",
    "RUNNING": "blue",
    "COMPLETED": "green",
    "FAILED": "red",
    "CANCELLED": "bright_black",
    "CRASHED": "dark_orange",
    "PAUSED": "bright_black",
    "CANCELLING": "bright_black",
}
"""The order of the columns, too."""

_WIDE: Final = 1000
_HISTORY: Final = "/api/task_runs/history"
_EXPLAIN: Final = "/runtally/api/task_runs/history/explain"

Bin = dict[str, Any]
"""One element of the answer, as JSON."""
State = tuple[str, str]
"""State type and name."""


def history(
    last: Annotated[str, typer.Option(help="How far back: 90s, 15m, 24h, 7d.")] = "24h",
    every: Annotated[
        str | None, typer.Option(help="Width of a bin: 5m, 1h. Default: what gives about twenty rows.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Ask again every second until Ctrl-C.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show how the answer is found instead of the answer.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the API's answer as it is.")] = False,
    url: Annotated[str | None, typer.Option(help="Where the API is; overrides RUNTALLY_URL.")] = None,
) -> None:
    """Show how many task runs there were, by bins of time and by state.

    A task run counts to the bin of the time at which it was expected to start. Beside a running `runtally up` no
    address is needed.

        runtally history --last 24h --every 1h

        runtally history --last 15m --watch

        runtally history --last 7d --every 1d --json | jq '.[0]'

        runtally history --last 7d --explain
    """
    if explain and watch:
        raise SettingError("--explain", "explains one answer; leave out --watch")
    last_s = _seconds("--last", last)
    width_s = _seconds("--every", every) if every else _nice_width(last_s)
    if last_s > width_s * _MOST_BINS:
        least = next((f"{width}s" for width in _WIDTHS_S if last_s <= width * _MOST_BINS), "7d")
        raise SettingError("--every", f"{last} in bins of {every} are more than {_MOST_BINS}; take {least} or more")
    address = _address(load_settings({"url": url}))
    body = {"history_start": _before(last_s), "history_end": "now", "history_interval_seconds": width_s}
    import httpx

    with httpx.Client(base_url=address, timeout=60) as client, contextlib.suppress(KeyboardInterrupt):
        if explain:
            _print_plan(_ask(client, body, _EXPLAIN), as_json)
        elif not watch:
            _print(_ask(client, body), as_json)
        elif as_json:
            while True:
                typer.echo(json.dumps(_ask(client, body)))
                time.sleep(_WATCH_S)
        else:
            _watch(client, body)


def _print(bins: list[Bin], as_json: bool) -> None:
    from rich.console import Console

    if as_json:
        typer.echo(json.dumps(bins, indent=2))
    else:
        console = Console()
        # Into a file or a pipe: as wide as it is.
        width = console.width if console.is_terminal else _WIDE
        Console(width=width).print(table(bins, width))


def _print_plan(found: dict[str, Any], as_json: bool) -> None:
    from rich.console import Console

    from .cli_explain import shown

    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        console = Console()
        Console(width=console.width if console.is_terminal else _WIDE).print(shown(found))


def _watch(client: httpx.Client, body: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            try:
                shown = table(_ask(client, body), console.width, most_rows=max(1, console.height - 6))
                live.update(shown, refresh=True)
            except SystemError_ as error:
                live.update(Text(str(error)), refresh=True)
            time.sleep(_WATCH_S)


def table(bins: Sequence[Bin], width: int, most_rows: int | None = None) -> Table:
    """A row per bin (the newest `most_rows`), the totals of all bins, and a column per state, the rarest of them as one
    where the table would be wider than `width` characters."""
    totals = Counter[State]()
    for each in bins:
        totals.update(_counts(each))
    by_count = [state for state, _ in totals.most_common()]
    for shown in range(len(by_count), -1, -1):
        made = _table(bins, by_count[:shown], most_rows)
        if sum(column_width + 2 for column_width in _widths(made)) < width:
            break
    return made


def _table(bins: Sequence[Bin], states: list[State], most_rows: int | None) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    order = list(_STYLES)
    states = sorted(states, key=lambda state: (order.index(state[0]), state[1]))
    all_states = {state for each in bins for state in _counts(each)}
    rest = len(all_states) > len(states)
    rows = [_row(each, states, rest) for each in bins]
    shown = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        show_footer=True,
        header_style="bold",
        footer_style="bold",
    )
    totals = [sum(column) for column in zip(*rows, strict=True)] or [0] * (len(states) + rest + 3)
    shown.add_column("from", footer="all", no_wrap=True)
    titles = [(name, _STYLES[state_type]) for state_type, name in states] + [("other", "")] * rest
    for (title, style), total in zip(titles, totals, strict=False):
        shown.add_column(title, footer=f"{total:,}", justify="right", style=style, no_wrap=True)
    shown.add_column("runs", footer=f"{totals[-3]:,}", justify="right", no_wrap=True)
    shown.add_column("run time", footer=_duration(totals[-2]), justify="right", no_wrap=True)
    shown.add_column("lateness", footer=_duration(totals[-1]), justify="right", no_wrap=True)
    for each, row in list(zip(bins, rows, strict=True))[-most_rows if most_rows else 0 :]:
        counts = (f"{count:,}" if count else "·" for count in row[:-3])
        shown.add_row(_moment(each), *counts, f"{row[-3]:,}", _duration(row[-2]), _duration(row[-1]))
    return shown


def _row(each: Bin, states: list[State], rest: bool) -> list[float]:
    """The numbers of a row: a count per state, of the rest if there is one, of all; run time and lateness in
    seconds."""
    counts = _counts(each)
    runs = sum(counts.values())
    named = [counts[state] for state in states]
    return [
        *named,
        *([runs - sum(named)] if rest else []),
        runs,
        sum(state["sum_estimated_run_time"] for state in each["states"]),
        sum(state["sum_estimated_lateness"] for state in each["states"]),
    ]


def _counts(each: Bin) -> Counter[State]:
    return Counter({(state["state_type"], state["state_name"]): state["count_runs"] for state in each["states"]})


def _widths(made: Table) -> list[int]:
    columns = ([column.header, column.footer, *column.cells] for column in made.columns)
    return [max(len(str(cell)) for cell in cells) for cells in columns]


def _ask(client: httpx.Client, body: dict[str, Any], path: str = _HISTORY) -> Any:
    import httpx

    try:
        answer = client.post(path, json=body)
    except httpx.TransportError as error:
        raise SystemError_(
            f"the API at {client.base_url} does not answer ({error or type(error).__name__}): start `runtally up` or "
            "`runtally api`, or say where it is with --url"
        ) from None
    if answer.status_code == 200:
        return answer.json()
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = answer.text[:200]
    if answer.status_code < 500 and answer.status_code != 404:
        raise UserError(f"the API refused the question: {detail}")
    raise SystemError_(f"the API at {client.base_url} cannot answer now ({answer.status_code}): {detail}")


def _address(settings: Settings) -> str:
    host = "127.0.0.1" if settings.api_host == "0.0.0.0" else settings.api_host
    return (settings.url or f"http://{host}:{settings.api_port}").rstrip("/")


def _seconds(option: str, text: str) -> int:
    try:
        duration_us = parse_duration_us(text)
    except ValueError as error:
        raise SettingError(option, f"{error} (got {text!r})") from None
    seconds, beyond_us = divmod(duration_us, 1_000_000)
    if not 0 < duration_us < NEVER_US or beyond_us:
        raise SettingError(option, f"expected whole seconds above zero, such as 15m or 24h (got {text!r})")
    return seconds


def _nice_width(range_s: int) -> int:
    return next((width for width in _WIDTHS_S if range_s <= width * _ROWS), -(-range_s // _ROWS))


def _before(seconds: int) -> str:
    return f"-PT{seconds // 3600}H" if seconds % 3600 == 0 else f"-PT{seconds}S"


def _moment(each: Bin) -> str:
    moment, end = (datetime.fromisoformat(each[f"interval_{edge}"]).astimezone() for edge in ("start", "end"))
    return moment.strftime("%b %d %H:%M:%S" if (end - moment).total_seconds() < 60 else "%b %d %H:%M")


def _duration(seconds: float) -> str:
    for unit, width in (("h", 3600), ("m", 60)):
        if seconds >= 2 * width:
            return f"{seconds / width:,.1f} {unit}"
    return f"{seconds:.1f} s"

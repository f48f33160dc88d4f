"""The tables of the pages that are made from the code.

A page has its table between two comments; `filled` puts it there anew, and a test holds the pages against that. To
write them: `python -m runtally.docs.tables`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ..core import filters
from ..metrics import METRICS, PREFIX
from ..settings import NEVER_US, Settings, parse_duration_us, parse_size_bytes
from ..store.keys import KEYS

FOLDER: Final = Path(str(files("runtally"))) / "docs"
_TABLE: Final = re.compile(r"(<!-- made by runtally\.docs\.tables -->\n).*?(<!-- end -->)", re.DOTALL)
_UNITS: Final = {
    parse_duration_us: ((86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1000, "ms")),
    parse_size_bytes: ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")),
}
"""How a value is written that the parser reads, by the parser; the largest unit that divides it."""


def settings_table() -> str:
    """A row per setting: variable, default as one would write it, description."""
    rows = [
        (f"`RUNTALLY_{name.upper()}`", _default(field), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    return _markdown(("variable", "default", "what it is"), rows)


def metrics_table() -> str:
    """A row per metric: name, kind, labels, who shows it, meaning."""
    rows = [
        (
            f"`{PREFIX}{row.name}`",
            row.kind,
            ", ".join(f"`{label}`" for label in row.labels),
            " and ".join("API" if process == "api" else process for process in row.shown_by),
            row.meaning,
        )
        for row in METRICS
    ]
    return _markdown(("metric", "kind", "labels", "shown by", "what it tells"), rows)


def keys_table() -> str:
    """A row per key in Redis: pattern, type, what it holds, what it goes with."""
    return _markdown(
        ("key", "type", "holds", "goes with"), [(f"`{row.pattern}`", row.type, row.holds, row.goes) for row in KEYS]
    )


PAGES: Final[dict[str, Callable[[], str]]] = {
    "settings.md": settings_table,
    "metrics.md": metrics_table,
    "filters.md": filters.markdown,
    "design.md": keys_table,
}


def filled(page: str, text: str) -> str:
    """The text of a page with its table made anew. Raises `ValueError` when it has no place for one."""
    table = PAGES[page]()
    made, count = _TABLE.subn(lambda match: f"{match[1]}\n{table}\n\n{match[2]}", text)
    if count != 1:
        raise ValueError(f"{page} has {count} places for its table")
    return made


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "see right"
    parser = next((each.func for each in field.metadata if getattr(each, "func", None) in _UNITS), None)
    return f"`{_written(field.default, parser)}`" if field.default != "" else ""


def _written(value: Any, parser: Any) -> str:
    if parser is parse_duration_us and value >= NEVER_US:
        return "never"
    if isinstance(value, bool):
        return str(value).lower()
    for width, unit in _UNITS.get(parser, ()):
        if value % width == 0:
            return f"{value // width}{unit}"
    return str(value)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    for name in PAGES:
        page = FOLDER / name
        page.write_text(filled(name, page.read_text(encoding="utf-8")), encoding="utf-8")

"""What a run of chaos has shown."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from .driver import Cycle, Run


def say(words: str) -> None:
    """One line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr, flush=True)


def show(done: Run, *, as_json: bool) -> None:
    """Print it; the logs are kept when something was wrong."""
    if done.trouble:
        _keep(done)
    else:
        shutil.rmtree(done.folder, ignore_errors=True)
    rows = _by_rule(done.cycles)
    if as_json:
        found: dict[str, Any] = {
            "seed": done.seed,
            "cycles": len(done.cycles),
            "seconds": round(done.seconds, 1),
            "faults": rows,
        }
        found |= {"trouble": done.trouble, "logs": str(done.folder) if done.trouble else None}
        print(json.dumps(found))
        return
    console = Console()
    table = Table(title=f"{len(done.cycles)} cycles in {done.seconds / 60:.1f} min, seed {done.seed}")
    table.add_column("fault")
    for name in ("cycles", "forgetting", "events", "answers", "recovery p50 s", "max s"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{value:,}" if not isinstance(value, str) else value for value in row.values()))
    console.print(table)
    if done.trouble:
        console.print(f"WRONG, see {done.folder}:", style="bold", markup=False)
        for words in done.trouble:
            console.print(words, markup=False, highlight=False)
    else:
        console.print("no difference")


def _keep(done: Run) -> None:
    lines = [f"seed {done.seed}", *done.history, "", *done.trouble]
    (done.folder / "history.txt").write_text("\n".join(lines) + "\n")


def _by_rule(cycles: list[Cycle]) -> list[dict[str, Any]]:
    rows = []
    for rule in [*dict.fromkeys(cycle.rule for cycle in cycles), ""]:
        those = [cycle for cycle in cycles if rule in ("", cycle.rule)]
        times = sorted(cycle.recovery_s for cycle in those) or [0.0]
        forgetting = sum(cycle.forgets for cycle in those)
        rows.append(
            {
                "fault": rule or "all",
                "cycles": len(those),
                "forgetting": forgetting,
                "events": sum(cycle.events for cycle in those),
                "answers": sum(cycle.answers for cycle in those),
                "recovery_p50_s": round(times[len(times) // 2], 1),
                "recovery_max_s": round(times[-1], 1),
            }
        )
    return rows

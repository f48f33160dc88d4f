"""`python -m tests.chaos`: see the package."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import tempfile
from pathlib import Path

from ..servers import jars
from . import driver, report
from .rules import RULES


def main() -> int:
    """Run, report; 0 when everything was right."""
    parser = argparse.ArgumentParser("python -m tests.chaos", description="Faults, and whether everything is right.")
    parser.add_argument("--cycles", type=int, default=0, help="so many cycles")
    parser.add_argument("--minutes", type=float, default=0, help="as many cycles as begin in so many minutes")
    parser.add_argument("--seed", type=int, default=None, help="which faults, events and questions; default: random")
    parser.add_argument("--rule", action="append", default=[], choices=[rule.name for rule in RULES], help="only these")
    parser.add_argument("--world", choices=driver.WORLDS, help="only there; default: in both, one after the other")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    lack = jars.missing()
    if lack is not None:
        print(f"chaos needs a Kafka that can be stopped: {lack}", file=sys.stderr)
        return 2
    seed = random.randrange(1 << 30) if given.seed is None else given.seed
    until_s = given.minutes * 60 if given.minutes else float("inf")
    cycles = given.cycles or (10 if not given.minutes else sys.maxsize)
    folder = Path(tempfile.mkdtemp(prefix="runtally-chaos-"))
    print(f"seed {seed}, logs in {folder}", file=sys.stderr)
    # Clients in this process say many times a second that a server is away.
    logging.basicConfig(filename=folder / "driver.log", format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    done = asyncio.run(driver.run(folder, seed, cycles, until_s, given.rule, given.world, report.say))
    report.show(done, as_json=given.json)
    return 1 if done.trouble else 0


if __name__ == "__main__":
    sys.exit(main())

"""Rules that promises stand on, each broken in turn: a test has to fail without any one of them.

    uv run python -m tests.mutations [words …]    all rules, or those whose file or reason holds one of the words

Works on a copy of the tree. A rule that can be broken unnoticed is *survived*: exit code 1. A row's text has to occur
in its file exactly once; 2 when it does not, so that the table moves along with the source.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from . import answers, history, stream
from .rule import Rule

ROOT = Path(__file__).parents[2]
RULES = (*answers.RULES, *history.RULES, *stream.RULES)
_COPIED = ("src", "tests", "pyproject.toml", "README.md")


def main(words: Sequence[str]) -> int:
    """Try the rules; the exit code."""
    chosen = [rule for rule in RULES if not words or any(word in f"{rule.file} {rule.why}" for word in words)]
    misfits = [rule for rule in RULES if _source(ROOT, rule).read_text().count(rule.old) != 1]
    for rule in misfits:
        print(f"not once in {rule.file}: {rule.old!r}")
    if misfits:
        return 2
    with tempfile.TemporaryDirectory(prefix="runtally-mutations-") as folder:
        tree = Path(folder)
        for name in _COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, tree / name)
        for test in sorted({rule.test for rule in chosen}):
            if (code := _run(tree, test)) != 0:
                print(f"{test} fails without any rule broken (pytest: {code})")
                return 2
        survived = [rule for rule in chosen if not _killed(tree, rule)]
    print(f"{len(chosen) - len(survived)} of {len(chosen)} rules are missed by a test when they are broken")
    return 1 if survived else 0


def _killed(tree: Path, rule: Rule) -> bool:
    path = _source(tree, rule)
    source = path.read_text()
    path.write_text(source.replace(rule.old, rule.new))
    begin = time.monotonic()
    try:
        code = _run(tree, rule.test, long=True)
    finally:
        path.write_text(source)
    word = "killed" if code == 1 else "SURVIVED" if code == 0 else f"pytest {code}"
    print(f"{word:9} {time.monotonic() - begin:5.0f} s  {rule.file}: {rule.why}", flush=True)
    return code == 1


def _run(tree: Path, test: str, *, long: bool = False) -> int:
    """The exit code of pytest in the copy: 0 passed, 1 failed."""
    arguments = ["-q", "-x", "-p", "no:cacheprovider", "--timeout", "600", "--hypothesis-profile", "unshrunk", test]
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "RUNTALLY_TEST_LONG": "1" if long else "0"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments], cwd=tree, env=environment, capture_output=True, check=False
    )
    return done.returncode


def _source(tree: Path, rule: Rule) -> Path:
    return tree / "src" / "runtally" / rule.file


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

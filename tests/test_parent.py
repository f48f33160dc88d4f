"""Nothing is left of a run of tests that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

_TEST_PROCESS = """
import time
from tests.parent import end_with_parent
end_with_parent()
print("begun", flush=True)
time.sleep(300)
"""
_RUN = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {_TEST_PROCESS!r}])
time.sleep(300)
"""


def test_a_process_of_tests_ends_when_the_run_of_tests_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", _RUN], stdout=subprocess.PIPE, start_new_session=True) as run:
        assert run.stdout is not None
        try:
            assert run.stdout.readline() == b"begun\n"
            run.kill()
            # The end of what all of them write to comes when none is left.
            assert run.communicate(timeout=30)[0] == b""
        finally:
            with suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)

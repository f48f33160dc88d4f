"""The tests, and before every other import what Python does with what it compiles.

It is kept even where PYTHONDONTWRITEBYTECODE says otherwise: a run of the tests starts dozens of processes, and each
would compile all packages anew, for six seconds of a core.
"""

import os
import sys

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

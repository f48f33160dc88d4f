"""Groups: what the runs of one cell have in common.

A shard numbers the distinct states (state type, state name) it meets; the numbering is append-only and part
of the shard's committed state. A *group* is a state's number and four flags, packed: `state << 4 | flags`.
State names are free text, so past a cap further names share the number OTHER: cells of that group are never
believed, their buckets are answered from raw runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from .changes import STATE_TYPES, TERMINAL_STATE_TYPES

STARTED: Final = 1
"""The run has a start time."""
IN_FLOW: Final = 2
"""The run belongs to a flow run."""
CHILD: Final = 4
"""Its flow run is a subflow run (has a parent task run)."""
PARENT: Final = 8
"""The run stands for a subflow run in its parent flow."""
FLAG_BITS: Final = 4

NO_STATE: Final = 0
OTHER: Final = 1
FIRST_STATE: Final = 2
MAX_STATES: Final = (1 << (16 - FLAG_BITS)) - 1

State = tuple[str, str]
TYPE_CODES: Final = {name: code for code, name in enumerate(STATE_TYPES)}
NO_TYPE: Final = len(STATE_TYPES)
RUNNING: Final = TYPE_CODES["RUNNING"]
_OPEN_TYPES: Final = np.array([name not in TERMINAL_STATE_TYPES for name in STATE_TYPES] + [False])


class States:
    """One shard's dictionary of states.

    `names[number]` is (state type, state name), None for NO_STATE and OTHER. `type_codes` gives the number of
    each state's type in `changes.STATE_TYPES`, NO_TYPE for NO_STATE and OTHER.
    """

    __slots__ = ("_numbers", "names", "type_codes")

    def __init__(self, known: Iterable[State] = ()) -> None:
        self.names: list[State | None] = [None, None]
        self._numbers: dict[State, int] = {}
        self.type_codes: npt.NDArray[np.uint8] = np.array([NO_TYPE, NO_TYPE], dtype=np.uint8)
        self.extend(known)

    def __len__(self) -> int:
        return len(self.names)

    def extend(self, states: Iterable[State]) -> None:
        """Append states in their committed order."""
        for state in states:
            self._numbers[state] = len(self.names)
            self.names.append(state)
        self.type_codes = np.array([NO_TYPE if s is None else TYPE_CODES[s[0]] for s in self.names], np.uint8)

    def number(self, state: State) -> int | None:
        """The number of a state, None when it is not in the dictionary."""
        return self._numbers.get(state)


def is_open(type_codes: npt.NDArray[np.uint8], started: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Whether a run of that type can still get later by the clock: a state, not terminal, not started."""
    return _OPEN_TYPES[type_codes] & ~started

"""The states of a shard as a view of it knows them: its dictionary, and numbers of the view's own beyond that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ..core.groups import FLAG_BITS, MAX_STATES, NO_TYPE, OTHER, TYPE_CODES, State, States
from ..core.rows import Rows
from .records import decode_states, state_in_tail

_FIRST_EXTRA: Final = MAX_STATES + 1


class ViewStates:
    """`type_codes` is the state type by state number, for the numbers that the view's cells and rows use."""

    def __init__(self) -> None:
        self._states = States()
        self._extra: dict[State, int] = {}
        self.type_codes: npt.NDArray[np.uint8] = self._states.type_codes

    @property
    def known(self) -> int:
        """How many entries of the shard's dictionary are known."""
        return len(self._states) - len(States())

    @property
    def version(self) -> tuple[int, int]:
        """Another value whenever there are more."""
        return len(self._states), len(self._extra)

    def __iter__(self) -> Iterator[tuple[int, State]]:
        """All (number, state) of the shard, and of runs beyond its cap that this view has met."""
        for number, state in enumerate(self._states.names):
            if state is not None:
                yield number, state
        for state, number in self._extra.items():
            yield number, state

    def extend(self, entries: Sequence[bytes]) -> None:
        """Take what follows in the shard's dictionary."""
        self._states.extend(decode_states(entries))
        self._renew_type_codes()

    def name_others(self, rows: Rows, records: Sequence[bytes]) -> None:
        """Give runs whose state is past the shard's cap a number of this view's own."""
        beyond = np.flatnonzero(rows.group >> FLAG_BITS == OTHER).tolist()
        if beyond:
            known = len(self._extra)
            for at in beyond:
                number = self._extra.setdefault(state_in_tail(records[at]), _FIRST_EXTRA + len(self._extra))
                rows.group[at] = number << FLAG_BITS | int(rows.group[at]) & (1 << FLAG_BITS) - 1
            if len(self._extra) != known:
                self._renew_type_codes()

    def _renew_type_codes(self) -> None:
        if not self._extra:
            self.type_codes = self._states.type_codes
            return
        codes = np.full(_FIRST_EXTRA + len(self._extra), NO_TYPE, np.uint8)
        codes[: len(self._states)] = self._states.type_codes
        codes[_FIRST_EXTRA:] = [TYPE_CODES[state[0]] for state in self._extra]
        self.type_codes = codes

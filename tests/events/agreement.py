"""Any message, as we and the reference understand it."""

from __future__ import annotations

from typing import Any

from runtally.core.changes import Change
from runtally.errors import BadEventError
from runtally.events.contract import REASONS
from runtally.events.wire import Ignored, parse

from ..reference import events as reference
from .samples import DAY_US, T_US, fields, id_of


def parsed(message: bytes) -> Change | Ignored | BadEventError:
    """What a message is, on the topic that takes it."""
    results: list[Change | Ignored | BadEventError] = []
    for topic in ("runs", "catalog"):
        try:
            results.append(parse(message, topic=topic, record_us=T_US, max_clock_skew_us=DAY_US))
        except BadEventError as error:
            results.append(error)
    assert {each.reason for each in results if isinstance(each, BadEventError)} <= set(REASONS)
    good = [each for each in results if not isinstance(each, BadEventError)]
    return (good or results)[0]


def agrees(message: bytes) -> str:
    """Hold a message against the reference; what it is in a word."""
    ours = parsed(message)
    try:
        theirs = reference.parse(message, T_US + DAY_US)
    except reference.BadEventError:
        assert isinstance(ours, BadEventError)
        return "bad"
    except reference.IgnoredEventError:
        assert isinstance(ours, Ignored)
        return "ignored"
    assert isinstance(ours, Change), ours
    assert (ours.entity, ours.action, ours.id) == (theirs.entity, theirs.action, id_of(theirs.id))
    assert ours.flow_run_id == (id_of(theirs.flow_run_id) if theirs.flow_run_id else None)
    told = {name: _plain(value) for name, value in fields(ours).items()}
    assert told == {name: value for name, (_, value) in theirs.fields.items()}
    return ours.entity


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return reference.id_text("flow", value.hex())
    return [*value] if isinstance(value, tuple) else value

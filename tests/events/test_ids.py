"""Ids: every spelling of a UUID is that UUID, every other text a UUID of its own."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtally.core.changes import ENTITIES
from runtally.errors import BadEventError
from runtally.events.ids import identity, known_identity, text_of, uuid_text

from ..conftest import examples
from ..reference.events import id_text

ENTITY = st.sampled_from([*ENTITIES])


@examples(2000)
@given(ENTITY, st.uuids())
def test_every_spelling_is_the_same_id(entity: str, known: uuid.UUID) -> None:
    plain = str(known)
    for spelling in (plain, known.hex, f"urn:uuid:{plain}", f"{{{plain}}}"):
        for text in (spelling, spelling.upper()):
            assert identity(entity, text) == known.bytes
            assert uuid_text(text) == plain
    assert text_of(known.bytes) == plain


@examples(2000)
@given(ENTITY, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_any_other_text_is_what_the_reference_makes_of_it(entity: str, text: str) -> None:
    assert text_of(identity(entity, text)) == id_text(entity, text)


@pytest.mark.parametrize(
    "text",
    [
        "0c0ffee000004000-8000-0000-000000000001",
        "0c0ffee0-0000-4000-8000-00000000000g",
        "0c0ffee0-0000-4000-8000-00000000000١",
        "urn:uuid:0c0ffee0000040008000000000000001",
        "{0c0ffee0000040008000000000000001}",
        "urn:uuıd:0c0ffee0-0000-4000-8000-000000000001",
        "0c0ffee0-0000-4000-8000-000000000001\n",
        " c0ffee0-0000-4000-8000-000000000001",
    ],
)
def test_what_only_looks_like_a_uuid_is_a_text(text: str) -> None:
    assert text_of(identity("flow", text)) == id_text("flow", text)
    assert text_of(identity("flow", text)) not in text
    assert uuid_text(text) == text


def test_one_text_names_another_thing_in_each_entity() -> None:
    assert len({identity(entity, "a") for entity in ENTITIES}) == len(ENTITIES)
    assert text_of(identity("task_run", "a")) == str(
        uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_URL, "runtally:task_run"), "a")
    )
    assert known_identity("flow_run", "a") == identity("flow_run", "a")


@pytest.mark.parametrize("text", ["", "x" * 251, "é" * 126, "\ud800"])
def test_an_id_has_1_to_250_bytes(text: str) -> None:
    with pytest.raises(BadEventError, match="wrong value: an id of a flow"):
        identity("flow", text)
    assert identity("flow", "é" * 125)

"""The OpenAPI document and the page that shows it."""

from __future__ import annotations

import pytest

from runtally.api.encode import HEADERS
from runtally.api.errors import ROWS
from runtally.core.filters import FILTERS


async def document(client):
    return (await client.get("/api/openapi.json")).json()


async def test_every_filter_field_is_in_the_document_with_description_and_example(client):
    schemas = (await document(client))["components"]["schemas"]
    for row in FILTERS.values():
        for part in row.parts:
            for attribute in part.attributes:
                *inner, leaf = attribute.path.split(".")
                model = row.model + "".join(word.capitalize() for word in part.name.split("_") + inner)
                field = schemas[model]["properties"][leaf]
                assert field["description"] == attribute.description
                assert field["examples"]
                assert schemas[model]["additionalProperties"] is False
                assert ("operator" in schemas[model]["properties"]) == (part.operator and not inner)


async def test_every_reference_resolves(client):
    whole = await document(client)
    names = set(whole["components"]["schemas"])

    def walk(value):
        if isinstance(value, dict):
            if "$ref" in value:
                assert value["$ref"].removeprefix("#/components/schemas/") in names
            value = list(value.values())
        if isinstance(value, list):
            for each in value:
                walk(each)

    walk(whole)


async def test_paths_are_shown_once_with_every_status(client):
    paths = (await document(client))["paths"]
    assert sorted(paths) == [
        "/api/health",
        "/api/ready",
        "/api/task_runs/count",
        "/api/task_runs/history",
        "/api/version",
        "/metrics",
        "/runtally/api/events",
        "/runtally/api/task_runs/history/explain",
        "/runtally/api/version",
    ]
    for path in ("/api/task_runs/history", "/runtally/api/task_runs/history/explain"):
        assert set(paths[path]["post"]["responses"]) == {"200", "400", "413", "422", "503"}
        assert set(paths[path]["post"]["responses"]["200"]["headers"]) == set(HEADERS)


async def test_the_page_needs_no_other_host(client):
    page = await client.get("/docs")
    assert page.status_code == 200
    assert "http:" not in page.text
    assert "https:" not in page.text
    assert "cdn" not in page.text
    assert "./api/openapi.json" in page.text


@pytest.mark.parametrize("name", ["swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"])
async def test_the_page_s_files_are_served_and_nothing_else_is(client, name):
    answer = await client.get(f"/docs/{name}")
    assert answer.status_code == 200
    assert (await client.get(f"/docs/{name}?path=/etc/hostname")).content == answer.content
    assert (await client.get("/docs/..%2f__init__.py")).status_code == 404


def test_a_class_stands_before_its_bases():
    classes = [row.error for row in ROWS]
    for later, each in enumerate(classes):
        assert not any(issubclass(each, before) for before in classes[:later])

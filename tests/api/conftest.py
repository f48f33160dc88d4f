"""The application with a service that only remembers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from .fakes import Service, client_of


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
async def client(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(service) as client:
        yield client

"""The API: requests in, plans and answers out. The only package that imports FastAPI."""

from .app import create_app

__all__ = ["create_app"]

"""The page /docs: the OpenAPI document to read and try, from files of our own host only."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Final

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import FileResponse, HTMLResponse

_ASSETS: Final = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")


def install(app: FastAPI) -> None:
    """Add the page and its files; they ship with the package fastapi-offline."""
    folder = files("fastapi_offline") / "static"
    script, style, icon = (f"docs/{name}" for name in _ASSETS)

    async def page() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=f".{app.openapi_url}",
            title="runtally: the API",
            swagger_js_url=script,
            swagger_css_url=style,
            swagger_favicon_url=icon,
        )

    app.add_api_route("/docs", page, include_in_schema=False)
    for name in _ASSETS:
        app.add_api_route(f"/docs/{name}", _file(str(folder / name)), include_in_schema=False)


def _file(path: str) -> Callable[[], FileResponse]:
    """An endpoint without parameters: one default argument more would let a query choose the file."""

    def endpoint() -> FileResponse:
        return FileResponse(path)

    return endpoint

"""`/docs`: the routes of both planes as one plain page, made here: no script, and nothing from other people's servers."""

import html
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from admin.rest import errors

_METHODS = ("get", "post", "put", "patch", "delete")
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
td {{ padding: .2rem 1rem .2rem 0; vertical-align: top }} code {{ white-space: nowrap }}
</style>
<h1>{title}</h1>
<p>Every route but those of health takes <code>Authorization: Bearer …</code>: below <code>/admin</code> the admin key, a token or a login,
elsewhere a virtual key. Bodies and answers are described in <a href="/openapi.json">openapi.json</a> (OpenAPI 3.1), which any viewer and
generator reads.</p>
<table>{rows}</table>
</html>
"""
_ROW = "<tr><td><code>{method}</code></td><td><code>{path}</code></td><td>{summary}</td></tr>\n"
_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
    "x-content-type-options": "nosniff",
}


class DocumentedApi(FastAPI):
    """Knows the schema of errors, which the routes only refer to, and the paths that are not its own: `extend` adds them."""

    extend: Callable[[dict[str, Any]], None] | None = None

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            document["components"]["schemas"].update(errors.schemas())
            if self.extend is not None:
                self.extend(document)
        return super().openapi()


def install(app: FastAPI) -> None:
    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page(app), headers=_HEADERS)


def page(app: FastAPI) -> str:
    rows = "".join(
        _ROW.format(method=method.upper(), path=html.escape(path), summary=html.escape(operations[method]["summary"]))
        for path, operations in sorted(app.openapi()["paths"].items())
        for method in _METHODS
        if method in operations
    )
    return _PAGE.format(title=html.escape(f"{app.title} {app.version}"), rows=rows)

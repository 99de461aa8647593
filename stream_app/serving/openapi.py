"""Routes as documents: routes -> [OpenAPI 3.1, a page that needs nothing else] -> whoever wants to call."""

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from stream_app.serving.jsons import Schema
from stream_app.serving.permissions import needed
from stream_app.serving.routes import Route, documented, is_stream

_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "status": {"type": "string"}},
    "description": "What, got, wanted; status is the name of the gRPC status.",
}
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
code,pre{font:14px/1.45 ui-monospace,monospace}pre{background:#f4f4f4;padding:.8rem;overflow:auto;border-radius:4px}
summary{cursor:pointer;padding:.4rem 0}details{border-top:1px solid #ddd}b{display:inline-block;min-width:3.4rem}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}pre{background:#262626}details{border-color:#444}}
"""

PAGE_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
}
"""Of the page: it may load nothing."""


def document(routes: Sequence[Route], schemas: Mapping[str, Schema], version: str) -> dict[str, Any]:
    """What /openapi.json says."""
    paths: dict[str, dict[str, Any]] = {}
    for route in documented(routes):
        paths.setdefault(route.path, {})[route.verb.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "stream-app", "version": version, "description": "The living model, over HTTP."},
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    kind = "application/x-ndjson" if is_stream(route) else "application/json"
    wanted = needed(route.method)
    said = f"Over gRPC: `{route.method}`. Permission: {' and '.join(wanted) or 'none'}."
    found: dict[str, Any] = {
        "operationId": f"{route.method.rpartition('/')[2]}{'Version' if '{version}' in route.path else ''}",
        "summary": route.summary,
        "description": said,
        "security": [{"token": []}, {}] if wanted else [],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in ("model", "version")
            if f"{{{name}}}" in route.path
        ],
        "responses": {
            "200": {"description": "The answer.", "content": {kind: {"schema": route.response}}},
            "default": {
                "description": "It cannot be answered.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }
    if route.request is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": route.request}}}
    return found


def page(routes: Sequence[Route], schemas: Mapping[str, Schema]) -> str:
    """What /docs shows: no script, nothing from elsewhere."""
    parts = [_shown(route) for route in documented(routes)]
    kinds = [f'<h3 id="{html.escape(n)}">{html.escape(n)}</h3>{_code(s)}' for n, s in sorted(schemas.items())]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>stream-app</title><style>{_STYLE}</style>'
        f'<h1>stream-app</h1><p>Also as <a href="openapi.json">OpenAPI</a>.</p>{"".join(parts)}'
        f"<h2>Messages</h2>{''.join(kinds)}</html>"
    )


def _shown(route: Route) -> str:
    title = f"<b>{route.verb}</b> <code>{html.escape(route.path)}</code> {html.escape(route.summary)}"
    wanted = " and ".join(needed(route.method)) or "none"
    lines = f"<p>Over gRPC <code>{html.escape(route.method)}</code>; permission: {wanted}.</p>"
    lines += f"<p>Request</p>{_code(route.request)}" if route.request is not None else ""
    return f"<details><summary>{title}</summary>{lines}<p>Response</p>{_code(route.response)}</details>"


def _code(schema: Schema) -> str:
    return f"<pre>{html.escape(json.dumps(schema, indent=2))}</pre>"

"""Asking a server over HTTP, and what it said."""

import http.client
import json
import ssl
from typing import Any, NamedTuple


class Said(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def name(self) -> str:
        """Of the status."""
        return str(self.json["status"])


def ask(
    address: str,
    path: str,
    body: object = None,
    *,
    verb: str = "",
    headers: dict[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Said:
    """``body`` is sent as JSON, unless it is bytes."""
    connection: http.client.HTTPConnection
    if tls is None:
        connection = http.client.HTTPConnection(address, timeout=20)
    else:
        connection = http.client.HTTPSConnection(address, timeout=20, context=tls)
    sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    try:
        connection.request(verb or ("GET" if sent is None else "POST"), path, sent, headers or {})
        response = connection.getresponse()
        return Said(response.status, response.headers, response.read())
    finally:
        connection.close()

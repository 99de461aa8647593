"""Servers in threads, for tests to ask."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stream_app.client import StreamModelClient
from stream_app.errors import ServingError
from stream_app.events import Topics
from stream_app.serve import serve
from stream_app.serving.limits import Limits
from tests.stream_app.versions import until

QUICK = Limits(notice_s=0.0, grace_s=1.0)


@contextmanager
def serving(
    bootstrap_servers: str,
    name: str,
    *,
    limits: Limits = QUICK,
    **settings: Any,
) -> Iterator[StreamModelClient]:
    """A server in a thread, and a client of it; ``settings`` are ``serve``'s."""
    ports: list[int] = []
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        event = asyncio.Event()
        stop.append((asyncio.get_running_loop(), event))
        await serve(
            bootstrap_servers=bootstrap_servers,
            topics=Topics.of(name),
            ready=ports.append,
            stop=event,
            limits=limits,
            **{"registry_url": None, "listen": "127.0.0.1:0", **settings},
        )

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    until(lambda: ports)
    with StreamModelClient(f"127.0.0.1:{ports[0]}", deadline_s=20.0) as client:
        try:
            yield client
        finally:
            loop, event = stop[0]
            loop.call_soon_threadsafe(event.set)
            thread.join()


def number(client: StreamModelClient) -> int:
    """Of the live version; 0 before the first."""
    try:
        return client.model().version.number
    except ServingError:
        return 0

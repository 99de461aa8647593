"""Questions over HTTP: request -> [known host -> allowed -> body in time -> route] -> response or status."""

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from time import perf_counter
from typing import Any, cast
from urllib.parse import urlsplit

from aiohttp import web

from stream_app.errors import ServingError, SettingsError
from stream_app.serving.counts import Counts
from stream_app.serving.limits import Limits, Room
from stream_app.serving.routes import Reply, Route, Sent, encoded, is_stream
from stream_app.serving.security import Guard, is_loopback

STATUSES = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""Of gRPC -> of HTTP, as google.rpc.Code has them; what is not here is 500."""
_CODES: dict[type[BaseException], str] = {
    asyncio.CancelledError: "CANCELLED",
    ConnectionResetError: "CANCELLED",
    web.HTTPRequestEntityTooLarge: "RESOURCE_EXHAUSTED",
}
"""What else ends a call, as it is counted."""
_OF_HTTP = {404: "NOT_FOUND", 405: "UNIMPLEMENTED"}
IDLE_S = 75.0
"""How long a connection may send nothing; also a request line and headers that never end."""

_log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Rest:
    """An HTTP server for routes; for one event loop.

    Args:
        routes: what it answers; ``documents`` beside them, without a permission.
        guard: decides who may call.
        limits: how much to take on.
        room: for calls, of other protocols, too.
        listen: ``host:port``; port 0 takes a free one.
        counts: gets what becomes of calls.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        documents: dict[str, Reply],
        guard: Guard,
        limits: Limits,
        room: Room,
        listen: str,
        counts: Counts,
    ) -> None:
        self._guard, self._limits, self._room, self._listen = guard, limits, room, listen
        self._counts = counts
        app = web.Application(client_max_size=limits.message_bytes, middlewares=[self._answered])
        app.on_response_prepare.append(_sign)
        for route in routes:
            app.router.add_route(route.verb, route.path, self._lines(route) if is_stream(route) else self._once(route))
        for path, reply in documents.items():
            app.router.add_get(path, _fixed(reply))
        self._runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=IDLE_S, shutdown_timeout=limits.grace_s, handler_cancellation=True
        )

    async def start(self, tls: ssl.SSLContext | None = None, *, share_port: bool = False) -> int:
        """Answer from now on; gives the port.

        Raises:
            SettingsError: the address cannot be had.
        """
        host, _, port = self._listen.rpartition(":")
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, host.strip("[]"), int(port), ssl_context=tls, reuse_port=share_port or None, backlog=1024
        )
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise SettingsError(f"rest is {self._listen!r}, wanted a free host:port ({error})") from error
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Take no new connections, and give calls in flight ``grace_s``."""
        await self._runner.cleanup()

    @web.middleware
    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every error in the same form."""
        try:
            return await handler(request)
        except web.HTTPRequestEntityTooLarge:
            text = f"the request has more than {self._limits.message_bytes} bytes, which is the limit"
            return _refusal(ServingError("RESOURCE_EXHAUSTED", text), HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        except web.HTTPException as error:
            status = _OF_HTTP.get(error.status, "INVALID_ARGUMENT")
            text = f"{request.method} {request.path[:200]}: {error.reason}"
            return _refusal(ServingError(status, text), error.status, error.headers.get("Allow"))
        except ConnectionError:  # whoever asked has gone
            raise
        except Exception as error:
            return _refusal(_known(request, error))

    def _once(self, route: Route) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            async with self._let_in(request, route):
                reply = await cast(Callable[[Sent], Awaitable[Reply]], route.answer)(await self._sent(request))
                response = _response(reply)
                await response.prepare(request)
                await self._leaves(request, response.write_eof())
            return response

        return answer

    def _lines(self, route: Route) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
            async with self._let_in(request, route):
                stream = cast(Callable[[Sent], AsyncGenerator[bytes]], route.answer)(await self._sent(request))
                try:
                    async with aclosing(stream) as lines:
                        async for line in lines:
                            self._check_token(request, route)  # it may have been taken back meanwhile
                            await response.prepare(request)
                            if not await self._leaves(request, response.write(line)):
                                break
                except Exception as error:
                    if not response.prepared or isinstance(error, ConnectionError):
                        raise
                    last = encoded(_told(_known(request, error))) + b"\n"
                    await self._leaves(request, response.write(last))
            return response

        return answer

    async def _leaves(self, request: web.Request, writing: Awaitable[None]) -> bool:
        """Whether it did in time; of a reader that does not read, the connection is cut: its call would never end."""
        try:
            async with asyncio.timeout(self._limits.transfer_s):
                await writing
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            return False
        return True

    @asynccontextmanager
    async def _let_in(self, request: web.Request, route: Route) -> AsyncIterator[None]:
        series, began_s, code = self._counts.of(route.method), perf_counter(), "OK"
        try:
            with self._room.call(route.method):
                self._check_origin(request)
                self._check_token(request, route)
                yield
        except BaseException as error:
            code = error.status if isinstance(error, ServingError) else _CODES.get(type(error), "INTERNAL")
            raise
        finally:
            series.ended(code, None if is_stream(route) else perf_counter() - began_s)

    def _check_token(self, request: web.Request, route: Route) -> None:
        self._guard.check(route.method, request.headers.get("Authorization"))

    def _check_origin(self, request: web.Request) -> None:
        """No page of another site may use a browser on this machine to call.

        Browsers say where a page is from; and a name that was made to mean this machine is no name of it.
        """
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise ServingError("PERMISSION_DENIED", f"the request comes from a page of {origin[:100]!r}")
        if not self._guard.guarded and is_loopback(self._listen) and not _is_local(request.host):
            text = f"Host is {request.host[:100]!r}, wanted localhost: there are no tokens, so only it may ask"
            raise ServingError("PERMISSION_DENIED", text)

    async def _sent(self, request: web.Request) -> Sent:
        try:
            async with asyncio.timeout(self._limits.transfer_s):
                body = await request.read()
        except TimeoutError as error:
            text = f"the body is not there after {self._limits.transfer_s:g} s"
            raise ServingError("DEADLINE_EXCEEDED", text) from error
        return Sent(body, request.headers, dict(request.match_info))


def _is_local(host: str) -> bool:
    """Whether a Host header, with or without a port, is a name of this machine."""
    try:
        return is_loopback(f"{urlsplit(f'//{host}').hostname}:0")
    except ValueError:
        return False


def _response(reply: Reply) -> web.Response:
    return web.Response(body=reply.body, headers=reply.headers, status=reply.status)


def _fixed(reply: Reply) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        return _response(reply)

    return answer


def _known(request: web.Request, error: Exception) -> ServingError:
    """What may be told of it."""
    if isinstance(error, ServingError):
        return error
    _log.error("%s %s failed", request.method, request.path, exc_info=error)
    return ServingError("INTERNAL", "an error of the server, which its log tells")


def _told(error: ServingError) -> dict[str, str]:
    return {"error": str(error), "status": error.status}


def _refusal(error: ServingError, status: int | None = None, allow: str | None = None) -> web.Response:
    code = status or STATUSES.get(error.status, HTTPStatus.INTERNAL_SERVER_ERROR)
    headers: dict[str, Any] = {"Content-Type": "application/json"}
    if code == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if allow is not None:
        headers["Allow"] = allow
    return web.Response(body=encoded(_told(error)), headers=headers, status=code)


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "stream-app"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault("Cache-Control", "no-store")

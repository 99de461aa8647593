"""What HTTP asks, as calls that gRPC knows, too: verb, path -> [route] -> the same answer as over gRPC.

Every method of our own service whose request is one message has a route, ``POST /v1/method-name`` unless NAMED says
otherwise; no method is listed by hand. A method that streams its answers sends one JSON object a line.
"""

import asyncio
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from google.protobuf.message import Message

from stream_app.errors import ServingError
from stream_app.serving import jsons
from stream_app.serving.answers import Answers
from stream_app.serving.jsons import Schema
from stream_app.wire import stream_app_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["StreamModel"]
NAMED = {"GetModel": ("GET", "/v1/model"), "WatchModel": ("GET", "/v1/watch")}

LARGE_BYTES = 32_768
"""Some hundred rows; reading JSON takes about 10 us each."""
T = TypeVar("T")
U = TypeVar("U")


class Sent(NamedTuple):
    """What came with a request."""

    body: bytes
    headers: Mapping[str, str]
    path: Mapping[str, str]
    """The parts of the path that stand in braces."""


class Reply(NamedTuple):
    """What goes back, if it is no stream."""

    body: bytes
    headers: Mapping[str, str] = {"Content-Type": "application/json"}
    status: int = 200


class Route(NamedTuple):
    """One verb and path."""

    verb: str
    path: str
    method: str
    """As gRPC names it; it says what its caller must be allowed."""
    answer: Callable[[Sent], Awaitable[Reply]] | Callable[[Sent], AsyncIterator[bytes]]
    """A coroutine, or for a stream a generator of lines."""
    summary: str
    request: Schema | None
    response: Schema


class NoDeadline:
    """What a call over HTTP knows about itself."""

    def time_remaining(self) -> float | None:
        return None


def own(answers: Answers, found: dict[str, Schema]) -> list[Route]:
    """Routes of our own service; ``found`` gets the schemas of its messages."""
    methods = [m for m in SERVICE.methods if not m.client_streaming]
    return [_route(method, getattr(answers, method.name), found) for method in methods]


def _route(method: Any, answer: Callable[..., Any], found: dict[str, Schema]) -> Route:
    verb, path = NAMED.get(method.name, ("POST", f"/v1/{_kebab(method.name)}"))
    request = jsons.schema(method.input_type, found) if verb == "POST" else None

    def read(sent: Sent) -> Message:
        message: Message = jsons.parse(method.input_type, decoded(sent.body) if sent.body else {})
        return message

    def write(response: Message) -> Reply:
        return Reply(encoded(jsons.dump(response)))

    async def once(sent: Sent) -> Reply:
        response = await answer(await aside(sent, read, sent), NoDeadline())
        return await aside(sent, write, response)

    async def lines(sent: Sent) -> AsyncIterator[bytes]:
        async for response in answer(await aside(sent, read, sent), NoDeadline()):
            yield encoded(jsons.dump(response)) + b"\n"

    return Route(
        verb,
        path,
        f"/{SERVICE.full_name}/{method.name}",
        lines if method.server_streaming else once,
        summary_of(answer),
        request,
        jsons.schema(method.output_type, found),
    )


async def aside(sent: Sent, work: Callable[[T], U], given: T) -> U:
    """``work(given)``; beside the event loop if what was sent is large: it would keep all other calls waiting."""
    return await asyncio.to_thread(work, given) if len(sent.body) > LARGE_BYTES else work(given)


def _kebab(name: str) -> str:
    """PredictThenLearn is predict-then-learn."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def summary_of(answer: Callable[..., Any]) -> str:
    return (inspect.getdoc(answer) or "").partition("\n")[0]


def decoded(body: bytes) -> object:
    """Raises ServingError: INVALID_ARGUMENT: it is no JSON."""
    try:
        found: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ServingError("INVALID_ARGUMENT", f"the body is no JSON: {error}") from error
    return found


def encoded(data: object) -> bytes:
    return msgspec.json.encode(data)


def is_stream(route: Route) -> bool:
    return inspect.isasyncgenfunction(route.answer)


def documented(routes: Sequence[Route]) -> Sequence[Route]:
    """By path, for documents."""
    return sorted(routes, key=lambda route: (route.path, route.verb))

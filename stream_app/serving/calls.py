"""Every gRPC call passes here: bytes -> [allowed -> parse -> answer] -> response or status.

Answers raise ServingError; here it becomes a status. So do bytes that are no message (INVALID_ARGUMENT) and
what nobody expected (INTERNAL, the reason in the log), for which gRPC would say UNKNOWN.
"""

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Never, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from stream_app.errors import ServingError
from stream_app.serving.limits import Room
from stream_app.serving.security import Guard

_TEXT_CHARS = 400
"""Of an error's text."""

_log = logging.getLogger(__name__)

# Subscripted only as text: the class is not generic when it runs.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Details: TypeAlias = grpc.HandlerCallDetails

_KINDS: dict[tuple[bool, bool], tuple[Callable[..., Handler], str]] = {
    (False, False): (grpc.unary_unary_rpc_method_handler, "unary_unary"),
    (False, True): (grpc.unary_stream_rpc_method_handler, "unary_stream"),
    (True, False): (grpc.stream_unary_rpc_method_handler, "stream_unary"),
    (True, True): (grpc.stream_stream_rpc_method_handler, "stream_stream"),
}
"""Whether requests and responses are streams -> what makes such a handler, and where it keeps its answer."""


class Calls(grpc.aio.ServerInterceptor):
    """Wraps the handler of every method, once.

    Args:
        guard: decides who may call.
        room: how many there may be.
    """

    def __init__(self, guard: Guard, room: Room) -> None:
        self._guard, self._room = guard, room
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self, continuation: Callable[[Details], Awaitable["Handler | None"]], handler_call_details: Details
    ) -> "Handler | None":
        method = str(handler_call_details.method)
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:  # gRPC says UNIMPLEMENTED; not kept, since anyone may send any name
                return None
            self._wrapped[method] = _wrapped(handler, self._allow(method), partial(self._room.call, method))
        return self._wrapped[method]

    def _allow(self, method: str) -> Callable[[Context], None]:
        if self._guard.free(method):
            return lambda context: None
        return lambda context: self._guard.check(method, _authorization(context))


def _authorization(context: Context) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            return value if isinstance(value, str) else value.decode(errors="replace")
    return None


def _wrapped(
    handler: Handler, allow: Callable[[Context], None], place: Callable[[], AbstractContextManager[None]]
) -> Handler:
    """The handler, its callers let in, its requests parsed and its errors made statuses here."""
    make, name = _KINDS[bool(handler.request_streaming), bool(handler.response_streaming)]
    answer, parse = getattr(handler, name), _parser(handler)

    async def once(raw: Any, context: Context) -> Any:
        try:
            with place():
                allow(context)
                return await answer(parse(raw), context)
        except Exception as error:
            await _abort(context, error)

    async def many(raw: Any, context: Context) -> AsyncIterator[Any]:
        try:
            with place():
                allow(context)
                async for response in answer(parse(raw), context):
                    allow(context)  # a token may have been taken back meanwhile
                    yield response
        except Exception as error:
            await _abort(context, error)

    # A stream's answer is a generator, or a coroutine that writes to the context.
    return make(many if inspect.isasyncgenfunction(answer) else once, None, handler.response_serializer)


def _parser(handler: Handler) -> Callable[[Any], Any]:
    read = handler.request_deserializer or bytes

    def one(raw: bytes) -> Any:
        try:
            return read(raw)
        except DecodeError as error:
            text = f"the request is {len(raw)} bytes that are no such message, wanted one of protos/"
            raise ServingError("INVALID_ARGUMENT", text) from error

    async def each(raws: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for raw in raws:
            yield one(raw)

    return each if handler.request_streaming else one


async def _abort(context: Context, error: Exception) -> Never:
    if isinstance(error, grpc.aio.AbortError):  # the context has been aborted already
        raise error
    if not isinstance(error, ServingError):
        _log.error("a call failed", exc_info=error)
        error = ServingError("INTERNAL", "an error of the server, which its log tells")
    await context.abort(grpc.StatusCode[error.status], short(str(error)))
    raise AssertionError("abort raises")


def short(text: str) -> str:
    """A text that fits into a status, which travels in headers: gRPC limits these to some KiB."""
    return text if len(text) <= _TEXT_CHARS else f"{text[: _TEXT_CHARS // 2]} ... {text[-_TEXT_CHARS // 2 :]}"

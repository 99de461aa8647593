"""Every gRPC call passes here: bytes -> [allowed -> parse -> answer -> counted] -> response or status.

Answers raise ServingError; here it becomes a status. So do bytes that are no message (INVALID_ARGUMENT) and
what nobody expected (INTERNAL, the reason in the log), for which gRPC would say UNKNOWN.
"""

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from time import perf_counter
from typing import Any, Never, TypeAlias

import grpc

from stream_app.errors import ServingError
from stream_app.serving import messages
from stream_app.serving.counts import Counts, Series
from stream_app.serving.limits import Place, Room
from stream_app.serving.security import Guard

_TEXT_CHARS = 400
"""Of an error's text."""

_log = logging.getLogger(__name__)

# Subscripted only as text: the class is not generic when it runs.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Details: TypeAlias = grpc.HandlerCallDetails
Answer: TypeAlias = Callable[..., Any]

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
        counts: gets what becomes of them.
        unparsed: method -> what answers it in place of its handler, bytes with bytes.
    """

    def __init__(self, guard: Guard, room: Room, counts: Counts, unparsed: Mapping[str, Answer]) -> None:
        self._guard, self._room, self._counts, self._unparsed = guard, room, counts, unparsed
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self, continuation: Callable[[Details], Awaitable["Handler | None"]], handler_call_details: Details
    ) -> "Handler | None":
        method = str(handler_call_details.method)
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:  # gRPC says UNIMPLEMENTED; not kept, since anyone may send any name
                return None
            self._wrapped[method] = self._wrap(method, handler)
        return self._wrapped[method]

    def _wrap(self, method: str, handler: Handler) -> Handler:
        """The handler, its callers let in, its requests parsed and its errors made statuses here."""
        make, name = _KINDS[bool(handler.request_streaming), bool(handler.response_streaming)]
        allow, place, series = self._allow(method), self._room.call(method), self._counts.of(method)
        answer, write = self._unparsed.get(method), None
        if answer is None:
            answer, write = _parsing(handler, getattr(handler, name)), handler.response_serializer
        # A stream's answer is a generator, or a coroutine that writes to the context.
        kind = _many if inspect.isasyncgenfunction(getattr(handler, name)) else _once
        return make(kind(answer, allow, place, series, streams="stream" in name), None, write)

    def _allow(self, method: str) -> Callable[[Context], None]:
        if self._guard.free(method):
            return lambda context: None
        return lambda context: self._guard.check(method, _authorization(context))


def _authorization(context: Context) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            return value if isinstance(value, str) else value.decode(errors="replace")
    return None


def _once(
    answer: Answer, allow: Callable[[Context], None], place: Place, series: Series, *, streams: bool
) -> Callable[[Any, Context], Awaitable[Any]]:
    async def once(raw: Any, context: Context) -> Any:
        began_s = perf_counter()
        try:
            with place:
                allow(context)
                said = await answer(raw, context)
        except BaseException as error:
            series.ended(_code(error), None if streams else perf_counter() - began_s)
            await _abort(context, error)
        series.ended("OK", None if streams else perf_counter() - began_s)
        return said

    return once


def _many(
    answer: Answer, allow: Callable[[Context], None], place: Place, series: Series, *, streams: bool
) -> Callable[[Any, Context], AsyncIterator[Any]]:
    async def many(raw: Any, context: Context) -> AsyncIterator[Any]:
        try:
            with place:
                allow(context)
                async for response in answer(raw, context):
                    allow(context)  # a token may have been taken back meanwhile
                    series.streamed += 1
                    yield response
        except BaseException as error:
            series.ended(_code(error), None)
            if isinstance(error, GeneratorExit):
                raise
            await _abort(context, error)
        series.ended("OK", None)

    return many


def _parsing(handler: Handler, answer: Answer) -> Answer:
    """``answer``, given bytes."""
    read = partial(messages.parsed, handler.request_deserializer or bytes)

    async def each(raws: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for raw in raws:
            yield read(raw)

    if handler.request_streaming:
        return lambda raws, context: answer(each(raws), context)
    return lambda raw, context: answer(read(raw), context)


def _code(error: BaseException) -> str:
    """What a call that ended with it is counted as."""
    match error:
        case ServingError():
            return error.status
        case asyncio.CancelledError() | GeneratorExit():  # whoever asked has gone
            return "CANCELLED"
        case grpc.aio.AbortError():
            return "UNKNOWN"
        case _:
            return "INTERNAL"


async def _abort(context: Context, error: BaseException) -> Never:
    if isinstance(error, grpc.aio.AbortError) or not isinstance(error, Exception):  # aborted already, or cancelled
        raise error
    if not isinstance(error, ServingError):
        _log.error("a call failed", exc_info=error)
        error = ServingError("INTERNAL", "an error of the server, which its log tells")
    await context.abort(grpc.StatusCode[error.status], short(str(error)))
    raise AssertionError("abort raises")


def short(text: str) -> str:
    """A text that fits into a status, which travels in headers: gRPC limits these to some KiB."""
    return text if len(text) <= _TEXT_CHARS else f"{text[: _TEXT_CHARS // 2]} ... {text[-_TEXT_CHARS // 2 :]}"

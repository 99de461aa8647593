"""Every gRPC call passes here: bytes -> [allowed -> parse -> answer -> counted] -> response or status.

Answers raise ServingError; here it becomes a status. So do bytes that are no message (INVALID_ARGUMENT) and
what nobody expected (INTERNAL, the reason in the log), for which gRPC would say UNKNOWN.
"""

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple, Never, TypeAlias

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


class Calls(grpc.GenericRpcHandler):
    """The handlers of all methods, wrapped once; to those who register them it looks like the server.

    No interceptor: for that gRPC would begin a coroutine of its own with each call.

    Args:
        guard: decides who may call.
        room: how many there may be.
        counts: gets what becomes of them.
        unparsed: method -> what answers it in place of its handler, bytes with bytes.
    """

    def __init__(self, guard: Guard, room: Room, counts: Counts, unparsed: Mapping[str, Answer]) -> None:
        self._guard, self._room, self._counts, self._unparsed = guard, room, counts, unparsed
        self._behind: list[grpc.GenericRpcHandler] = []
        self._wrapped: dict[str, _Wrapped] = {}

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """As a server's."""
        self._behind.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Nothing: they are among the others, too."""

    def service(self, handler_call_details: Details) -> "Handler | None":
        """What answers a call; None if nothing does.

        It answers with why the caller may not call, if so: gRPC hands the metadata over here, and would make them anew
        for whoever asks later.
        """
        method = str(handler_call_details.method)
        wrapped = self._wrapped.get(method) or self._find(method, handler_call_details)
        if wrapped is None:  # gRPC says UNIMPLEMENTED; not kept, since anyone may send any name
            return None
        if wrapped.free:
            return wrapped.handler
        try:
            self._guard.check(method, _authorization(handler_call_details.invocation_metadata))
        except ServingError as error:
            return wrapped.refusing(error)
        return wrapped.handler

    def _find(self, method: str, details: Details) -> "_Wrapped | None":
        for behind in self._behind:
            handler = behind.service(details)
            if handler is not None:
                found = self._wrapped[method] = self._wrap(method, handler)
                return found
        return None

    def _wrap(self, method: str, handler: Handler) -> "_Wrapped":
        """The handler, its calls counted, its requests parsed and its errors made statuses here."""
        make, name = _KINDS[bool(handler.request_streaming), bool(handler.response_streaming)]
        place, series, streams = self._room.call(method), self._counts.of(method), "stream" in name
        answer, write = self._unparsed.get(method), None
        if answer is None:
            answer, write = _parsing(handler, getattr(handler, name)), handler.response_serializer
        # A stream's answer is a generator, or a coroutine that writes to the context.
        if inspect.isasyncgenfunction(getattr(handler, name)):
            made = make(_many(answer, self._still(method), place, series), None, write)
        else:
            made = make(_once(answer, place, series, streams=streams), None, write)

        def refusing(error: ServingError) -> Handler:
            async def refused(raw: Any, context: Context) -> Any:
                series.ended(error.status, None if streams else 0.0)
                await _abort(context, error)

            return make(refused, None, write)

        return _Wrapped(made, self._guard.free(method), refusing)

    def _still(self, method: str) -> Callable[[Context], None]:
        """Refuses who may no longer call: a token may be taken back while a stream goes on."""
        if self._guard.free(method):
            return lambda context: None
        return lambda context: self._guard.check(method, _authorization(context.invocation_metadata()))


class _Wrapped(NamedTuple):
    """A method's handler."""

    handler: Handler
    free: bool
    """Whether anyone may call it."""
    refusing: Callable[[ServingError], Handler]
    """What says why someone may not."""


def _authorization(metadata: Iterable[tuple[str, str | bytes]] | None) -> str | None:
    for key, value in metadata or ():
        if key == "authorization":
            return value if isinstance(value, str) else value.decode(errors="replace")
    return None


def _once(answer: Answer, place: Place, series: Series, *, streams: bool) -> Callable[[Any, Context], Awaitable[Any]]:
    async def once(raw: Any, context: Context) -> Any:
        began_s = perf_counter()
        try:
            with place:
                said = await answer(raw, context)
        except BaseException as error:
            series.ended(_code(error), None if streams else perf_counter() - began_s)
            await _abort(context, error)
        series.ended("OK", None if streams else perf_counter() - began_s)
        return said

    return once


def _many(
    answer: Answer, allow: Callable[[Context], None], place: Place, series: Series
) -> Callable[[Any, Context], AsyncIterator[Any]]:
    async def many(raw: Any, context: Context) -> AsyncIterator[Any]:
        try:
            with place:
                async for response in answer(raw, context):
                    allow(context)
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

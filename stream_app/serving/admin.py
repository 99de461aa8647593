"""The calls by which people decide about versions: request -> [operate, in a thread] -> response."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from kafka.errors import KafkaError

from models.spec import ModelSpec
from stream_app.errors import (
    BrokerError,
    ModelLogError,
    NoVersionError,
    OvertakenError,
    RegistryError,
    ServingError,
    VersionError,
)
from stream_app.operate import Operator, Trial
from stream_app.serving import messages
from stream_app.serving.security import CALLER
from stream_app.wire import stream_app_pb2 as pb

T = TypeVar("T")
Operators = Callable[[str], AbstractContextManager[Operator]]
"""Opens an operator who decides in someone's name."""


class Admin:
    """Decides for its callers, one after the other.

    Args:
        operators: opens an operator who decides in someone's name; None where there is no registry to work with.
        spec: of the live model.
    """

    def __init__(self, operators: Operators | None, spec: Callable[[], ModelSpec]) -> None:
        self._operators, self._spec = operators, spec
        self._one = asyncio.Lock()

    async def list_versions(self, request: pb.ListVersionsRequest) -> pb.ListVersionsResponse:
        found = await self._ask(lambda operator: operator.versions())
        return pb.ListVersionsResponse(versions=map(messages.listed, found))

    async def rollback(self, request: pb.RollbackRequest) -> pb.RollbackResponse:
        reason = _reason(request.reason)
        head = await self._ask(lambda operator: operator.adopt(request.version, reason))
        return pb.RollbackResponse(head=messages.version(head))

    async def promote(self, request: pb.PromoteRequest) -> pb.PromoteResponse:
        reason = _reason(request.reason)
        head = await self._ask(lambda operator: operator.adopt(request.version, reason, kind="promoted"))
        return pb.PromoteResponse(head=messages.version(head))

    async def pin(self, request: pb.PinRequest) -> pb.PinResponse:
        reason = _reason(request.reason)
        pinned = await self._ask(lambda operator: operator.pin(request.version, reason))
        return pb.PinResponse(pinned=messages.version(pinned))

    async def unpin(self, request: pb.UnpinRequest) -> pb.UnpinResponse:
        reason = _reason(request.reason)
        was = await self._ask(lambda operator: operator.unpin(reason))
        return pb.UnpinResponse(unpinned=messages.version(was))

    async def canary(self, request: pb.CanaryRequest) -> pb.CanaryResponse:
        reason = _reason(request.reason)
        trial = Trial.of(
            self._spec().traffic,
            "canary",
            percent=_percent(request.percent),
            key=self._feature(request.key),
            auto=not request.only_judge,
        )
        out = await self._ask(lambda operator: operator.challenge(request.version, trial, reason))
        return pb.CanaryResponse(canary=messages.version(out.envelope))

    async def shadow(self, request: pb.ShadowRequest) -> pb.ShadowResponse:
        reason = _reason(request.reason)
        percent = _percent(request.percent) if request.HasField("percent") else 100.0
        trial = Trial.of(self._spec().traffic, "shadow", percent=percent, auto=not request.only_judge)
        out = await self._ask(lambda operator: operator.challenge(request.version, trial, reason))
        return pb.ShadowResponse(shadow=messages.version(out.envelope))

    async def withdraw(self, request: pb.WithdrawRequest) -> pb.WithdrawResponse:
        reason = _reason(request.reason)
        was = await self._ask(lambda operator: operator.withdraw(reason))
        return pb.WithdrawResponse(withdrawn=messages.version(was.envelope))

    def _feature(self, name: str) -> str:
        features = self._spec().features
        if name and name not in features.numeric and name not in features.categorical:
            raise ServingError("INVALID_ARGUMENT", f"key is {name!r}, wanted the name of a feature, or nothing")
        return name

    async def _ask(self, what: Callable[[Operator], T]) -> T:
        if self._operators is None:
            raise ServingError("FAILED_PRECONDITION", "this server has no registry, wanted one to find versions in")
        async with self._one:
            return await asyncio.get_running_loop().run_in_executor(None, _done, self._operators, CALLER.get(), what)


def _done(operators: Operators, by: str, what: Callable[[Operator], T]) -> T:
    try:
        with operators(by) as operator:
            return what(operator)
    except NoVersionError as error:
        raise ServingError("NOT_FOUND", str(error)) from error
    except VersionError as error:
        raise ServingError("FAILED_PRECONDITION", str(error)) from error
    except OvertakenError as error:
        raise ServingError("ABORTED", str(error)) from error
    except (BrokerError, ModelLogError, RegistryError, KafkaError) as error:
        raise ServingError("UNAVAILABLE", str(error)) from error


def _reason(text: str) -> str:
    if not text.strip():
        raise ServingError("INVALID_ARGUMENT", "reason is empty, wanted a text that goes on record")
    return text


def _percent(percent: float) -> float:
    if not 0.0 <= percent <= 100.0:
        raise ServingError("INVALID_ARGUMENT", f"percent is {percent}, wanted a number from 0 to 100")
    return percent

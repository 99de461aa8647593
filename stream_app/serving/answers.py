"""The calls of our own service: request -> [check -> live model -> answer] -> response.

Rows are scored in the event loop itself, ROWS_AT_ONCE at a time with other calls in between: one row
takes well under a millisecond, and handing it to a thread would take longer than the work.

Calls raise ServingError; ``serving.calls`` and ``serving.rest`` make statuses of it. Of the context they
use only what ``Call`` has, since it is not always gRPC that asks.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from stream_app.serving import messages, scoring
from stream_app.serving.limits import Limits
from stream_app.serving.source import Source
from stream_app.wire import stream_app_pb2 as pb


class Call(Protocol):
    """What a call may ask about itself; gRPC's context has it."""

    def time_remaining(self) -> float | None:
        """Seconds until nobody waits for the answer any more; None without a deadline."""


class Answers:
    """The calls of ``protos/stream_app.proto``.

    Args:
        source: gives the live model.
        limits: how much to take on.
    """

    def __init__(self, source: Source, limits: Limits) -> None:
        self._source, self._limits = source, limits

    async def Predict(self, request: pb.PredictRequest, call: Call) -> pb.PredictResponse:
        """Score one row or many, all with one version."""
        live = self._source.live()
        scoring.check(request, live.spec, self._limits)
        response = messages.answered_by(live, self._source.log_age_s())
        for start in range(0, len(request.rows), scoring.ROWS_AT_ONCE):
            if start:
                await asyncio.sleep(0)
            rows = request.rows[start : start + scoring.ROWS_AT_ONCE]
            response.predictions.extend(messages.predictions(live.spec, scoring.score(live, rows, start)))
        if request.explain:
            for row, prediction in zip(request.rows, response.predictions, strict=True):
                await asyncio.sleep(0)
                prediction.explanation.CopyFrom(scoring.explanation(live, row, request.explain))
        return response

    async def GetModel(self, request: pb.GetModelRequest, call: Call) -> pb.GetModelResponse:
        """What the model is, and which version of it is live."""
        return messages.described(self._source.live(), self._source.log_age_s())

    async def WatchModel(self, request: pb.WatchModelRequest, call: Call) -> AsyncIterator[pb.WatchModelResponse]:
        """The live version, then every one that follows, until the server drains."""
        async for live in self._source.watch():
            yield pb.WatchModelResponse(
                version=messages.version(live.envelope),
                variant=live.variant,
                prior_only=live.prior_only,
            )

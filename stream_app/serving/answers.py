"""The calls of our own service: request -> [check -> live model -> answer] -> response.

Rows are scored in the event loop itself, some at a time with other calls in between: one row takes well
under a millisecond, and handing it to a thread would take longer than the work.

Calls raise ServingError; ``serving.calls`` and ``serving.rest`` make statuses of it. Of the context they
use only what ``Call`` has, since it is not always gRPC that asks.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from stream_app.errors import ServingError
from stream_app.live import LiveModel
from stream_app.serving import messages, scoring
from stream_app.serving.limits import Limits
from stream_app.serving.source import Source
from stream_app.serving.together import ROWS_AT_ONCE, Together
from stream_app.wire import stream_app_pb2 as pb


class Call(Protocol):
    """What a call may ask about itself; gRPC's context has it."""

    def time_remaining(self) -> float | None:
        """Seconds until nobody waits for the answer any more; None without a deadline."""


def in_time(call: Call) -> None:
    """Raises ServingError: DEADLINE_EXCEEDED: nobody waits for the answer any more."""
    left_s = call.time_remaining()
    if left_s is not None and left_s <= 0.0:
        raise ServingError("DEADLINE_EXCEEDED", "the deadline passed before the call was answered")


class Answers:
    """The calls of ``protos/stream_app.proto``.

    Args:
        source: gives the live model.
        limits: how much to take on.
    """

    def __init__(self, source: Source, limits: Limits) -> None:
        self._source, self._limits, self._together = source, limits, Together()

    async def Predict(self, request: pb.PredictRequest, call: Call) -> pb.PredictResponse:
        """Score one row or many, all with one version."""
        in_time(call)
        live = self._source.live()
        scoring.check(request, live.spec, self._limits)
        response = messages.answered_by(live, self._source.log_age_s())
        if request.HasField("columns"):
            asked = scoring.columns(live.encoder, request.columns)
            response.scores.CopyFrom(messages.scores(live.spec, await scoring.score_columns(live, *asked)))
        else:
            await self._rows(live, request, response, call)
        return response

    async def _rows(
        self, live: LiveModel, request: pb.PredictRequest, response: pb.PredictResponse, call: Call
    ) -> None:
        for start in range(0, len(request.rows), ROWS_AT_ONCE):
            rows = request.rows[start : start + ROWS_AT_ONCE]
            values, times_s = scoring.values(live.encoder, rows, start), scoring.times_s(rows, start)
            scores = await self._together.score(live, values, times_s)
            response.predictions.extend(messages.predictions(live.spec, scores))
        if request.explain:
            for row, prediction in zip(request.rows, response.predictions, strict=True):
                await asyncio.sleep(0)
                in_time(call)
                prediction.explanation.CopyFrom(scoring.explanation(live, row, request.explain))

    async def PredictStream(
        self, requests: AsyncIterator[pb.PredictRequest], call: Call
    ) -> AsyncIterator[pb.PredictStreamResponse]:
        """One answer after the other: the next request is read once the reader had room for the answer before."""
        with self._source.ending_ends():
            async for request in requests:
                try:
                    yield pb.PredictStreamResponse(response=await self.Predict(request, call))
                except ServingError as error:
                    if self._source.draining:
                        raise
                    yield pb.PredictStreamResponse(error=pb.Error(status=error.status, message=str(error)))

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

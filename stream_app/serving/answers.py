"""The calls of our own service: request -> [check -> live model -> answer] -> response.

Rows are scored in the event loop itself, some at a time with other calls in between: one row takes well
under a millisecond, and handing it to a thread would take longer than the work. Calls are not scored together:
gRPC hands them over one by one, so that few wait at the same moment (docs/serving.md).

Calls raise ServingError; ``serving.calls`` and ``serving.rest`` make statuses of it. Of the context they
use only what ``Call`` has, since it is not always gRPC that asks.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Protocol

from stream_app.errors import ServingError
from stream_app.live import LiveModel, Scores, Times
from stream_app.serving import messages, scoring
from stream_app.serving.admin import Admin, Operators
from stream_app.serving.learning import Append, Learning
from stream_app.serving.limits import Limits
from stream_app.serving.plain import Plain
from stream_app.serving.source import Source
from stream_app.serving.traffic import Chosen
from stream_app.wire import stream_app_pb2 as pb

ROWS_AT_ONCE = 64
"""Rows by name, scored before other calls get their turn."""


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
        operators: opens an operator who decides in someone's name; None: this server decides nothing.
        append: takes events; None: this server logs none.
        loaded: called, in a thread, when compiled code has been loaded for a model.
    """

    def __init__(
        self,
        source: Source,
        limits: Limits,
        operators: Operators | None = None,
        append: Append | None = None,
        *,
        loaded: Callable[[], None] = lambda: None,
    ) -> None:
        self._source, self._limits = source, limits
        self.plain = Plain(limits.rows, loaded)
        self._admin = Admin(operators, lambda: source.live().spec)
        self._learning = Learning(append, lambda: source.live().spec, limits)

    async def predicted(self, request: bytes, call: Call) -> bytes:
        """``Predict`` of bytes, most of which need not become messages."""
        in_time(call)
        live, arms = self._source.arms()
        if arms.trial is None:
            said = self.plain.answer(request, live, self._source.log_age_s())
            if said is not None:
                return said
        message = messages.parsed(pb.PredictRequest.FromString, request)
        return (await self.Predict(message, call)).SerializeToString()

    async def Predict(self, request: pb.PredictRequest, call: Call) -> pb.PredictResponse:
        """Score one row or many, all with one version."""
        in_time(call)
        chosen = self._source.chosen(request.key, partial(scoring.values_of, request))
        scoring.check(request, chosen.live.spec, self._limits)
        try:
            return await self._answered(chosen, request, call)
        except ServingError:
            raise
        except Exception as error:
            if chosen.role == "champion":
                raise
            self._source.traffic.failed(error)
            return await self._answered(Chosen(chosen.instead, "champion", chosen.instead, None), request, call)

    async def _answered(self, chosen: Chosen, request: pb.PredictRequest, call: Call) -> pb.PredictResponse:
        live = chosen.live
        response = messages.answered_by(live, self._source.log_age_s(), chosen.role)
        if request.HasField("columns"):
            asked = scoring.columns(live.encoder, request.columns)
            said = await scoring.score_columns(live, *asked)
            response.scores.CopyFrom(messages.scores(live.spec, said))
            self._source.traffic.note(chosen, said, lambda model: model.predict_columns(asked[0], asked[1], asked[2]))
        else:
            await self._rows(chosen, request, response, call)
        return response

    async def _rows(self, chosen: Chosen, request: pb.PredictRequest, response: pb.PredictResponse, call: Call) -> None:
        live = chosen.live
        for start in range(0, len(request.rows), ROWS_AT_ONCE):
            if start:
                await asyncio.sleep(0)
                in_time(call)
            rows = request.rows[start : start + ROWS_AT_ONCE]
            values, times_s = scoring.values(live.encoder, rows, start), scoring.times_s(rows, start)
            scores = _asked(values, times_s, live)
            response.predictions.extend(messages.predictions(live.spec, scores))
            self._source.traffic.note(chosen, scores, partial(_asked, values, times_s))
        if request.explain:
            for row, prediction in zip(request.rows, response.predictions, strict=True):
                await asyncio.sleep(0)
                in_time(call)
                prediction.explanation.CopyFrom(scoring.explanation(live, row, request.explain))

    async def PredictStream(self, requests: AsyncIterator[bytes], call: Call) -> AsyncIterator[bytes]:
        """One answer after the other: the next request is read once the reader had room for the answer before."""
        with self._source.ending_ends():
            async for request in requests:
                try:
                    yield messages.streamed(await self.predicted(request, call))
                except ServingError as error:
                    if self._source.draining:
                        raise
                    told = pb.PredictStreamResponse(error=pb.Error(status=error.status, message=str(error)))
                    yield told.SerializeToString()

    async def GetModel(self, request: pb.GetModelRequest, call: Call) -> pb.GetModelResponse:
        """What the model is, and which version of it is live."""
        return messages.described(self._source.live(), self._source.log_age_s(), self._source.standing())

    async def WatchModel(self, request: pb.WatchModelRequest, call: Call) -> AsyncIterator[pb.WatchModelResponse]:
        """The live version, then every one that follows, until the server drains."""
        async for live in self._source.watch():
            yield pb.WatchModelResponse(
                version=messages.version(live.envelope),
                variant=live.variant,
                prior_only=live.prior_only,
            )

    async def ListVersions(self, request: pb.ListVersionsRequest, call: Call) -> pb.ListVersionsResponse:
        """The versions that can be named, the newest first."""
        return await self._admin.list_versions(request)

    async def Rollback(self, request: pb.RollbackRequest, call: Call) -> pb.RollbackResponse:
        """Go on from what an older version had learned; the past is not learned a second time."""
        return await self._admin.rollback(request)

    async def Promote(self, request: pb.PromoteRequest, call: Call) -> pb.PromoteResponse:
        """Make what any version had learned the head."""
        return await self._admin.promote(request)

    async def Pin(self, request: pb.PinRequest, call: Call) -> pb.PinResponse:
        """Let servers answer with one version until Unpin; learning goes on."""
        return await self._admin.pin(request)

    async def Unpin(self, request: pb.UnpinRequest, call: Call) -> pb.UnpinResponse:
        """Let servers follow the newest version again."""
        return await self._admin.unpin(request)

    async def Canary(self, request: pb.CanaryRequest, call: Call) -> pb.CanaryResponse:
        """Let a version answer a share of the calls; its measured loss decides."""
        return await self._admin.canary(request)

    async def Shadow(self, request: pb.ShadowRequest, call: Call) -> pb.ShadowResponse:
        """Ask a version beside the head, never answer with it; its measured loss decides."""
        return await self._admin.shadow(request)

    async def Withdraw(self, request: pb.WithdrawRequest, call: Call) -> pb.WithdrawResponse:
        """End a canary or a shadow."""
        return await self._admin.withdraw(request)

    async def PredictThenLearn(self, request: pb.PredictThenLearnRequest, call: Call) -> pb.PredictThenLearnResponse:
        """Answer, and log the features under their ids, to be learned once their labels come."""
        return await self._learning.predict_then_learn(request, lambda asked: self.Predict(asked, call))

    async def Feedback(self, request: pb.FeedbackRequest, call: Call) -> pb.FeedbackResponse:
        """Labels of examples that were logged, by id."""
        return await self._learning.feedback(request)


def _asked(rows: Sequence[scoring.Values], times_s: Times | None, model: LiveModel) -> Scores:
    return model.score(model.encoder.raw(rows), times_s)

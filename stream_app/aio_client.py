"""``stream_app.client`` for asyncio: the same calls, awaited.

async with AsyncStreamModelClient(["server1:50051", "server2:50051"], token=token, tls=TLS()) as client:
    answer = await client.predict([{"distance": 1400, "carrier": "UA"}])
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from typing import Any, Self

import grpc
from numpy.typing import ArrayLike

from stream_app import asking
from stream_app.asking import Explain, Model, Predictions, Rows, Scored, Value, Version
from stream_app.dialling import DEADLINE_S, OPTIONS, TLS, Turns, metadata_of, serving_errors, targets_of
from stream_app.errors import ServingError
from stream_app.wire import stream_app_pb2 as pb
from stream_app.wire import stream_app_pb2_grpc as pb_grpc


class AsyncStreamModelClient:
    """As ``stream_app.client.StreamModelClient``, which documents arguments and errors; of one event loop."""

    def __init__(
        self,
        target: str | Sequence[str],
        *,
        deadline_s: float = DEADLINE_S,
        token: str | None = None,
        tls: TLS | None = None,
    ) -> None:
        self.targets = targets_of(target)
        self._channels = [_channel(one, tls) for one in self.targets]
        self._stubs: list[Any] = [pb_grpc.StreamModelStub(channel) for channel in self._channels]
        self._turns, self._deadline_s, self._metadata = Turns(len(self.targets)), deadline_s, metadata_of(token)

    async def predict(
        self,
        rows: Rows,
        times_s: Sequence[float | None] | None = None,
        *,
        explain: Explain | None = None,
        key: str = "",
        deadline_s: float | None = None,
    ) -> Predictions:
        """Score rows of features by name."""
        request = asking.rows_asked(rows, times_s, explain, key)
        return asking.predictions_of(await self._answer("Predict", request, deadline_s))

    async def predict_columns(
        self,
        columns: Mapping[str, ArrayLike],
        times_s: ArrayLike | None = None,
        *,
        key: str = "",
        deadline_s: float | None = None,
    ) -> Scored:
        """Score many rows given as a column (B,) per feature."""
        request = asking.columns_asked(columns, times_s, key)
        return asking.scored_of(await self._answer("Predict", request, deadline_s))

    async def predict_stream(
        self, batches: AsyncIterable[Rows], *, deadline_s: float | None = None
    ) -> AsyncIterator[Predictions | ServingError]:
        """One answer per batch of rows, in order, over one call."""

        async def requests() -> AsyncIterator[pb.PredictRequest]:
            async for rows in batches:
                yield asking.rows_asked(rows)

        stub = self._stubs[self._turns.at]
        answers = stub.PredictStream(requests(), timeout=deadline_s, metadata=self._metadata)
        try:
            with serving_errors():
                async for answer in answers:
                    yield asking.streamed_of(answer)
        finally:
            answers.cancel()

    async def predict_then_learn(
        self,
        examples: Mapping[str, Mapping[str, Value]],
        *,
        key: str = "",
        at_s: float | None = None,
        deadline_s: float | None = None,
    ) -> Predictions:
        """Score examples, and have them logged, to be learned once their labels come."""
        request = asking.examples_asked(examples, key, at_s)
        return asking.predictions_of((await self._answer("PredictThenLearn", request, deadline_s)).response)

    async def feedback(
        self,
        labels: Mapping[str, Value],
        *,
        key: str = "",
        at_s: float | None = None,
        deadline_s: float | None = None,
    ) -> None:
        """Have labels learned: id -> class or number."""
        await self._answer("Feedback", asking.labels_asked(labels, key, at_s), deadline_s)

    async def model(self, *, deadline_s: float | None = None) -> Model:
        """What the server serves."""
        return asking.model_of(await self._answer("GetModel", pb.GetModelRequest(), deadline_s))

    async def watch(self, *, deadline_s: float | None = None) -> AsyncIterator[Version]:
        """The live version, then those that follow until the server drains."""
        stub = self._stubs[self._turns.at]
        changes = stub.WatchModel(pb.WatchModelRequest(), timeout=deadline_s, metadata=self._metadata)
        try:
            with serving_errors():
                async for change in changes:
                    yield asking.version_of(change.version, change.variant, change.prior_only)
        finally:
            changes.cancel()

    async def _answer(self, method: str, request: Any, deadline_s: float | None) -> Any:
        attempts = self._turns.attempts(self._deadline_s if deadline_s is None else deadline_s)
        while True:
            call = getattr(self._stubs[attempts.at], method)
            try:
                with serving_errors():
                    answer = await call(request, timeout=attempts.attempt_s, metadata=self._metadata)
            except ServingError as error:
                await asyncio.sleep(attempts.wait_s(error))
                continue
            attempts.answered()
            return answer

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _channel(target: str, tls: TLS | None) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(target, options=OPTIONS)
    return grpc.aio.secure_channel(target, tls.credentials(), options=OPTIONS)

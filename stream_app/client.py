"""Asking servers for predictions: rows -> [request -> server -> response] -> predictions.

with StreamModelClient("127.0.0.1:50051") as client:
    answer = client.predict([{"distance": 1400, "carrier": "UA"}])
    answer.rows[0].label, answer.rows[0].scores, answer.version
    client.predict_columns({"distance": np.array([1400.0, 760.0]), "carrier": ["UA", None]}).values  # (B, K)

``stream_app.aio_client`` has the same for asyncio.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import grpc
from numpy.typing import ArrayLike

from stream_app import asking
from stream_app.asking import (
    Attribution,
    Explain,
    Explanation,
    Model,
    Prediction,
    Predictions,
    Rows,
    Scored,
    Value,
    Version,
)
from stream_app.dialling import DEADLINE_S, OPTIONS, TLS, Turns, metadata_of, serving_errors, targets_of
from stream_app.errors import ServingError
from stream_app.wire import stream_app_pb2 as pb
from stream_app.wire import stream_app_pb2_grpc as pb_grpc

__all__ = [
    "TLS",
    "Attribution",
    "Explanation",
    "Model",
    "Prediction",
    "Predictions",
    "Scored",
    "StreamModelClient",
    "Value",
    "Version",
]


class StreamModelClient:
    """Connections to one server or several of one model; any number of threads may use it.

    A call that a server cannot take (UNAVAILABLE), or says nothing to, is tried at the next one, within the deadline.

    Args:
        target: ``host:port``, or any gRPC target; several are asked in this order.
        deadline_s: how long a call may take, all attempts together.
        token: shown to the servers.
        tls: encrypt; without it tokens travel in the clear.
    """

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
        self._stubs = [pb_grpc.StreamModelStub(channel) for channel in self._channels]
        self._turns, self._deadline_s, self._metadata = Turns(len(self.targets)), deadline_s, metadata_of(token)

    def predict(
        self,
        rows: Rows,
        times_s: Sequence[float | None] | None = None,
        *,
        explain: Explain | None = None,
        key: str = "",
        deadline_s: float | None = None,
    ) -> Predictions:
        """Score rows of features by name; what is absent or None is missing.

        Args:
            times_s: event times at which recent label rates are read; by default the newest
                label time that the version has learned from.
            explain: say why, too, of up to 64 rows: contributions to the score, or for two classes to its log-odds.
            key: whose rows they are: a canary answers always or never.

        Raises:
            ServingError: the server refuses or is gone; ``status`` says which.
        """
        request = asking.rows_asked(rows, times_s, explain, key)
        return asking.predictions_of(self._answer("Predict", request, deadline_s))

    def predict_columns(
        self,
        columns: Mapping[str, ArrayLike],
        times_s: ArrayLike | None = None,
        *,
        key: str = "",
        deadline_s: float | None = None,
    ) -> Scored:
        """Score many rows given as a column (B,) per feature, numbers as the bytes that they are.

        Args:
            columns: numbers, NaN or None is missing; or texts, None is missing. Of a matrix:
                ``dict(zip(names, matrix.T))``.
            times_s: as for ``predict``, (B,), NaN for the default.

        Raises:
            ServingError: as for ``predict``.
        """
        request = asking.columns_asked(columns, times_s, key)
        return asking.scored_of(self._answer("Predict", request, deadline_s))

    def predict_stream(
        self, batches: Iterable[Rows], *, deadline_s: float | None = None
    ) -> Iterator[Predictions | ServingError]:
        """One answer per batch of rows, in order, over one call; a batch that is refused gets its error in its place.

        Batches are read as fast as the server answers. Not tried again; no default deadline.

        Raises:
            ServingError: the server is gone, or ends: ask for what is unanswered again.
        """
        requests = (asking.rows_asked(rows) for rows in batches)
        stub = self._stubs[self._turns.at]
        answers = stub.PredictStream(requests, timeout=deadline_s, metadata=self._metadata)
        try:
            with serving_errors():
                yield from map(asking.streamed_of, answers)
        finally:
            answers.cancel()

    def predict_then_learn(
        self,
        examples: Mapping[str, Mapping[str, Value]],
        *,
        key: str = "",
        at_s: float | None = None,
        deadline_s: float | None = None,
    ) -> Predictions:
        """Score examples, and have them logged, to be learned once ``feedback`` or any producer gives their labels.

        Args:
            examples: id -> features by name.
            key: chooses the partition; their labels must carry the same. By default each id.
            at_s: event time of all; now, if it is left out.

        Raises:
            ServingError: as for ``predict``; FAILED_PRECONDITION: the server logs none. Ids make another try harmless.
        """
        request = asking.examples_asked(examples, key, at_s)
        return asking.predictions_of(self._answer("PredictThenLearn", request, deadline_s).response)

    def feedback(
        self,
        labels: Mapping[str, Value],
        *,
        key: str = "",
        at_s: float | None = None,
        deadline_s: float | None = None,
    ) -> None:
        """Have labels learned: id -> class or number. Arguments and errors as for ``predict_then_learn``."""
        self._answer("Feedback", asking.labels_asked(labels, key, at_s), deadline_s)

    def model(self, *, deadline_s: float | None = None) -> Model:
        """What the server serves.

        Raises:
            ServingError: no version is live, or the server is gone.
        """
        return asking.model_of(self._answer("GetModel", pb.GetModelRequest(), deadline_s))

    def watch(self, *, deadline_s: float | None = None) -> Iterator[Version]:
        """The live version, then those that follow until the server drains; no default deadline.

        Raises:
            ServingError: the deadline passed, or the server is gone.
        """
        stub = self._stubs[self._turns.at]
        changes = stub.WatchModel(pb.WatchModelRequest(), timeout=deadline_s, metadata=self._metadata)
        try:
            with serving_errors():
                for change in changes:
                    yield asking.version_of(change.version, change.variant, change.prior_only)
        finally:
            changes.cancel()

    def _answer(self, method: str, request: Any, deadline_s: float | None) -> Any:
        attempts = self._turns.attempts(self._within_s(deadline_s))
        while True:
            call = getattr(self._stubs[attempts.at], method)
            try:
                with serving_errors():
                    answer = call(request, timeout=attempts.attempt_s, metadata=self._metadata)
            except ServingError as error:
                time.sleep(attempts.wait_s(error))
                continue
            attempts.answered()
            return answer

    def _within_s(self, deadline_s: float | None) -> float:
        return self._deadline_s if deadline_s is None else deadline_s

    def close(self) -> None:
        for channel in self._channels:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _channel(target: str, tls: TLS | None) -> grpc.Channel:
    if tls is None:
        return grpc.insecure_channel(target, options=OPTIONS)
    return grpc.secure_channel(target, tls.credentials(), options=OPTIONS)

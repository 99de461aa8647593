"""Questions arrive over gRPC: request -> [check -> live model -> answer] -> response.

One event loop answers; the live model is followed in a thread beside it. Rows are scored in the
loop itself, ROWS_AT_ONCE at a time with other calls in between: one row takes well under a
millisecond, and handing it to a thread would take longer than the work.
"""

import asyncio
import functools
import logging
import math
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Never, TypeAlias

import grpc
import msgspec
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from models.features import FeatureError
from models.spec import ModelSpec
from stream_app.errors import ServingError, SettingsError
from stream_app.events import Topics
from stream_app.live import LiveFollower, LiveModel, Scores
from stream_app.modellog import Envelope, Variant
from stream_app.registry import Registry
from stream_app.wire import stream_app_pb2 as pb
from stream_app.wire import stream_app_pb2_grpc as pb_grpc

SERVICE = "stream_app.v1.StreamModel"
DEFAULT_LISTEN = "127.0.0.1:50051"
ROWS_AT_ONCE = 64
"""Rows scored before other calls get their turn."""

BIND_S = 5.0
"""How long a port that is taken is tried again: a server that crashed may still be leaving it."""
QUIET_S, QUIET_AT_MOST_S = 0.05, 1.0
"""While it drains: without a call for the first it stops, after the second in any case."""
_TEXT_CHARS = 400
"""Of an error's text."""

_log = logging.getLogger(__name__)

# Subscripted only as text: the class is not generic when it runs.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one server takes on."""

    rows: int = 4096
    """Per Predict; more is INVALID_ARGUMENT."""
    explained_rows: int = 64
    """Per Predict with ``explain``; more is INVALID_ARGUMENT. One takes as long as some thirty others."""
    message_bytes: int = 4 << 20
    """Per request; more is RESOURCE_EXHAUSTED."""
    calls: int = 256
    """In flight at once; more is RESOURCE_EXHAUSTED."""
    watchers: int = 64
    """Of these, WatchModel streams."""
    notice_s: float = 0.2
    """Between NOT_SERVING and refusing new calls, for balancers to look elsewhere."""
    grace_s: float = 5.0
    """For calls in flight to finish after that."""


class Answers:
    """The three calls of ``protos/stream_app.proto``.

    Args:
        follower: gives the live model.
        limits: how much to take on.
    """

    def __init__(self, follower: LiveFollower, limits: Limits) -> None:
        self._follower, self._limits = follower, limits
        self._changed = asyncio.Event()  # replaced at every change
        self._draining = False
        self._watchers = self._asked = 0

    async def Predict(self, request: pb.PredictRequest, context: Context) -> pb.PredictResponse:
        """Score one row or many, all with one version."""
        try:
            live = self._live()
            _check(request, live.spec, self._limits)
            response = _answered_by(live, self._follower.log_age_s(time.monotonic()))
            for start in range(0, len(request.rows), ROWS_AT_ONCE):
                if start:
                    await asyncio.sleep(0)
                rows = request.rows[start : start + ROWS_AT_ONCE]
                response.predictions.extend(_predictions(live.spec, _score(live, rows, start)))
            if request.explain:
                for row, prediction in zip(request.rows, response.predictions, strict=True):
                    await asyncio.sleep(0)
                    prediction.explanation.CopyFrom(_explanation(live, row, request.explain))
        except ServingError as error:
            await _abort(context, error)
        return response

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """What the model is, and which version of it is live."""
        try:
            live = self._live()
        except ServingError as error:
            await _abort(context, error)
        return _described(live, self._follower.log_age_s(time.monotonic()))

    async def WatchModel(self, request: pb.WatchModelRequest, context: Context) -> AsyncIterator[pb.WatchModelResponse]:
        """The live version, then every one that follows, until the server drains."""
        if self._watchers >= self._limits.watchers:
            text = f"{self._watchers} streams watch already, which is the limit; try another server"
            await _abort(context, ServingError("RESOURCE_EXHAUSTED", text))
        self._watchers += 1
        try:
            async for live in self._changes():
                yield pb.WatchModelResponse(
                    version=_version(live.envelope),
                    variant=live.variant,
                    prior_only=live.prior_only,
                )
        finally:
            self._watchers -= 1

    async def _changes(self) -> AsyncIterator[LiveModel]:
        seen: tuple[int, str] | None = None
        while not self._draining:
            changed = self._changed  # taken before looking: a change in between is not missed
            live = self._follower.live
            if live is not None and (live.envelope.number, live.variant) != seen:
                seen = (live.envelope.number, live.variant)
                yield live
            else:
                await changed.wait()

    def _live(self) -> LiveModel:
        self._asked += 1
        if self._draining:
            raise ServingError("UNAVAILABLE", "this server is ending, ask another")
        live = self._follower.live
        if live is None:
            text = f"no version of the model is live yet, waiting for {self._follower.waiting_for}"
            raise ServingError("UNAVAILABLE", text)
        return live

    def tell(self) -> None:
        """Wake the watchers: the live model has changed."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def drain(self) -> None:
        """End the watchers' streams, which would go on for ever, and refuse calls until none comes any more.

        What gRPC has accepted and not handed over yet when the server stops, it cuts off with CANCELLED, which no
        client tries again.
        """
        self._draining = True
        self.tell()
        seen, deadline_s = -1, time.monotonic() + QUIET_AT_MOST_S
        while seen != self._asked and time.monotonic() < deadline_s:
            seen = self._asked
            await asyncio.sleep(QUIET_S)


async def _abort(context: Context, error: ServingError) -> Never:
    text = str(error)
    if len(text) > _TEXT_CHARS:  # statuses travel in headers, which gRPC limits to some KiB
        text = f"{text[: _TEXT_CHARS // 2]} ... {text[-_TEXT_CHARS // 2 :]}"
    await context.abort(grpc.StatusCode[error.status], text)
    raise AssertionError("abort raises")


def _check(request: pb.PredictRequest, spec: ModelSpec, limits: Limits) -> None:
    rows, explain = len(request.rows), request.explain
    if rows == 0:
        raise ServingError("INVALID_ARGUMENT", "rows is empty, wanted at least one row")
    if rows > limits.rows:
        raise ServingError("INVALID_ARGUMENT", f"rows has {rows} rows, wanted at most {limits.rows}")
    if explain not in pb.Explain.values():
        raise ServingError("INVALID_ARGUMENT", f"explain is {explain}, wanted {' or '.join(pb.Explain.keys())}")
    if explain and rows > limits.explained_rows:
        text = f"rows has {rows} rows, wanted at most {limits.explained_rows} to explain"
        raise ServingError("INVALID_ARGUMENT", text)
    if explain == pb.EXPLAIN_LOG_ODDS and spec.task != "binary":
        text = f"explain is EXPLAIN_LOG_ODDS, wanted EXPLAIN_SCORE for task {spec.task}"
        raise ServingError("INVALID_ARGUMENT", text)


def _score(live: LiveModel, rows: Sequence[pb.Row], start: int) -> Scores:
    """(B, K). Raises ServingError naming the row, ``start`` being the first one's place."""
    times_s = [row.time_s if row.HasField("time_s") else None for row in rows]
    for i, time_s in enumerate(times_s):
        if time_s is not None and not math.isfinite(time_s):
            text = f"rows[{start + i}]: time_s is {time_s}, wanted seconds since the epoch"
            raise ServingError("INVALID_ARGUMENT", text)
    values = [_values(row) for row in rows]
    try:
        return live.predict(values, times_s)
    except FeatureError as error:
        text = f"rows[{start + _first_wrong(live, values)}]: {error}"
        raise ServingError("INVALID_ARGUMENT", text) from error


def _values(row: pb.Row) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in row.features.items():
        kind = value.WhichOneof("kind")
        found[name] = None if kind is None else getattr(value, kind)
    return found


def _first_wrong(live: LiveModel, values: Sequence[Mapping[str, object]]) -> int:
    """Index of the first row that the encoder refuses."""
    for i, row in enumerate(values):
        try:
            live.predict([row])
        except FeatureError:
            return i
    return 0


def _predictions(spec: ModelSpec, scores: Scores) -> Iterator[pb.Prediction]:
    names = spec.score_names
    for row in scores.tolist():
        if spec.task == "regression":
            yield pb.Prediction(value=row[0])
            continue
        shares = (1.0 - row[0], row[0]) if spec.task == "binary" else row
        most = max(range(len(names)), key=shares.__getitem__)
        yield pb.Prediction(scores=dict(zip(names, shares, strict=True)), label=names[most])


def _explanation(live: LiveModel, row: pb.Row, unit: pb.Explain) -> pb.Explanation:
    """Of a row that has been scored, so is sound."""
    time_s = row.time_s if row.HasField("time_s") else None
    explained, dense = live.explain(_values(row), time_s, log_odds=unit == pb.EXPLAIN_LOG_ODDS)
    k = int(explained.said.argmax())  # binary and regression have only one
    names, contributions = live.explainer.grouping.names, explained.contributions[:, k]  # (F,)
    rates = live.explainer.grouping.rate_columns
    found = []
    for f in np.argsort(-np.abs(contributions), kind="stable").tolist():
        value = pb.Value(number=dense[rates[f] + k]) if f in rates else row.features.get(names[f])
        found.append(pb.Attribution(name=names[f], value=value, contribution=contributions[f]))
    label = {"binary": live.spec.score_names[-1], "regression": ""}.get(live.spec.task, live.spec.score_names[k])
    return pb.Explanation(label=label, base=explained.base[k], said=explained.said[k], attributions=found)


def _answered_by(live: LiveModel, log_age_s: float) -> pb.PredictResponse:
    return pb.PredictResponse(
        model=live.spec.name,
        version=live.envelope.number,
        version_id=live.envelope.id,
        epoch=live.envelope.epoch,
        variant=live.variant,
        prior_only=live.prior_only,
        staleness=_staleness(live.envelope, log_age_s),
    )


def _staleness(envelope: Envelope, log_age_s: float) -> pb.Staleness:
    version_age_s = max(time.time() - envelope.created_s, 0.0)  # hosts' clocks differ
    return pb.Staleness(version_age_s=version_age_s, log_age_s=log_age_s)


def _version(envelope: Envelope) -> pb.Version:
    return pb.Version(
        number=envelope.number,
        id=envelope.id,
        epoch=envelope.epoch,
        parent=envelope.parent or "",
        created_s=envelope.created_s,
    )


def _described(live: LiveModel, log_age_s: float) -> pb.GetModelResponse:
    spec, envelope = live.spec, live.envelope
    return pb.GetModelResponse(
        model=spec.name,
        task=spec.task,
        label_name=spec.label.name,
        classes=spec.score_names if spec.task != "regression" else (),
        features=_features(spec),
        version=_version(envelope),
        variant=live.variant,
        prior_only=live.prior_only,
        staleness=_staleness(envelope, log_age_s),
        offsets=envelope.offsets,
        labels=envelope.labels,
        metrics=envelope.metrics,
        hyper=pb.Hyper(**msgspec.structs.asdict(envelope.hyper)),
        variants=[_variant(v) for v in live.variants],
        importance=envelope.importance,
        members=envelope.members,
    )


def _features(spec: ModelSpec) -> list[pb.Feature]:
    numeric = [pb.Feature(name=n, kind="numeric") for n in spec.features.numeric]
    return numeric + [pb.Feature(name=n, kind="categorical") for n in spec.features.categorical]


def _variant(variant: Variant) -> pb.Variant:
    names = pb.Variant.DESCRIPTOR.fields_by_name
    return pb.Variant(**{name: getattr(variant, name) for name in names})


async def serve(
    *,
    bootstrap_servers: str,
    topics: Topics,
    registry_url: str | None,
    listen: str = DEFAULT_LISTEN,
    ready: Callable[[int], None] = lambda port: None,
    stop: asyncio.Event | None = None,
    share_port: bool = False,
    reflect: bool = False,
    limits: Limits | None = None,
) -> None:
    """Answer until ``stop`` is set, then drain.

    Args:
        registry_url: where artefacts lie that do not travel inline; None if all do.
        listen: ``host:port``; port 0 takes a free one. There is neither encryption nor
            authentication: anything but loopback belongs behind something that has both.
        ready: called with the bound port, before any version is live.
        share_port: several processes on one port; the kernel spreads connections over them.
        reflect: let clients ask for the contract.

    Raises:
        SettingsError: ``listen`` cannot be had.
    """
    limits, stop = limits or Limits(), stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    healthiness = health.aio.HealthServicer()
    swapped = asyncio.Event()

    def wake(live: LiveModel) -> None:
        loop.call_soon_threadsafe(swapped.set)

    follower = LiveFollower(
        bootstrap_servers,
        topics.models,
        registry=Registry(registry_url) if registry_url else None,
        changed=wake,
    )
    answers = Answers(follower, limits)
    server = _server(limits, share_port)
    pb_grpc.add_StreamModelServicer_to_server(answers, server)
    health_pb2_grpc.add_HealthServicer_to_server(healthiness, server)
    if reflect:
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME), server)
    await _set_health(healthiness, serving=False)
    port = await _bind(server, listen)
    await server.start()
    ready(port)
    telling = loop.create_task(_tell(swapped, answers, healthiness))
    follower.start()
    try:
        await stop.wait()
    finally:
        telling.cancel()
        await _drain(server, answers, healthiness, limits)
        await loop.run_in_executor(None, follower.stop)


def _server(limits: Limits, share_port: bool) -> grpc.aio.Server:
    options = (
        ("grpc.max_receive_message_length", limits.message_bytes),
        # gRPC's own default is to share: two servers by mistake would each get half of the calls.
        ("grpc.so_reuseport", int(share_port)),
    )
    return grpc.aio.server(options=options, maximum_concurrent_rpcs=limits.calls)


async def _bind(server: grpc.aio.Server, listen: str) -> int:
    deadline_s = time.monotonic() + BIND_S
    while True:
        try:
            return int(server.add_insecure_port(listen))
        except RuntimeError as error:
            if time.monotonic() > deadline_s:
                raise SettingsError(f"listen is {listen!r}, wanted a free host:port ({error})") from error
        await asyncio.sleep(0.25)


async def _tell(swapped: asyncio.Event, answers: Answers, healthiness: health.aio.HealthServicer) -> None:
    """Pass swaps on to those who watch."""
    while True:
        await swapped.wait()
        swapped.clear()
        await _set_health(healthiness, serving=True)
        answers.tell()


async def _set_health(healthiness: health.aio.HealthServicer, *, serving: bool) -> None:
    states = health_pb2.HealthCheckResponse
    for name in ("", SERVICE):
        await healthiness.set(name, states.SERVING if serving else states.NOT_SERVING)


async def _drain(
    server: grpc.aio.Server,
    answers: Answers,
    healthiness: health.aio.HealthServicer,
    limits: Limits,
) -> None:
    """Say so first, then refuse new calls, then wait for those in flight."""
    _log.info("draining")
    await healthiness.enter_graceful_shutdown()
    await asyncio.sleep(limits.notice_s)
    await answers.drain()
    await server.stop(limits.grace_s)


def run(
    *,
    bootstrap_servers: str,
    topics: Topics,
    registry_url: str | None,
    listen: str = DEFAULT_LISTEN,
    ready: Callable[[int], None] | None = None,
    share_port: bool = False,
    reflect: bool = False,
    limits: Limits | None = None,
) -> None:
    """``serve`` as a process: until SIGTERM or Ctrl-C. Prints one line, ``serving on HOST:PORT``.

    Args:
        ready: called with the bound port instead of printing.

    Raises:
        SettingsError: ``listen`` cannot be had.
    """
    host = listen.rpartition(":")[0]
    announce = ready or (lambda port: print(f"serving on {host}:{port}", flush=True))
    asyncio.run(
        _until_signalled(
            functools.partial(
                serve,
                bootstrap_servers=bootstrap_servers,
                topics=topics,
                registry_url=registry_url,
                listen=listen,
                ready=announce,
                share_port=share_port,
                reflect=reflect,
                limits=limits,
            )
        )
    )


async def _until_signalled(serving: Callable[..., Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for which in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(which, stop.set)
    await serving(stop=stop)

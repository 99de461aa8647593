"""The server's process: bind -> follow the models log -> answer -> drain.

One event loop answers (``stream_app/serving``): our own calls (``answers``) and the Open Inference Protocol (``oip``)
over gRPC, every call through ``calls``; both over HTTP, if asked for, through ``rest``. Who may call is decided in
``security``. The live model is followed in a thread beside it.
"""

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from kafka.errors import KafkaError

from stream_app import heap
from stream_app.decisions import DecisionWriter, Evidence
from stream_app.errors import SettingsError
from stream_app.events import Topics
from stream_app.following import LiveFollower
from stream_app.live import LiveModel
from stream_app.operate import Operator, operator
from stream_app.registry import Registry
from stream_app.serving import oip
from stream_app.serving import tls as certificates
from stream_app.serving.answers import Answers
from stream_app.serving.calls import Calls
from stream_app.serving.counts import Counts
from stream_app.serving.limits import Limits, Room
from stream_app.serving.oip import OpenInference
from stream_app.serving.security import Guard, Security, is_loopback
from stream_app.serving.source import Source
from stream_app.serving.tls import TLS
from stream_app.serving.tokens import TokenFile
from stream_app.wire import open_inference_pb2_grpc as oip_grpc
from stream_app.wire import stream_app_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from stream_app.event_log import EventLog
    from stream_app.serving.rest import Rest

SERVICE = "stream_app.v1.StreamModel"
DEFAULT_LISTEN = "127.0.0.1:50051"

BIND_S = 5.0
"""How long a port that is taken is tried again: a server that crashed may still be leaving it."""

SPARE_CALLS = 64
"""Over gRPC, beyond the limit: for health, and to tell others that there is no room. More are refused unread."""
KEEPALIVE_MS = 60_000
"""After so long without a word gRPC asks a client whether it is still there."""
SWITCH_S = 0.0005
"""How long a version's preparation may keep answers waiting for the GIL; Python's own limit is ten times as much."""
FRESH_S = 5.0
"""How soon a changed certificate is shown."""

_log = logging.getLogger(__name__)


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
    security: Security | None = None,
    rest: str | None = None,
    rest_ready: Callable[[int], None] = lambda port: None,
    log_events: bool = False,
    prometheus: str | None = None,
    loaded: Callable[[], None] = lambda: None,
) -> None:
    """Answer until ``stop`` is set, then drain.

    Args:
        registry_url: where artefacts lie that do not travel inline; None if all do.
        listen: ``host:port``; port 0 takes a free one. Elsewhere than on loopback, callers without credentials may
            only ask for predictions.
        ready: called with the bound port, before any version is live.
        share_port: several processes on one port; the kernel spreads connections over them.
        reflect: let clients ask for the contract.
        security: how callers are known.
        rest: ``host:port`` to answer over HTTP, too.
        rest_ready: called with that port, before any version is live.
        log_events: take examples and labels, to be learned.
        prometheus: ``host:port`` for its metrics, without encryption or authentication.
        loaded: called, in a thread, when compiled code has been loaded for a model.

    Raises:
        SettingsError: an address cannot be had, or a file of ``security`` is wrong.
    """
    limits, stop = limits or Limits(), stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    tls, tokens = known_by(security or Security(), listen, rest)
    healthiness = health.aio.HealthServicer()
    swapped = asyncio.Event()

    def wake(live: LiveModel) -> None:
        loop.call_soon_threadsafe(swapped.set)

    registry = Registry(registry_url) if registry_url else None
    follower = LiveFollower(
        bootstrap_servers,
        topics.models,
        registry=registry,
        changed=wake,
        alarmed=partial(_on_record, bootstrap_servers, topics.decisions),
    )
    source = Source(follower, limits)
    events = _event_log(bootstrap_servers, topics.events) if log_events else None

    def operators(by: str) -> AbstractContextManager[Operator]:
        assert registry is not None
        return operator(bootstrap_servers, topics, registry, by, source.live().spec.publish.inline_bytes)

    append = events.append if events else None
    answers = Answers(source, limits, operators if registry else None, append, loaded=loaded)
    inference = OpenInference(source, limits)
    room, counts = Room(limits.calls), Counts()
    unparsed: dict[str, Callable[..., object]] = {
        f"/{SERVICE}/Predict": answers.predicted,
        f"/{SERVICE}/PredictStream": answers.PredictStream,
    }
    calls = Calls(Guard(listen, tokens, certified=tls is not None and tls.certified), room, counts, unparsed)
    server = _server(limits, calls, share_port)
    _register(calls, answers, inference, healthiness, reflect=reflect)
    await _set_health(healthiness, serving=False)
    port = await _bind(server, listen, tls)
    http = None
    if rest is not None:  # aiohttp takes 10 MB and a quarter of a second: loaded only then; what follows, alike
        from stream_app.serving.over_http import over_http

        guard = Guard(rest, tokens, certified=tls is not None and tls.certified)
        http = over_http(answers, inference, source, limits, guard=guard, room=room, listen=rest, counts=counts)
        rest_ready(await http.start(tls.context if tls else None, share_port=share_port))
    with ExitStack() as stack:
        if prometheus is not None:
            stack.enter_context(_exposed(prometheus, counts, room, source, follower))
        await server.start()
        ready(port)
        beside = [loop.create_task(_tell(swapped, source, answers, healthiness)), loop.create_task(_keep_fresh(tls))]
        follower.start()
        try:
            await stop.wait()
        finally:
            for task in beside:
                task.cancel()
            await _drain(server, http, source, healthiness, limits)
            source.traffic.close()
            if events is not None:
                await events.close()
            await loop.run_in_executor(None, follower.stop)


def _on_record(bootstrap_servers: str, topic: str, number: int, evidence: Evidence) -> None:
    """What a server refuses is a decision, too."""
    try:
        with closing(DecisionWriter(bootstrap_servers, topic)) as decisions:
            decisions.decide("refused", number, evidence | {"server": socket.gethostname()})
    except KafkaError as error:
        _log.error("refused %s is not on the decisions topic: %s", evidence.get("name"), error)


def known_by(security: Security, listen: str, rest: str | None) -> tuple[TLS | None, TokenFile | None]:
    """What the settings name, read.

    Raises:
        SettingsError: it cannot be read, or does not fit together.
    """
    tls = certificates.of(security)
    tokens = TokenFile(Path(security.tokens)) if security.tokens else None
    for address in filter(None, (listen, rest)):
        if tokens is not None and tls is None and not is_loopback(address):
            _log.warning("%s: tokens travel in the clear, unless something before this server encrypts", address)
    return tls, tokens


def _register(
    calls: Any, answers: Answers, inference: OpenInference, healthiness: health.aio.HealthServicer, *, reflect: bool
) -> None:
    """Every service, with ``calls`` in the place of a server."""
    pb_grpc.add_StreamModelServicer_to_server(answers, calls)
    oip_grpc.add_GRPCInferenceServiceServicer_to_server(inference, calls)
    health_pb2_grpc.add_HealthServicer_to_server(healthiness, calls)
    if reflect:
        services = reflection.aio.ReflectionServicer((SERVICE, oip.SERVICE, health.SERVICE_NAME))
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(services, calls)  # type: ignore[no-untyped-call]


def _server(limits: Limits, calls: Calls, share_port: bool) -> grpc.aio.Server:
    options = (
        ("grpc.max_receive_message_length", limits.message_bytes),
        # gRPC's own default is to share: two servers by mistake would each get half of the calls.
        ("grpc.so_reuseport", int(share_port)),
        # Of a watcher whose machine is gone, nothing else tells.
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    )
    most = limits.calls + SPARE_CALLS
    return grpc.aio.server(handlers=(calls,), options=options, maximum_concurrent_rpcs=most)


async def _bind(server: grpc.aio.Server, listen: str, tls: TLS | None) -> int:
    deadline_s = time.monotonic() + BIND_S
    while True:
        try:
            if tls is None:
                return int(server.add_insecure_port(listen))
            return int(server.add_secure_port(listen, _credentials(tls)))
        except RuntimeError as error:
            if time.monotonic() > deadline_s:
                raise SettingsError(f"listen is {listen!r}, wanted a free host:port ({error})") from error
        await asyncio.sleep(0.25)


def _credentials(tls: TLS) -> grpc.ServerCredentials:
    """Of the certificate as it is at each handshake."""

    def shown() -> grpc.ServerCertificateConfiguration:
        key, chain, client_ca = tls.pems
        return grpc.ssl_server_certificate_configuration([(key, chain)], client_ca)

    return grpc.dynamic_ssl_server_credentials(shown(), shown, tls.certified)


async def _keep_fresh(tls: TLS | None) -> None:
    while tls is not None:
        await asyncio.sleep(FRESH_S)
        tls.refresh()


def _event_log(bootstrap_servers: str, topic: str) -> "EventLog":
    from stream_app.event_log import EventLog

    return EventLog(bootstrap_servers, topic)


def _exposed(
    listen: str, counts: Counts, room: Room, source: Source, follower: LiveFollower
) -> AbstractContextManager[object]:
    from stream_app.metrics import expose
    from stream_app.serving import metrics

    return expose(listen, partial(metrics.families, counts, room, source, follower))


async def _tell(
    swapped: asyncio.Event, source: Source, answers: Answers, healthiness: health.aio.HealthServicer
) -> None:
    """Pass swaps on to those who watch."""
    while True:
        await swapped.wait()
        swapped.clear()
        await _set_health(healthiness, serving=True)
        source.tell()
        answers.plain.follow(source.live())


async def _set_health(healthiness: health.aio.HealthServicer, *, serving: bool) -> None:
    states = health_pb2.HealthCheckResponse
    for name in ("", SERVICE):
        await healthiness.set(name, states.SERVING if serving else states.NOT_SERVING)


async def _drain(
    server: grpc.aio.Server,
    http: "Rest | None",
    source: Source,
    healthiness: health.aio.HealthServicer,
    limits: Limits,
) -> None:
    """Say so first, then refuse new calls, then wait for those in flight."""
    _log.info("draining")
    source.leaving = True
    await healthiness.enter_graceful_shutdown()
    await asyncio.sleep(limits.notice_s)
    await source.drain()
    await asyncio.gather(server.stop(limits.grace_s), *([http.stop()] if http else []))


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
    security: Security | None = None,
    rest: str | None = None,
    log_events: bool = False,
    prometheus: str | None = None,
) -> None:
    """``serve`` as a process: until SIGTERM or Ctrl-C. Prints ``serving on HOST:PORT``.

    Before it, with ``rest``, ``serving http on HOST:PORT``.

    Args:
        ready: called with the bound port instead of printing.

    Raises:
        SettingsError: as ``serve``.
    """
    _allow_connections()
    prefer_throughput()
    heap.share_heaps()
    gc.freeze()  # what is imported stays: a collection that looks at all of it stops answers for 15 to 20 ms
    sys.setswitchinterval(SWITCH_S)
    host, rest_host = listen.rpartition(":")[0], (rest or "").rpartition(":")[0]
    announce = ready or (lambda port: print(f"serving on {host}:{port}", flush=True))
    serving = partial(
        serve,
        bootstrap_servers=bootstrap_servers,
        topics=topics,
        registry_url=registry_url,
        listen=listen,
        ready=announce,
        share_port=share_port,
        reflect=reflect,
        limits=limits,
        security=security,
        rest=rest,
        rest_ready=lambda port: print(f"serving http on {rest_host}:{port}", flush=True),
        log_events=log_events,
        prometheus=prometheus,
        loaded=gc.freeze,  # numba, which comes later, would take 60 to 120 ms more
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_signalled(serving))


def _allow_connections() -> None:
    """As many as the system lets a process have: what shells give, often 1,024, a thousand clients use up."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (ValueError, OSError):  # macOS says "endless" and does not take it
        pass


def prefer_throughput() -> None:
    """No thread of this process interrupts another to begin a little sooner.

    gRPC has threads of its own, which wake for every packet; where cores are busy, Linux stops the thread that answers
    for each of them, six times a call (docs/serving-speed.md).
    """
    if sys.platform == "linux":
        try:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        except OSError as error:  # a sandbox may forbid it
            _log.info("scheduling stays as it is: %s", error)


async def _until_signalled(serving: Callable[..., Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for which in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(which, stop.set)
    await serving(stop=stop)

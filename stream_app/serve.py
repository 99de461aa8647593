"""The server's process: bind -> follow the models log -> answer -> drain.

One event loop answers (``stream_app/serving``: our own calls in ``answers``); the live model is followed in a
thread beside it.
"""

import asyncio
import functools
import logging
import signal
import time
from collections.abc import Awaitable, Callable

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from stream_app.errors import SettingsError
from stream_app.events import Topics
from stream_app.following import LiveFollower
from stream_app.live import LiveModel
from stream_app.registry import Registry
from stream_app.serving.answers import Answers
from stream_app.serving.calls import Calls
from stream_app.serving.limits import Limits
from stream_app.serving.oip import OpenInference
from stream_app.serving.source import Source
from stream_app.wire import open_inference_pb2_grpc as oip_grpc
from stream_app.wire import stream_app_pb2_grpc as pb_grpc

SERVICE = "stream_app.v1.StreamModel"
DEFAULT_LISTEN = "127.0.0.1:50051"

BIND_S = 5.0
"""How long a port that is taken is tried again: a server that crashed may still be leaving it."""

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
    source = Source(follower, limits)
    server = _server(limits, share_port)
    pb_grpc.add_StreamModelServicer_to_server(Answers(source, limits), server)
    oip_grpc.add_GRPCInferenceServiceServicer_to_server(OpenInference(source, limits), server)
    health_pb2_grpc.add_HealthServicer_to_server(healthiness, server)
    if reflect:
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME), server)
    await _set_health(healthiness, serving=False)
    port = await _bind(server, listen)
    await server.start()
    ready(port)
    telling = loop.create_task(_tell(swapped, source, healthiness))
    follower.start()
    try:
        await stop.wait()
    finally:
        telling.cancel()
        await _drain(server, source, healthiness, limits)
        await loop.run_in_executor(None, follower.stop)


def _server(limits: Limits, share_port: bool) -> grpc.aio.Server:
    options = (
        ("grpc.max_receive_message_length", limits.message_bytes),
        # gRPC's own default is to share: two servers by mistake would each get half of the calls.
        ("grpc.so_reuseport", int(share_port)),
    )
    return grpc.aio.server(interceptors=(Calls(),), options=options, maximum_concurrent_rpcs=limits.calls)


async def _bind(server: grpc.aio.Server, listen: str) -> int:
    deadline_s = time.monotonic() + BIND_S
    while True:
        try:
            return int(server.add_insecure_port(listen))
        except RuntimeError as error:
            if time.monotonic() > deadline_s:
                raise SettingsError(f"listen is {listen!r}, wanted a free host:port ({error})") from error
        await asyncio.sleep(0.25)


async def _tell(swapped: asyncio.Event, source: Source, healthiness: health.aio.HealthServicer) -> None:
    """Pass swaps on to those who watch."""
    while True:
        await swapped.wait()
        swapped.clear()
        await _set_health(healthiness, serving=True)
        source.tell()


async def _set_health(healthiness: health.aio.HealthServicer, *, serving: bool) -> None:
    states = health_pb2.HealthCheckResponse
    for name in ("", SERVICE):
        await healthiness.set(name, states.SERVING if serving else states.NOT_SERVING)


async def _drain(
    server: grpc.aio.Server,
    source: Source,
    healthiness: health.aio.HealthServicer,
    limits: Limits,
) -> None:
    """Say so first, then refuse new calls, then wait for those in flight."""
    _log.info("draining")
    await healthiness.enter_graceful_shutdown()
    await asyncio.sleep(limits.notice_s)
    await source.drain()
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

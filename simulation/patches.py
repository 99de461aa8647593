"""The product's modules with simulated clocks, chance, clients and files: [installed] -> worlds."""

import gc
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import simulation.disk
import simulation.kafka
from models import drift, learners
from simulation.learner import LedgerLearner
from simulation.loop import START_WALL_S, current
from stream_app import (
    course,
    decisions,
    failpoints,
    kafka_clients,
    logclient,
    modellog,
    outbox,
    parts,
    registry,
    seed,
    topics,
    worker,
)

HISTORY = 6
"""Versions that a fold remembers: logs are trimmed within one simulation."""


class Installed:
    """What the patched modules ask; a world sets it before it begins."""

    world: Any = None


def wall_s() -> float:
    """The wall clock as the process that runs sees it."""
    process = current()
    return START_WALL_S + float(Installed.world.loop.time()) + (process.skew_s if process else 0.0)


def monotonic_s() -> float:
    return float(Installed.world.loop.time())


_CLOCK = SimpleNamespace(time=wall_s, monotonic=monotonic_s, thread_time=monotonic_s, perf_counter=monotonic_s)


@contextmanager
def installed() -> Iterator[None]:
    """While it lasts, the product runs in whatever world is set."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        # Those of processes that were killed before they began.
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        stack.callback(gc.collect)  # while they are still ignored

        def patch(module: Any, name: str, value: Any) -> None:
            stack.enter_context(mock.patch.object(module, name, value))

        for module in (worker, outbox, seed, logclient, topics, decisions):
            if getattr(module, "time", None) is time:
                patch(module, "time", _CLOCK)
        patch(worker, "random", SimpleNamespace(uniform=lambda a, b: Installed.world.rng.uniform(a, b)))
        patch(outbox, "aiokafka", SimpleNamespace(AIOKafkaProducer=_async_producer))
        patch(kafka_clients, "consumer", _client(simulation.kafka.Consumer))
        patch(kafka_clients, "producer", _client(simulation.kafka.Producer))
        patch(kafka_clients, "admin", _client(simulation.kafka.Admin))
        patch(registry, "fsspec", _fsspec())
        patch(registry, "Path", simulation.disk.Path)
        patch(registry, "os", simulation.disk.Os())
        for module in (registry, course):
            patch(module, "secrets", SimpleNamespace(token_hex=_token))
        patch(parts.Parts.__init__, "__kwdefaults__", {"clock": wall_s})
        patch(learners, "make", lambda spec, **_: LedgerLearner(spec))
        patch(parts, "PART_BYTES", 512)
        patch(failpoints, "reach", lambda name: Installed.world.reached(name))
        patch(drift, "version", lambda name: "simulated")  # it would be looked up for every core
        patch(modellog, "HISTORY", HISTORY)
        patch(seed, "HISTORY", HISTORY)
        patch(seed, "TRIM_S", 2.0)
        patch(seed, "CHECK_HEAD_S", 3.0)
        patch(worker, "CHECK_IDS_S", 2.0)
        yield


def _client(kind: Any) -> Any:
    return lambda bootstrap_servers, **config: kind(Installed.world.broker, **config)


def _async_producer(**_: Any) -> simulation.kafka.AsyncProducer:
    return simulation.kafka.AsyncProducer(Installed.world.broker)


def _token(size: int) -> str:
    return f"{Installed.world.rng.getrandbits(8 * size):x}"


def _fsspec() -> Any:
    """As much of ``fsspec`` as the registry names."""
    import fsspec

    def url_to_fs(url: str) -> tuple[Any, str]:
        return simulation.disk.FileSystem(Installed.world.disk), url

    return SimpleNamespace(core=SimpleNamespace(url_to_fs=url_to_fs), implementations=fsspec.implementations)


def quiet() -> None:
    """The product's own log would be most of the work."""
    logging.getLogger("stream_app").setLevel(logging.CRITICAL + 1)


class _Told(logging.Handler):
    """The product's log goes into the trace."""

    def emit(self, record: logging.LogRecord) -> None:
        process = current()
        if Installed.world is not None:
            Installed.world.trace(
                process.name if process else "?", f"{record.levelname.lower()}: {record.getMessage()}"
            )


def loud() -> None:
    """What the product logs is told, too."""
    logger = logging.getLogger("stream_app")
    logger.handlers = [_Told()]
    logger.setLevel(logging.INFO)
    logger.propagate = False

"""The Faust edge: events topic -> coalesced chunks -> agent -> worker. Nothing is computed here."""

import asyncio
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import faust
import mode
from faust.types import TP

from stream_app import heap
from stream_app.coalesce import CoalescingApp
from stream_app.codecs.decoded import Decoded
from stream_app.codecs.mixed import Codec
from stream_app.errors import StreamAppError
from stream_app.events import Topics
from stream_app.seed import Seeder
from stream_app.worker import Consumer, Worker

log = logging.getLogger("stream_app.worker")

TICK_S = 0.1
"""At least so often, though nothing comes in."""
STOP_S = 40.0
"""A version under way may take 25 s; without a broker, some client would wait for ever."""

T = TypeVar("T")


class WorkerApp(CoalescingApp):
    """A Faust app of one agent; its offsets live in the model."""

    worker: Worker
    events: str
    codec: Codec
    """Of the thread that fetches: a chunk is decoded there while the core learns what came before."""

    async def on_start(self) -> None:
        await _or_die(self.worker.start())
        await super().on_start()

    async def on_stop(self) -> None:
        text = f"did not stop within {STOP_S:g} s (is the broker gone?); what is not in a version is learned again"
        deadline = threading.Timer(STOP_S, _die, (text, 1))
        deadline.daemon = True
        deadline.start()
        await _or_die(self.worker.close())
        await super().on_stop()

    async def positions(self, assigned: set[TP]) -> Mapping[TP, int]:
        mine = {tp.partition: tp for tp in assigned if tp.topic == self.events}
        found = await _or_die(self.worker.positions(set(mine)))
        return {mine[p]: offset for p, offset in found.items()}

    def prepared(self, tp: TP, records: Sequence[Any]) -> Decoded:
        return self.codec.read(records)


def build(seeder: Seeder, *, bootstrap_servers: str, stuck_s: float) -> WorkerApp:
    """The app of one worker process."""
    events = Topics.of(seeder.spec.name).events
    app = WorkerApp(
        f"{seeder.spec.name}.worker",
        broker=[f"kafka://{b}" for b in bootstrap_servers.split(",")],
        store="memory://",
        datadir=os.path.join(tempfile.gettempdir(), "stream-app-faust"),  # nothing is kept there: no tables
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=4 << 20,
        broker_session_timeout=6.0,
        broker_rebalance_timeout=10.0,
        broker_heartbeat_interval=1.0,
        broker_max_poll_records=16384,
        stream_buffer_maxsize=2,
        stream_wait_empty=False,
        agent_supervisor=mode.CrashingSupervisor,
    )
    topic = app.topic(events, value_serializer="raw", key_serializer="raw", acks=False)
    app.events, app.codec = events, Codec(seeder.spec)
    app.worker = Worker(
        seeder,
        bootstrap_servers=bootstrap_servers,
        consumer=_consumer(app, events),
        stuck_s=stuck_s,
    )

    @app.agent(topic, name="learn")
    async def learn(chunks: Any) -> None:
        async for event in chunks.events():
            taking = _or_die(app.worker.take(event.message.partition, event.message.value, more=True))
            await asyncio.shield(taking)  # Faust may cancel the agent; what the core has learned is carried away

    @app.task  # type: ignore[untyped-decorator]
    async def linger() -> None:
        await _or_die(app.worker.linger())

    @app.task  # type: ignore[untyped-decorator]
    async def tick() -> None:
        while True:
            await _or_die(app.worker.tick())
            await app.worker.rest(TICK_S)

    return app


def _consumer(app: WorkerApp, events: str) -> Consumer:
    async def seek(offsets: Mapping[int, int]) -> None:
        mine: Any = app.consumer
        assigned = mine.assignment()
        await mine.seek_to({tp: o for p, o in offsets.items() if (tp := TP(events, p)) in assigned})

    async def commit(offsets: Mapping[int, int]) -> None:
        mine: Any = app.consumer
        assigned = mine.assignment()
        wanted = {tp: o for p, o in offsets.items() if (tp := TP(events, p)) in assigned}
        try:
            await mine.tell(wanted)
        except Exception as error:  # only for other people's lag monitors
            log.info("commit of %s failed: %r", wanted, error)

    def end(partition: int) -> int:
        mine: Any = app.consumer
        return int(mine.ends.get(TP(events, partition), 0))

    return Consumer(seek, commit, end)


async def _or_die(work: Awaitable[T]) -> T:
    """What a worker cannot handle ends the process: a restart begins again from the newest durable version."""
    try:
        return await work
    except asyncio.CancelledError:
        raise
    except StreamAppError as error:
        _die(f"{type(error).__name__}: {error}", error.exit_code)
    except Exception:
        log.exception("the worker failed")
        _die("the worker failed; see above", 1)


def _die(text: str, code: int) -> NoReturn:
    print(f"stream-app worker: {text}", file=sys.stderr, flush=True)
    os._exit(code)


def run(seeder: Seeder, *, bootstrap_servers: str, stuck_s: float = 60.0) -> NoReturn:
    """Work until SIGTERM or Ctrl-C; what was learned by then is published first."""
    heap.keep_freed()
    app = build(seeder, bootstrap_servers=bootstrap_servers, stuck_s=stuck_s)
    faust.Worker(app, loglevel="WARN", override_logging=False, quiet=True).execute_from_commandline()

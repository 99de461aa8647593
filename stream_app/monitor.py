"""One process watches a model: models log, decisions, end offsets -> [monitor] -> status.

It only reads, and takes part in nothing: it may be stopped, started and run twice at any time.
"""

import logging
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import kafka
import msgspec
from kafka.errors import KafkaError

from models.spec import ModelSpec
from stream_app import kafka_clients
from stream_app.broker import answers_metadata
from stream_app.dashboard import view as dashboard
from stream_app.errors import BrokerError, ModelLogError, StreamAppError, TopicError
from stream_app.events import Decision, Topics
from stream_app.lag import Lag, lag, worker_group
from stream_app.logclient import LogClient
from stream_app.metrics import serve_metrics
from stream_app.modellog import Announcement, Change, Envelope, Route, Variant
from stream_app.status import Mark, Pace, Status
from stream_app.topics import beginning_offsets, end_offsets

KEEP_DECISIONS = 50
LAG_EVERY_S = 1.5
"""It costs the broker about ten requests."""
POLL_S = 0.2
RETRY_S = 0.5
"""Between two attempts to reach the broker."""
LINE_EVERY_S = 5.0
_STOP_S = 3.0
_log = logging.getLogger("stream_app.monitor")


class Seen:
    """What the models log and the decisions have said so far. Pure; no I/O."""

    def __init__(self) -> None:
        self.head: Envelope | None = None
        self.variants: dict[str, Variant] = {}
        self.int8: Variant | None = None
        self.counts: dict[str, float] = {}
        self.versions = 0
        self.began: Mark | None = None
        self.grew: Mark | None = None
        self.decisions: deque[Decision] = deque(maxlen=KEEP_DECISIONS)
        self.decision_counts: Counter[str] = Counter()
        self.events_pace, self.records_pace = Pace(), Pace()

    def take(self, change: Change, heard_s: float) -> None:
        """Note what a counted record of the models log did; ``heard_s`` is monotonic."""
        if isinstance(change.record, Announcement):
            anew = change.record.kind == "epoch"
            self._take_version(change.head, anew=anew, heard_s=heard_s)
        elif isinstance(change.record, Variant):
            self._take_variant(change.record)

    def decide(self, decision: Decision) -> None:
        self.decisions.append(decision)
        self.decision_counts[decision.kind] += 1

    def _take_version(self, head: Envelope, *, anew: bool, heard_s: float) -> None:
        self.head, self.variants = head, {}
        self.versions += 1
        if anew:  # restored, or begun from nothing: what was counted before no longer holds
            self.counts, self.began, self.grew = {}, None, None
            self.events_pace, self.records_pace = Pace(), Pace()
        for name in ("events", "learned", *_KEPT):
            self.counts[name] = max(self.counts.get(name, 0), head.metrics.get(name, 0))
        mark = Mark(head.created_s, int(self.counts["events"]), sum(head.offsets.values()))
        self.events_pace.add(head.metrics.get("events", 0), mark.made_s, heard_s)
        self.records_pace.add(mark.records, mark.made_s, heard_s)
        if mark.events and self.began is None:
            self.began = mark
        if mark.events > (self.grew.events if self.grew else 0):
            self.grew = mark

    def _take_variant(self, variant: Variant) -> None:
        bare = msgspec.structs.replace(variant, inline=None)
        self.variants[variant.kind] = bare
        if variant.kind == "int8":
            self.int8 = bare


_KEPT = (
    *("dead_letters", "expired", "orphans", "ignored", "drifts", "input_drifts", "recalls"),
    "lost_predictions",
)


class Monitor:
    """A thread that keeps a ``Status`` up to date.

    Without a broker, or with one that lost its log, the last figures stay, their age grows, and
    ``Status.problem`` says why; once it is back everything is read anew.

    Args:
        name: of the model.
        task: of the model; for whoever shows it.
        bootstrap_servers: of the broker; the topics may be created later.
        lag_every_s: how often the ends of the events topic are asked for.
    """

    def __init__(self, name: str, task: str, *, bootstrap_servers: str, lag_every_s: float = LAG_EVERY_S) -> None:
        self._name, self._task = name, task
        self._topics = Topics.of(name)
        self._bootstrap_servers = bootstrap_servers
        self._lag_every_s = lag_every_s
        self._seen = Seen()
        self._route: Route | None = None
        self._lag: Lag | None = None
        self._max_lag_events = 0
        self._problem = f"waiting for broker {bootstrap_servers!r}"
        self._heard_s = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        self._status = Status(name=name, task=task, at_s=time.time(), problem=self._problem)

    def status(self) -> Status:
        """What is known now; any thread may ask."""
        silence_s = max(time.monotonic() - self._heard_s, 0.0)
        return msgspec.structs.replace(self._status, at_s=time.time(), broker_silence_s=silence_s)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a request to a silent broker is left behind after 3 s."""
        self._stopping.set()
        self._thread.join(_STOP_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._check_broker()
                self._follow()
            except (StreamAppError, KafkaError) as error:
                self._say(str(error))
            except Exception as error:  # whoever watches must not be the first to die
                _log.exception("the monitor failed")
                self._say(f"the monitor failed with {error!r}")
            self._stopping.wait(RETRY_S)

    def _follow(self) -> None:
        """Read both topics from their beginnings, and go on until something is wrong."""
        with (
            closing(LogClient(self._bootstrap_servers, self._topics.models)) as log,
            closing(_Decisions(self._bootstrap_servers, self._topics.decisions)) as decisions,
        ):
            end = end_offsets(self._bootstrap_servers, self._topics.models)[0]
            seen, due_s = Seen(), 0.0
            while not self._stopping.is_set():
                self._read(log, decisions, seen)
                due = time.monotonic() >= due_s
                if due:
                    due_s = time.monotonic() + self._lag_every_s
                if log.position() < end:  # nothing half read is shown
                    if due:
                        self._check_log(end)
                    continue
                self._seen, self._route = seen, log.fold.route
                if due:
                    self._measure()
                self._publish()

    def _check_log(self, wanted: int) -> None:
        """See that the log which is being read up to ``wanted`` is still there.

        Raises:
            BrokerError: no broker answers, or the topic is gone.
            ModelLogError: it is shorter now.
        """
        self._check_broker()
        self._heard_s = time.monotonic()
        end = end_offsets(self._bootstrap_servers, self._topics.models)[0]
        if end < wanted:
            raise ModelLogError(f"{self._topics.models}: ends at {end}, wanted {wanted} as before: it lost its log")

    def _read(self, log: LogClient, decisions: "_Decisions", seen: Seen) -> None:
        for change in log.poll(POLL_S):
            self._heard_s = time.monotonic()
            seen.take(change, self._heard_s)
        for decision in decisions.poll():
            seen.decide(decision)

    def _measure(self) -> None:
        self._check_broker()
        group = worker_group(self._name)
        try:
            self._lag = lag(self._bootstrap_servers, self._topics, self._seen.head, group)
        except TopicError as error:
            self._heard_s = time.monotonic()
            if self._say(str(error)):
                raise  # something has changed: read everything anew, once
            return
        self._heard_s = time.monotonic()
        self._problem = ""
        self._max_lag_events = max(self._max_lag_events, self._lag.lag_events)

    def _check_broker(self) -> None:
        """Kafka's client would try for long, and leak sockets meanwhile.

        Raises:
            BrokerError: none of the brokers answers.
        """
        for server in self._bootstrap_servers.split(","):
            host, _, port = server.strip().rpartition(":")
            if port.isdigit() and answers_metadata(host.strip("[]"), int(port)):
                return
        raise BrokerError(f"broker {self._bootstrap_servers!r}: does not answer, wanted it to")

    def _say(self, problem: str) -> bool:
        """Note what is wrong; returns whether that is news."""
        news = problem != self._problem
        if news:
            _log.warning("%s", problem)
        self._problem, self._lag = problem, None
        self._publish()
        return news

    def _publish(self) -> None:
        seen, now_s = self._seen, time.monotonic()
        self._status = Status(
            name=self._name,
            task=self._task,
            at_s=time.time(),
            head=seen.head,
            variants=tuple(seen.variants.values()),
            int8=seen.int8,
            route=self._route,
            counts=dict(seen.counts),
            events_per_s=seen.events_pace.per_s(now_s),
            records_per_s=seen.records_pace.per_s(now_s),
            began=seen.began,
            grew=seen.grew,
            lag=self._lag,
            max_lag_events=self._max_lag_events,
            decisions=tuple(seen.decisions),
            decision_counts=dict(seen.decision_counts),
            versions=seen.versions,
            problem=self._problem,
        )


class _Decisions:
    """Reads the decisions topic from its beginning."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self._tp = kafka.TopicPartition(topic, 0)
        start = beginning_offsets(bootstrap_servers, topic)[0]
        self._consumer: Any = kafka_clients.consumer(bootstrap_servers, fetch_max_wait_ms=50)
        self._consumer.assign([self._tp])
        self._consumer.seek(self._tp, start)

    def poll(self) -> list[Decision]:
        """What has arrived; records that are no decisions are passed over."""
        found = []
        for record in self._consumer.poll(timeout_ms=0).get(self._tp, ()):
            try:
                found.append(msgspec.json.decode(record.value, type=Decision))
            except msgspec.MsgspecError:
                _log.warning("decisions@%d is no decision", record.offset)
        return found

    def close(self) -> None:
        self._consumer.close()


# The command --------------------------------------------------------------------------------------


@contextmanager
def signalled() -> Iterator[threading.Event]:
    """An event that SIGTERM or Ctrl-C sets; for the main thread. Handlers are put back at the end."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(n, lambda *_: stop.set()) for n in numbers]
    try:
        yield stop
    finally:
        for number, old in zip(numbers, before, strict=True):
            signal.signal(number, old)


def run(spec: ModelSpec, *, bootstrap_servers: str, prometheus: str, view: bool) -> int:
    """``stream-app monitor``: until SIGTERM or Ctrl-C.

    Raises:
        SettingsError: ``prometheus`` cannot be had.
    """
    monitor = Monitor(spec.name, spec.task, bootstrap_servers=bootstrap_servers)
    with signalled() as stop, serve_metrics(prometheus, monitor.status) as server:
        monitor.start()
        try:
            _log.info("metrics on %s", server.url)
            if view:
                logging.getLogger().setLevel(logging.ERROR)  # lines would tear the picture
                dashboard.show(lambda: dashboard.Frame(monitor.status()), stop)
            else:
                _write_lines(monitor, stop)
        finally:
            monitor.stop()
    return 0


def _write_lines(monitor: Monitor, stop: threading.Event) -> None:
    while not stop.wait(LINE_EVERY_S):
        _log.info("%s", dashboard.line(monitor.status()))

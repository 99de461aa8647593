"""The whole service on a year of flights, in minutes: produce -> [up] -> monitor -> summary.

    python -m examples.flights.demo        KEEP=1 leaves everything running until Ctrl-C

Everything goes to runs/demo, which is emptied first: logs/ of every process, registry/, and at the
end summary.json. The demo checks itself: it fails unless every flight and every label took effect
exactly once, the three bad records are dead letters, nothing is left over, and River was beaten
by 0.01 in AUC.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
from kafka import TopicPartition
from kafka.errors import KafkaError
from rich.console import Console
from rich.table import Table

from examples.flights.baseline import write_json
from models.spec import read_spec
from stream_app import kafka_clients
from stream_app.broker import free_port
from stream_app.client import Predictions, StreamModelClient
from stream_app.dashboard.view import Frame, show
from stream_app.errors import ServingError, StreamAppError
from stream_app.events import Topics
from stream_app.lag import worker_group
from stream_app.metrics import serve_metrics
from stream_app.modellog import Envelope
from stream_app.monitor import Monitor, signalled
from stream_app.status import Mark, Status
from stream_app.topics import end_offsets
from stream_app.up import Child, Service, last_words, locked, logging_to

SPEC = str(Path(__file__).with_name("model.toml"))
FOLDER = Path("runs/demo")
DEADLINE_S = 290.0
"""On two cores it takes about half of that."""
MAX_LAG = 150_000
"""Records: the producer waits while the service is further behind."""
QUIET_S = 3.0
"""A head that has not changed for so long, with no lag, is the last one."""

FLIGHTS, LABELS, BAD = 336_776, 327_346, 3
"""What the year holds, and what the producer slips in."""
RECORDS = FLIGHTS + LABELS + BAD
RETUNES, QUANTISATIONS = 1, 2
"""At least so many must be seen."""
AUC_LEAD = 0.01
"""At least so much above River's."""

Figures = dict[str, Any]

_log = logging.getLogger("demo")


class DemoError(Exception):
    """The demo cannot go on, or has gone wrong."""


class Answer(NamedTuple):
    """What the server said of one flight."""

    flight: str
    version: int
    variant: str
    probability: float
    """That it is late."""


# What must be, and what has been ------------------------------------------------------------------


def missing(status: Status, baseline: Figures, produced: Figures) -> list[str]:
    """What the demo still waits for, in words."""
    counts, head = status.decision_counts, status.head
    lag = status.lag.lag_events if status.lag else None
    quantised = counts.get("quantised", 0)
    conditions = (
        (bool(produced), "the end of the stream"),
        (status.events() >= FLIGHTS, f"{FLIGHTS - status.events():,} flights to be learned from"),
        (lag == 0, f"lag to become 0, it is {'unknown' if lag is None else f'{lag:,}'}"),
        (counts.get("tuned", 0) >= RETUNES, "a retuning"),
        (counts.get("promoted", 0) + counts.get("kept", 0) >= RETUNES, "the first challenger's fate"),
        (quantised >= QUANTISATIONS, f"{QUANTISATIONS} quantisations, there were {quantised}"),
        (head is not None and _judged(status, head), "the last version's quantisation"),
        (
            bool(baseline.get("done")),
            f"River, at {baseline.get('labels', 0):,} of {LABELS:,} labels",
        ),
    )
    return [text for met, text in conditions if not met]


def _judged(status: Status, head: Envelope) -> bool:
    """Whether the compressor has decided on the head: it has a variant, or it is to have none."""
    decided = [d.evidence.get("of_version") for d in status.decisions if d.kind == "quantised"]
    return bool(status.variants) or head.number in decided[-1:]


def failures(summary: Figures) -> list[str]:
    """What is not as it must be, in words; empty if all is."""
    wanted = {
        "events": FLIGHTS,
        "labels": LABELS,
        "dead_letters": BAD,
        "final_lag_events": 0,
    }
    wrong = [f"{name} is {summary[name]}, wanted {value}" for name, value in wanted.items() if summary[name] != value]
    ours, rivers = summary["auc"], summary["baselines"]["river_logistic"]["auc"]
    if ours is None or rivers is None or not ours >= rivers + AUC_LEAD:
        wrong.append(f"auc is {ours}, wanted River's {rivers} + {AUC_LEAD} or more")
    return wrong


def summarise(status: Status, baseline: Figures, answer: Answer | None, *, seconds: float) -> Figures:
    """What runs/demo/summary.json says; what is not known is None."""
    head, counts = status.head, status.decision_counts
    assert head is not None
    return {
        "events": int(head.metrics["events"]),
        "labels": head.labels,
        "events_per_s": _rate(status.began, status.grew, "events"),
        "records_per_s": _rate(status.began, status.grew, "records"),
        **_figures(head.metrics),
        "window": _figures(head.metrics, "window_"),
        "baselines": {
            "majority": _figures(head.metrics, "majority_"),
            "nochange": _figures(head.metrics, "nochange_"),
            "river_logistic": _figures(baseline),
        },
        "versions": head.number,
        "retunes": counts.get("tuned", 0),
        "promotions": counts.get("promoted", 0),
        "quantisations": counts.get("quantised", 0),
        "int8": _int8(status),
        "max_lag_events": status.max_lag_events,
        "final_lag_events": status.lag.lag_events if status.lag else None,
        "dead_letters": int(head.metrics["dead_letters"]),
        "drifts": counts.get("drift", 0),
        "ledger": {str(p): [n, f"{xor:016x}"] for p, (n, xor) in head.ledger.items()},
        "seconds": round(seconds, 1),
        "grpc": answer
        and {
            "version": answer.version,
            "variant": answer.variant,
            "probability": round(answer.probability, 4),
        },
    }


def _figures(metrics: Mapping[str, Any], prefix: str = "") -> Figures:
    return {name: metrics.get(f"{prefix}{name}") for name in ("auc", "accuracy", "log_loss")}


def _rate(began: Mark | None, grew: Mark | None, what: Literal["events", "records"]) -> float | None:
    """Per second, from the first version that had learned something to the last that grew."""
    if began is None or grew is None or grew.made_s <= began.made_s:
        return None
    seconds = grew.made_s - began.made_s
    more = grew.events - began.events if what == "events" else grew.records - began.records
    return round(more / seconds, 1)


def _int8(status: Status) -> Figures:
    """The newest variant; if none was ever attached, what was decided of one."""
    if (v := status.int8) is not None:
        found = {"bytes": v.size_bytes, "runtime": v.runtime, "loss_delta": v.loss - v.fp32_loss}
        return found | {name: getattr(v, name) for name in _MEASURED}
    decided = [d.evidence for d in status.decisions if d.kind == "quantised"]
    names = ("bytes", "runtime", "loss_delta", *_MEASURED)
    return {name: decided[-1].get(name) if decided else None for name in names}


_MEASURED = ("fp32_bytes", "batch", "latency_us", "fp32_latency_us", "served")


# The run ------------------------------------------------------------------------------------------


class Run:
    """The flights on their way through a service; ``frame`` takes one look and goes one step on.

    Args:
        service: started.
        monitor: started.
        done: set when there is nothing left to wait for.
    """

    def __init__(self, service: Service, monitor: Monitor, *, started_s: float, done: threading.Event) -> None:
        self._service, self._monitor = service, monitor
        self._started_s, self._done = started_s, done
        self._topics = Topics.of(read_spec(SPEC).name)
        self._river_path = FOLDER / "river.json"
        self.producer = _player("produce", service, *_held_back())
        river = ("--labels", str(LABELS), "--out", str(self._river_path))
        self.river = _player("baseline", service, *river, nice=10)
        self.first: Answer | None = None
        self.last: Answer | None = None
        self.summary: Figures = {}
        self._head_id, self._changed_s = "", time.monotonic()

    def start(self) -> None:
        self.producer.start()
        self.river.start()

    def stop(self) -> None:
        for child in (self.producer, self.river):
            child.terminate()
        for child in (self.producer, self.river):
            child.join(5.0)

    def frame(self) -> Frame:
        """What is to be shown now.

        Raises:
            DemoError: it takes too long, or the producer or River has failed.
            StreamAppError: a process of the service refuses to work.
        """
        self._service.tick()
        status, river = self._monitor.status(), read_json(self._river_path)
        if not self.summary:
            self._go_on(status, river)
        processes = [*self._service.processes(), self.producer.status(), self.river.status()]
        note = f"{time.monotonic() - self._started_s:,.0f} s"
        return Frame(status, {"River": river} if river else {}, processes, note)

    def _go_on(self, status: Status, river: Figures) -> None:
        for child in (self.producer, self.river):
            if child.code:
                raise DemoError(f"{child.log_path} ends with:\n{child.last_words()}")
        if self.first is None and status.labels() > 1_000:
            self.first = self._ask()
        left = missing(status, river, self.produced())
        seconds = time.monotonic() - self._started_s
        if not left and self._quiet(status):
            self.last = self._ask()
            left = [] if self.last else ["an answer from the server, see demo.log"]
            if not left:
                self.summary = summarise(status, river, self.last, seconds=seconds)
                self._done.set()
        if left and seconds > DEADLINE_S:
            raise DemoError(f"after {seconds:.0f} s this is still missing: {'; '.join(left)}")

    def _quiet(self, status: Status) -> bool:
        now_s = time.monotonic()
        if status.head is not None and status.head.id != self._head_id:
            self._head_id, self._changed_s = status.head.id, now_s
        return now_s - self._changed_s >= QUIET_S

    def produced(self) -> Figures:
        """The producer's last word; empty before."""
        return _last_json(self.producer.log_path) if self.producer.code == 0 else {}

    def _ask(self) -> Answer | None:
        flight = newest_flight(self._service.bootstrap_servers, self._topics.events)
        try:
            with StreamModelClient(self._service.listen, deadline_s=2.0) as client:
                return _answer(flight, client.predict([flight["features"]]))
        except ServingError as error:
            _log.warning("the server gave no answer (%s): %s", error.status, error)
            return None  # asked again at the next frame


def _answer(flight: Figures, said: Predictions) -> Answer:
    version, probability = said.version, said.rows[0].scores["1"]
    return Answer(flight["id"], version.number, version.variant, probability)


def _held_back() -> Sequence[str]:
    name = read_spec(SPEC).name
    return "--max-lag", str(MAX_LAG), "--group", worker_group(name)


def _player(module: str, service: Service, *flags: str, nice: int = 0) -> Child:
    topic = Topics.of(read_spec(SPEC).name).events
    argv = [sys.executable, "-m", f"examples.flights.{module}"]
    argv += ["--bootstrap-servers", service.bootstrap_servers, "--topic", topic]
    return Child(module, [*argv, *flags], service.logs, nice=nice, again=False)


def newest_flight(bootstrap_servers: str, topic: str) -> Figures:
    """The features record nearest to the end of the topic's first partition.

    Raises:
        DemoError: there is none among the last 2,000 records.
    """
    end, tp = end_offsets(bootstrap_servers, topic)[0], TopicPartition(topic, 0)
    consumer = kafka_clients.consumer(bootstrap_servers)
    try:
        consumer.assign([tp])
        consumer.seek(tp, max(0, end - 2_000))
        found: Figures = {}
        deadline_s = time.monotonic() + 10.0
        while consumer.position(tp) < end and time.monotonic() < deadline_s:
            for record in consumer.poll(timeout_ms=200).get(tp, ()):
                found = _as_flight(record.value) or found
    finally:
        consumer.close()
    if not found:
        raise DemoError(f"topic {topic!r}: no flight in its last 2,000 records, wanted one")
    return found


def _as_flight(value: bytes) -> Figures:
    try:
        record = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return record if "features" in record and "id" in record else {}


def read_json(path: Path) -> Figures:
    """What a file holds that is always replaced as a whole; empty while it is not there."""
    try:
        content: Figures = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        return {}
    return content


def _last_json(path: Path) -> Figures:
    content: Figures = msgspec.json.decode(last_words(path).splitlines()[-1])
    return content


# The command --------------------------------------------------------------------------------------


def main() -> int:
    """0 when all was as it must be, 1 when not, 130 after Ctrl-C."""
    keep = os.environ.get("KEEP", "") not in ("", "0")
    try:
        with locked(FOLDER.with_name("demo.lock")), signalled() as stop:
            shutil.rmtree(FOLDER, ignore_errors=True)
            return _play(stop, Console(), keep=keep)
    except (DemoError, StreamAppError, KafkaError) as error:
        print(f"demo: {error}\ndemo: logs are in {FOLDER / 'logs'}", file=sys.stderr)
        return 1


def _play(stop: threading.Event, console: Console, *, keep: bool) -> int:
    started_s, spec = time.monotonic(), read_spec(SPEC)
    prometheus = f"127.0.0.1:{free_port()}"
    service = Service(
        SPEC,
        spec,
        bootstrap_servers=None,
        registry=str(FOLDER / "registry"),
        listen="127.0.0.1:0",
        run_dir=FOLDER,
    )
    with ExitStack() as until:
        until.enter_context(service)
        until.enter_context(logging_to(service.logs / "demo.log"))
        monitor = Monitor(spec.name, spec.task, bootstrap_servers=service.bootstrap_servers)
        until.enter_context(serve_metrics(prometheus, monitor.status))
        monitor.start()
        until.callback(monitor.stop)
        run = Run(service, monitor, started_s=started_s, done=stop)
        until.callback(run.stop)
        run.start()
        show(run.frame, stop, console=console)
        if not run.summary:
            console.print("Stopping.")
            return 130
        code = _finish(run, console)
        _say_next(console, service, prometheus, keep=keep)
        if keep:
            stop.clear()
            show(run.frame, stop, console=console, every_s=60.0)
            console.print("Stopping.")
    return code


def _finish(run: Run, console: Console) -> int:
    """Write and print the summary, and say what is wrong with it."""
    write_json(FOLDER / "summary.json", run.summary)
    console.print(_table(run.summary))
    for line in _told(run.summary, run.first):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"All of it is in {FOLDER / 'summary.json'}.", highlight=False)
    wrong = failures(run.summary)
    for text in wrong:
        console.print(f"WRONG: {text}", style="bold red")
    return 1 if wrong else 0


def _table(summary: Figures) -> Table:
    table = Table("", "AUC", "accuracy", "log-loss")
    for name, figures in {"this service": summary, **summary["baselines"]}.items():
        table.add_row(name, *(_shown(figures[m], ".4f") for m in ("auc", "accuracy", "log_loss")))
    return table


def _shown(value: float | None, form: str) -> str:
    """A run that went wrong may lack figures: what is wrong is said after them."""
    return "-" if value is None else format(value, form)


def _told(s: Figures, first: Answer | None) -> Iterator[str]:
    """The rest of the summary, in sentences."""
    int8, last = s["int8"], s["grpc"]
    yield (
        f"{s['events']:,} flights and {s['labels']:,} labels at {_shown(s['events_per_s'], ',.0f')} flights/s "
        f"({_shown(s['records_per_s'], ',.0f')} records/s), all in {s['seconds']:.0f} s."
    )
    yield (
        f"Lag {_shown(s['final_lag_events'], ',')}, at most {s['max_lag_events']:,}; "
        f"{s['dead_letters']} dead letters; {s['drifts']} drifts noticed."
    )
    yield (
        f"{s['versions']} versions, {s['retunes']} retunings, {s['promotions']} promotions, "
        f"{s['quantisations']} quantisations."
    )
    yield (
        f"int8: {_shown(int8['bytes'], ',')} bytes (fp32 {_shown(int8['fp32_bytes'], ',')}), "
        f"{_shown(int8['latency_us'], '.1f')} us ({_shown(int8['fp32_latency_us'], '.1f')}), "
        f"log-loss {_shown(int8['loss_delta'], '+.5f')}; "
        f"{'served' if int8['served'] else 'not served'}."
    )
    if first is not None:
        yield f"Asked about {first.flight}, version {first.version}: late {first.probability:.1%}."
    if last is not None:
        yield f"Asked about the last flight, version {last['version']}: late {last['probability']:.1%}."


def _say_next(console: Console, service: Service, prometheus: str, *, keep: bool) -> None:
    python = os.path.relpath(sys.executable)
    lines = [
        "Running until Ctrl-C. Meanwhile:"
        if keep
        else "With KEEP=1 it would go on running. Then try, with the ports that it names:",
        f"  curl -s http://{prometheus}/metrics | grep ^stream_app_",
        f"  {python} -m stream_app lag --spec {os.path.relpath(SPEC)} --bootstrap-servers {service.bootstrap_servers}",
        f"  {python} -c 'from stream_app.client import StreamModelClient as C; "
        f'print(C("{service.listen}").predict([{{"carrier": "UA", "origin": "EWR"}}]))\'',
        f"Logs of every process are in {service.logs}, versions in {FOLDER / 'registry'}.",
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())

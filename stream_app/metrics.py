"""The status as Prometheus reads it: status -> [metrics] -> GET /metrics. The only home of its client.

Nothing is kept here: each scrape translates the status of that moment. Lag and offsets are absent
while they are not known; stream_app_problem is 1 then.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Thread
from typing import Self
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from stream_app.errors import SettingsError
from stream_app.lag import PartitionLag
from stream_app.modellog import ClassScore, Variant
from stream_app.status import Status

DEFAULT_LISTEN = "127.0.0.1:9464"
DECISION_KINDS = (
    *("drift", "recalled", "tuned", "promoted", "kept", "quantised", "reseeded"),
    *("rolled_back", "pinned", "unpinned", "imported", "canary", "shadow", "guard", "judged", "withdrawn", "refused"),
    *("redriving", "redriven"),
)
"""Shown from the start, at 0: a rate needs a first value."""

Key = tuple[str, ...]
"""Values of a metric's labels."""

_COUNTERS = {
    "events": ("events", "Events with features that became part of a version."),
    "learned": ("labels", "Pairs of features and label learned."),
    "dead_letters": ("dead_letters", "Records that could not be an event."),
    "expired": ("expired", "Examples whose label did not come in time."),
    "orphans": ("orphans", "Labels whose example did not come in time."),
    "ignored": ("ignored", "Repeated features and labels, passed over."),
    "drifts": ("drifts", "Changes of the error rate that were noticed."),
    "recalls": ("recalls", "Past references that were taken up again."),
    "input_drifts": ("input_drifts", "Changes of watched inputs that were noticed."),
    "lost_predictions": ("lost_predictions", "Predictions that recovery had to make again."),
    "skipped_steps": ("skipped_steps", "Steps not taken because their gradient was not finite."),
}
"""Count of the head -> name and help of the metric."""
_RENAMED = {"count": "scored_labels", "window_count": "window_scored_labels"}
"""Prometheus keeps names that end in _count for histograms."""


class MetricsServer:
    """Answers GET /metrics in a thread of its own; ``close`` ends it."""

    def __init__(self, server: WSGIServer, thread: Thread, host: str) -> None:
        self._server, self._thread, self._host = server, thread, host

    @property
    def port(self) -> int:
        return int(self._server.server_port)

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.port}/metrics"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve_metrics(listen: str, status: Callable[[], Status]) -> MetricsServer:
    """``expose`` the status of each moment."""
    return expose(listen, lambda: families(status()))


def expose(listen: str, now: Callable[[], Iterable[Metric]]) -> MetricsServer:
    """Serve the metrics of each moment at ``http://<listen>/metrics``.

    Args:
        listen: ``host:port``; port 0 takes a free one. There is neither encryption nor
            authentication: keep it on loopback, or behind something that has both.
        now: asked at each scrape, in the server's threads.

    Raises:
        SettingsError: ``listen`` is no address, or cannot be had.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise SettingsError(f"prometheus is {listen!r}, wanted HOST:PORT")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(now))
    try:
        server, thread = start_http_server(int(port), addr=host.strip("[]"), registry=registry)
    except OSError as error:
        text = f"prometheus is {listen!r}, wanted a free HOST:PORT ({error.strerror or error})"
        raise SettingsError(text) from error
    return MetricsServer(server, thread, host)


class _Collector(Collector):
    def __init__(self, now: Callable[[], Iterable[Metric]]) -> None:
        self._now = now

    def collect(self) -> Iterable[Metric]:
        return self._now()


def families(status: Status) -> Iterator[Metric]:
    """Every metric of one status."""
    yield _labelled("model", "The model; always 1.", {(status.name, status.task): 1.0}, ("name", "task"))
    yield _gauge("problem", "1 while something is not known or is old.", float(bool(status.problem)))
    yield _gauge(
        "broker_silence_seconds",
        "Since the broker last answered the monitor.",
        status.broker_silence_s,
    )
    yield _decisions(status.decision_counts)
    yield _gauge("max_lag_events", "The most lag this monitor has seen.", status.max_lag_events)
    route = status.route
    pinned, challenger = (route.pinned, route.challenger) if route else (None, None)
    yield _gauge(
        "pinned_version", "Number of the version that people pinned; 0 for none.", pinned.number if pinned else 0
    )
    number = challenger.envelope.number if challenger else 0
    yield _gauge("challenger_version", "Number of the version that is tried beside the head; 0 for none.", number)
    if status.lag is not None:
        yield from _lag(status.lag.partitions)
    if status.head is not None:
        yield from _head(status)
        yield from _classes(status.head.classes)
    if status.int8 is not None:
        yield from _int8(status.int8, attached=bool(status.variants))


def _head(status: Status) -> Iterator[Metric]:
    head = status.head
    assert head is not None
    for name, (metric, text) in _COUNTERS.items():
        yield CounterMetricFamily(f"stream_app_{metric}", text, value=status.counts.get(name, 0.0))
    yield _gauge("events_per_second", "Events learned from, mean of 10 s.", status.events_per_s)
    yield _gauge("records_per_second", "Records taken, mean of 10 s.", status.records_per_s)
    yield _gauge("version", "Number of the newest version.", head.number)
    yield _gauge("epoch", "Its epoch; promotions and new beginnings raise it.", head.epoch)
    yield _gauge("version_size_bytes", "Size of its artefact.", head.size_bytes)
    yield _gauge("staleness_seconds", "Its age.", status.staleness_s or 0.0)
    yield _gauge("learning_rate", "What tuning left it at.", head.hyper.learning_rate)
    half_life = head.hyper.half_life_events
    yield _gauge("half_life_events", "In which the pull halves the distance.", half_life)
    has_reference = float(head.reference is not None)
    yield _gauge("has_reference", "0 while there is none to pull toward.", has_reference)
    importances: dict[Key, float] = {(name,): value for name, value in head.importance.items()}
    text = "Loss added when the feature's value is another row's; those that matter most."
    yield _labelled("importance", text, importances, ("feature",))
    members: dict[Key, float] = {(name,): value for name, value in head.members.items()}
    yield _labelled("member_weight", "Of a mixture's members.", members, ("member",))
    for name, value in head.metrics.items():
        if name not in _COUNTERS:
            metric = _RENAMED.get(name, name)
            yield _gauge(metric, "Test-then-train, as stream_app.score defines it.", value)


def _classes(classes: Iterable[ClassScore]) -> Iterator[Metric]:
    rows = list(classes)
    for name, text, values in (
        ("class_labels", "Labels of a class, each counted by its weight; of the 20 most frequent.", "support"),
        ("class_said", "How many were said to be of it.", "said"),
        ("class_precision", "Of what was said to be of it, the share that was.", "precision"),
        ("class_recall", "Of the class, the share that was said to be.", "recall"),
        ("class_f1", "Harmonic mean of precision and recall.", "f1"),
    ):
        yield _labelled(name, text, {(row.name,): getattr(row, values) for row in rows}, ("class",))


def _lag(partitions: Iterable[PartitionLag]) -> Iterator[Metric]:
    rows = list(partitions)
    for name, text, values in (
        ("lag_events", "Records that no version has seen.", [p.lag_events for p in rows]),
        ("end_offset", "Offset of the next record.", [p.end_offset for p in rows]),
        ("model_offset", "Next offset to take effect.", [p.model_offset for p in rows]),
        ("committed_offset", "Of the worker's group.", [p.committed_offset for p in rows]),
    ):
        found: dict[Key, float] = {
            (str(p.partition),): float(value) for p, value in zip(rows, values, strict=True) if value is not None
        }
        yield _labelled(name, text, found, ("partition",))


def _decisions(counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily("stream_app_decisions", "Decisions, by kind.", labels=("kind",))
    for kind, count in (dict.fromkeys(DECISION_KINDS, 0) | dict(counts)).items():
        family.add_metric((kind,), count)
    return family


def _int8(int8: Variant, *, attached: bool) -> Iterator[Metric]:
    """Of the newest compressed form, beside the fp32 form that it was made of."""
    form = ("form",)
    sizes: dict[Key, float] = {("int8",): float(int8.size_bytes), ("fp32",): float(int8.fp32_bytes)}
    yield _labelled("form_size_bytes", "Size of the graph that answers.", sizes, form)
    latencies: dict[Key, float] = {
        ("int8",): int8.latency_us / 1e6,
        ("fp32",): int8.fp32_latency_us / 1e6,
    }
    text = f"Median time of a call with {int8.batch} rows."
    yield _labelled("form_latency_seconds", text, latencies, form)
    losses: dict[Key, float] = {("int8",): int8.loss, ("fp32",): int8.fp32_loss}
    yield _labelled("form_loss", "On the newest labelled rows.", losses, form)
    served = float(attached and int8.served)
    yield _gauge("int8_served", "1 while the head is answered by its int8 form.", served)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"stream_app_{name}", text, value=value)


def _labelled(name: str, text: str, values: Mapping[Key, float], labels: tuple[str, ...]) -> Metric:
    family = GaugeMetricFamily(f"stream_app_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family

"""A server as Prometheus reads it: counts, live model -> [metrics] -> GET /metrics."""

import time
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from stream_app.following import LiveFollower
from stream_app.live import LiveModel
from stream_app.serving.counts import LATENCIES_S, Counts
from stream_app.serving.limits import Room
from stream_app.serving.source import Source

_BOUNDS = (*map(repr, LATENCIES_S), "+Inf")


def families(counts: Counts, room: Room, source: Source, follower: LiveFollower) -> Iterator[Metric]:
    """Every metric of one moment."""
    yield from _calls(counts)
    yield _gauge("calls_in_flight", "Calls under way, of all protocols.", room.taken)
    yield _gauge("ready", "1 while a version is live and the server is not ending.", float(source.ready))
    yield _counter("swaps", "Times that what answers has changed.", follower.swaps)
    yield _counter("refused", "Versions and forms that could not be prepared, or were much worse.", follower.refused)
    yield _gauge("alarm", "1 while something is refused that nothing has replaced.", float(bool(follower.alarm)))
    yield _gauge("log_age_seconds", "Since the broker last answered.", follower.log_age_s(time.monotonic()))
    yield from _live(follower)
    yield from _shadow(source)


def _calls(counts: Counts) -> Iterator[Metric]:
    ended = CounterMetricFamily("stream_app_server_calls", "Calls that ended.", labels=("method", "code"))
    text = "Time in the server, of calls that are no streams."
    took = HistogramMetricFamily("stream_app_server_call_seconds", text, labels=("method",))
    streamed = CounterMetricFamily("stream_app_server_streamed", "Answers given on streams.", labels=("method",))
    for method, series in sorted(counts.methods.items()):
        for code, count in sorted(series.codes.items()):
            ended.add_metric((method, code), count)
        if series.streamed:
            streamed.add_metric((method,), series.streamed)
        if any(series.buckets):
            buckets = list(zip(_BOUNDS, map(float, accumulate(series.buckets)), strict=True))
            took.add_metric((method,), buckets, series.total_s)
    yield from (ended, took, streamed)


def _live(follower: LiveFollower) -> Iterator[Metric]:
    arms = follower.arms
    live, tried = arms.live, arms.challenger
    yield _gauge("version", "Number of the version that answers; 0 before the first.", _number(live))
    yield _gauge("challenger_version", "Number of the version that is tried beside it; 0 for none.", _number(tried))
    yield _gauge("pinned", "1 while people hold the version.", float(follower.pinned))
    if live is not None:
        yield _gauge("epoch", "Of the version that answers.", live.envelope.epoch)
        age_s = max(time.time() - live.envelope.created_s, 0.0)
        yield _gauge("version_age_seconds", "Since the version that answers was made.", age_s)
        yield _gauge("int8", "1 while its int8 form answers.", float(live.variant == "int8"))


def _shadow(source: Source) -> Iterator[Metric]:
    seen = source.traffic.seen
    yield _gauge("challenger_rows", "Rows that what is tried, or was last, has been asked here.", seen.rows)
    yield _gauge("challenger_failed", "Calls that it failed at.", seen.failed)
    yield _gauge("challenger_waiting", "Calls that wait to be compared with a shadow.", source.traffic.waiting)


def _number(live: LiveModel | None) -> int:
    return live.envelope.number if live is not None else 0


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"stream_app_server_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"stream_app_server_{name}", text, value=value)

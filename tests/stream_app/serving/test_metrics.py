"""What Prometheus reads of a server: calls by method and status, how long they took, and what is live."""

import urllib.request
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stream_app.broker import free_port
from stream_app.errors import ServingError
from stream_app.serving.counts import LATENCIES_S, Counts, Series
from tests.stream_app.servers import number, serving
from tests.stream_app.versions import spec_of, until, writing

OURS = "/stream_app.v1.StreamModel"


def scraped(port: int) -> dict[tuple[str, ...], float]:
    """(name, label values by name ...) -> value, through HTTP and Prometheus' own parser."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    return {
        (s.name.removeprefix("stream_app_server_"), *s.labels.values()): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def test_calls_are_counted_by_how_they_end(embedded_broker: Any) -> None:
    servers, port = embedded_broker.bootstrap_servers, free_port()
    spec = spec_of("counted")
    with writing(servers, spec) as writer, serving(servers, spec.name, prometheus=f"127.0.0.1:{port}") as client:
        assert scraped(port)["ready",] == scraped(port)["version",] == 0
        writer.version(0.75)
        until(lambda: number(client) == 1)
        for _ in range(3):
            client.predict([{"distance": 1.0}])
        with pytest.raises(ServingError, match="wanted a number"):
            client.predict([{"distance": "far"}])
        assert len(list(client.predict_stream([[{}], [{}]]))) == 2
        until(lambda: scraped(port)["calls_total", "OK", f"{OURS}/PredictStream"] == 1)
        found = scraped(port)
    wanted = {
        ("calls_total", "OK", f"{OURS}/Predict"): 3,
        ("calls_total", "INVALID_ARGUMENT", f"{OURS}/Predict"): 1,
        ("call_seconds_count", f"{OURS}/Predict"): 4,
        ("call_seconds_bucket", "+Inf", f"{OURS}/Predict"): 4,
        ("streamed_total", f"{OURS}/PredictStream"): 2,
        ("calls_in_flight",): 0,
        ("ready",): 1,
        ("version",): 1,
        ("challenger_version",): 0,
        ("swaps_total",): 1,
        ("refused_total",): 0,
        ("alarm",): 0,
    }
    assert {key: found.get(key) for key in wanted} == wanted
    assert found["call_seconds_sum", f"{OURS}/Predict"] > 0.0
    assert ("call_seconds_count", f"{OURS}/PredictStream") not in found


def test_a_call_falls_into_the_first_bucket_that_is_not_below_it() -> None:
    series = Series()
    for took_s in (LATENCIES_S[0], LATENCIES_S[1], LATENCIES_S[-1] + 1.0, 0.0):
        series.ended("OK", took_s)
    series.ended("CANCELLED", None)
    assert (series.buckets[0], series.buckets[1], series.buckets[-1], sum(series.buckets)) == (2, 1, 1, 4)
    assert series.codes == {"OK": 4, "CANCELLED": 1}


def test_protocols_count_a_method_together() -> None:
    counts = Counts()
    assert counts.of("/a/B") is counts.of("/a/B")
    assert counts.of("/a/B") is not counts.of("/a/C")

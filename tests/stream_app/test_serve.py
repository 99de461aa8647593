"""A server answers from the first version on, through swaps, breakages and its own end."""

import asyncio
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from stream_app.broker import EmbeddedBroker, die_with_parent
from stream_app.client import StreamModelClient
from stream_app.errors import ServingError, SettingsError
from stream_app.events import Topics
from stream_app.serve import SERVICE, serve
from stream_app.serving.limits import Limits
from stream_app.wire import stream_app_pb2 as pb
from stream_app.wire import stream_app_pb2_grpc as pb_grpc
from tests.stream_app.servers import number, serving
from tests.stream_app.versions import (
    NOW_S,
    Writer,
    artefact,
    looking,
    onnx,
    spec_of,
    until,
    variant_of,
    writing,
)

HEALTH = health_pb2.HealthCheckResponse.ServingStatus
RUN = """
import sys
from stream_app.events import Topics
from stream_app.serve import run
from stream_app.serving.limits import Limits
run(
    bootstrap_servers=sys.argv[1],
    topics=Topics.of(sys.argv[2]),
    registry_url=None,
    listen="127.0.0.1:0",
    limits=Limits(notice_s=1.0),
)
"""


@pytest.fixture
def writer(embedded: str, app_name: str) -> Iterator[Writer]:
    with writing(embedded, spec_of(app_name)) as made:
        yield made


@pytest.fixture
def client(embedded: str, app_name: str) -> Iterator[StreamModelClient]:
    with serving(embedded, app_name) as made:
        yield made


def score(client: StreamModelClient) -> float:
    return round(client.predict([{}]).rows[0].scores["late"], 4)


def health(target: str, service: str) -> int:
    with grpc.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=service)
        return int(stub.Check(request, timeout=20).status)


# Answers ------------------------------------------------------------------------------------------


def test_not_serving_before_the_first_version(bootstrap_servers: str, app_name: str) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(serving(bootstrap_servers, app_name))
        for ask in (client.model, lambda: client.predict([{}])):
            with pytest.raises(ServingError, match="no version of the model is live yet") as caught:
                ask()
            assert caught.value.status == "UNAVAILABLE"
        assert {health(client.targets[0], s) for s in ("", SERVICE)} == {HEALTH.NOT_SERVING}
        writer = stack.enter_context(writing(bootstrap_servers, spec_of(app_name)))
        writer.version(0.75)
        until(lambda: health(client.targets[0], SERVICE) == HEALTH.SERVING)
        assert health(client.targets[0], "") == HEALTH.SERVING
        assert score(client) == 0.75


def test_an_answer(writer: Writer, client: StreamModelClient) -> None:
    envelope = writer.version(0.75)
    until(lambda: number(client) == 1)
    answer = client.predict([{"distance": 1.0, "carrier": "UA"}, {"flight": 12}], [NOW_S, None])
    assert answer.model == writer.spec.name
    assert (answer.version.number, answer.version.id) == (1, envelope.id)
    assert (answer.version.variant, answer.version.prior_only) == ("fp32", False)
    assert 5.0 <= answer.version_age_s < 60.0
    assert 0.0 <= answer.log_age_s < 10.0
    for row in answer.rows:
        assert row.scores == pytest.approx({"on time": 0.25, "late": 0.75})
        assert (row.label, row.value) == ("late", None)


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_other_tasks(embedded: str, app_name: str, task: str) -> None:
    with (
        writing(embedded, spec_of(app_name, task)) as writer,
        serving(embedded, app_name) as client,
    ):
        writer.version(0.75)
        until(lambda: number(client) == 1)
        row = client.predict([{}]).rows[0]
        if task == "regression":
            assert (row.scores, row.label, row.value) == ({}, None, 0.75)
            assert client.model().classes == ()
        else:
            assert row.scores == pytest.approx({"a": 0.2, "b": 0.2, "c": 0.6})
            assert (row.label, row.value) == ("c", None)


def test_the_model(writer: Writer, client: StreamModelClient) -> None:
    envelope = writer.version(0.75)
    small = variant_of(envelope, onnx(writer.spec, 0.76))
    writer.client.append(small)
    until(lambda: number(client) == 1 and client.model().version.variant == "int8")
    model = client.model()
    assert (model.task, model.label_name, model.classes) == ("binary", "delay", ("on time", "late"))
    assert model.features == {
        "distance": "numeric",
        "hour": "numeric",
        "carrier": "categorical",
        "flight": "categorical",
    }
    assert (model.offsets, model.labels, model.metrics) == ({0: 40}, 4, {"log_loss": 0.25})
    assert model.hyper == {"learning_rate": 0.01, "half_life_events": 1000.0}
    assert model.variants[0]["size_bytes"] == small.size_bytes
    assert model.variants[0]["latency_us"] == 10.0
    assert model.variants[0]["served"] is True
    assert score(client) == 0.76


def test_prior_only(writer: Writer, client: StreamModelClient) -> None:
    writer.announce(artefact(writer.spec, 0.5, labels=1))
    until(lambda: number(client) == 1)
    answer = client.predict([{}])
    assert answer.version.prior_only
    assert answer.rows[0].scores == pytest.approx({"on time": 0.25, "late": 0.75})


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"distence": 1}, r"no feature 'distence'; did you mean 'distance'\?"),
        ({"x": 1}, "no feature 'x'; it has distance, hour, carrier, flight"),
        ({"distance": "far"}, "'distance' is 'far', wanted a number"),
        ({"distance": float("inf")}, "'distance' is inf, wanted a finite number"),
        ({"carrier": 1.5}, "'carrier' is 1.5, wanted a string or an integer"),
        ({"carrier": float("inf")}, "'carrier' is inf, wanted a string or an integer"),
        ({"distance": "x" * 100_000}, r"'distance' is 'xxx.* \.\.\. x.*', wanted a number"),  # fits into a status
    ],
)
def test_wrong_rows(writer: Writer, client: StreamModelClient, row: dict[str, object], text: str) -> None:
    writer.version(0.5)
    until(lambda: number(client) == 1)
    with pytest.raises(ServingError, match=rf"rows\[70\]: .*{text}") as caught:
        client.predict([*[{}] * 70, row])
    assert caught.value.status == "INVALID_ARGUMENT"


def test_wrong_requests(writer: Writer, client: StreamModelClient) -> None:
    writer.version(0.5)
    until(lambda: number(client) == 1)
    assert len(client.predict([{}] * 4096).rows) == 4096
    for rows, times_s, text in (
        ([], [], "rows is empty, wanted at least one row"),
        ([{}] * 4097, None, "rows has 4097 rows, wanted at most 4096"),
        ([{}] * 2, [0.0, float("nan")], r"rows\[1\]: time_s is nan, wanted seconds"),
    ):
        with pytest.raises(ServingError, match=text) as caught:
            client.predict(rows, times_s)
        assert caught.value.status == "INVALID_ARGUMENT"
    client.predict([{"distance": 2**60, "carrier": 2**60 + 1}])  # no double holds the second
    with pytest.raises(ServingError) as caught:
        client.predict([{"carrier": "x" * (5 << 20)}])
    assert caught.value.status == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_why(embedded: str, app_name: str, task: str) -> None:
    with writing(embedded, spec_of(app_name, task)) as writer, serving(embedded, app_name) as client:
        writer.announce(artefact(writer.spec, graph=looking(writer.spec)))
        until(lambda: number(client) == 1)
        rows: list[dict[str, Any]] = [{"distance": 2.0, "carrier": "UA", "flight": 2**60}, {"carrier": "B6"}]
        answer = client.predict(rows, explain="score")
        for row, given in zip(answer.rows, rows, strict=True):
            why = row.explanation
            assert why is not None
            assert why.label == {"binary": "late", "multiclass": row.label, "regression": None}[task]
            said = row.value if task == "regression" else row.scores[str(why.label)]
            assert why.said == pytest.approx(said)
            assert why.base + sum(a.contribution for a in why.attributions) == pytest.approx(why.said)
            sizes = [abs(a.contribution) for a in why.attributions]
            assert sizes == sorted(sizes, reverse=True)
            found = {a.name: a for a in why.attributions}
            assert set(found) == {"distance", "hour", "carrier", "flight", "rates()", "rates(carrier)"}
            assert {name for name, a in found.items() if a.contribution} <= {"distance", "rates(carrier)"}
            assert (found["distance"].value, found["carrier"].value) == (given.get("distance"), given["carrier"])
            assert found["flight"].value == (str(given["flight"]) if "flight" in given else None)
            assert found["hour"].value is None
            assert isinstance(found["rates(carrier)"].value, float)
        assert client.predict(rows).rows[0].explanation is None


def test_why_in_log_odds(writer: Writer, client: StreamModelClient) -> None:
    writer.announce(artefact(writer.spec, graph=looking(writer.spec)))
    until(lambda: number(client) == 1)
    row = client.predict([{"distance": 2.0}], explain="log_odds").rows[0]
    why, p = row.explanation, row.scores["late"]
    assert why is not None
    assert why.said == pytest.approx(math.log(p / (1.0 - p)), rel=1e-5)
    assert why.attributions[0].name == "distance"
    assert why.attributions[0].contribution == pytest.approx(1.0, abs=1e-5)  # 0.5 * 2, from a mean of 0


def test_what_cannot_be_explained(embedded: str, app_name: str) -> None:
    with writing(embedded, spec_of(app_name, "regression")) as writer, serving(embedded, app_name) as client:
        writer.version(0.75)
        until(lambda: number(client) == 1)
        assert len(client.predict([{}] * 64, explain="score").rows) == 64
        stub = pb_grpc.StreamModelStub(client._channels[0])
        for rows, explain, text in (
            (65, pb.EXPLAIN_SCORE, "rows has 65 rows, wanted at most 64 to explain"),
            (1, pb.EXPLAIN_LOG_ODDS, "explain is EXPLAIN_LOG_ODDS, wanted EXPLAIN_SCORE for task regression"),
            (1, 7, "explain is 7, wanted EXPLAIN_UNSPECIFIED or EXPLAIN_SCORE or EXPLAIN_LOG_ODDS"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                stub.Predict(pb.PredictRequest(rows=[pb.Row()] * rows, explain=explain), timeout=20)
            assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, text)


def test_what_matters_and_the_members(writer: Writer, client: StreamModelClient) -> None:
    writer.version(0.75, importance={"hour": 0.25, "rates()": 0.5}, members={"forest": 0.75})
    until(lambda: number(client) == 1)
    model = client.model()
    assert list(model.importance.items()) == [("rates()", 0.5), ("hour", 0.25)]
    assert model.members == {"forest": 0.75}


def test_too_many_calls(writer: Writer, embedded: str, app_name: str) -> None:
    writer.version(0.3)
    with serving(embedded, app_name, limits=Limits(notice_s=0.0, calls=1)) as client:
        changes = client.watch()
        assert next(changes).number == 1
        with pytest.raises(ServingError) as caught:
            client.predict([{}])
        assert caught.value.status == "RESOURCE_EXHAUSTED"
        assert health(client.targets[0], SERVICE) == HEALTH.SERVING  # else it would be ended for being full
        changes.close()
        until(lambda: number(client) == 1)


def test_reflection_only_if_asked(embedded: str, app_name: str) -> None:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    for reflect in (True, False):
        with (
            serving(embedded, app_name, reflect=reflect) as client,
            grpc.insecure_channel(client.targets[0]) as channel,
        ):
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            answers = stub.ServerReflectionInfo(iter([request]), timeout=20)
            if reflect:
                services = next(answers).list_services_response.service
                assert SERVICE in {s.name for s in services}
            else:
                with pytest.raises(grpc.RpcError):
                    next(answers)


def test_a_taken_port_is_refused_after_a_while(
    embedded: str, app_name: str, client: StreamModelClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_app.serve.BIND_S", 0.3)
    listen = client.targets[0]
    second = serve(bootstrap_servers=embedded, topics=Topics.of(app_name), registry_url=None, listen=listen)
    with pytest.raises(SettingsError, match=f"listen is '{listen}', wanted a free host:port"):
        asyncio.run(second)


# Swaps --------------------------------------------------------------------------------------------


def test_swaps_under_load(writer: Writer, client: StreamModelClient) -> None:
    """No call fails, none mixes two versions, nobody sees them go backwards."""
    writer.version(0.01)
    until(lambda: number(client) == 1)
    done = threading.Event()

    def hammer(rows: int) -> list[int]:
        seen = []
        while not done.is_set():
            answer = client.predict([{"carrier": "UA"}] * rows)
            scores = {round(r.scores["late"], 4) for r in answer.rows}
            assert scores == {answer.version.number / 100}
            seen.append(answer.version.number)
        return seen

    with ThreadPoolExecutor(4) as pool:
        hammering = [pool.submit(hammer, rows) for rows in (1, 1, 3, 500)]
        try:
            for n in range(2, 22):
                writer.version(n / 100)
                time.sleep(0.02)
            until(lambda: number(client) == 21)
        finally:
            done.set()
        histories = [h.result() for h in hammering]
    assert all(h == sorted(h) for h in histories)
    assert len({n for h in histories for n in h}) > 2


def test_a_broken_version_changes_nothing(writer: Writer, client: StreamModelClient) -> None:
    writer.version(0.3)
    until(lambda: number(client) == 1)
    writer.broken(0.4)
    assert (number(client), score(client)) == (1, 0.3)
    writer.version(0.5)
    until(lambda: number(client) == 3)
    assert score(client) == 0.5


def test_watch(writer: Writer, embedded: str, app_name: str) -> None:
    limits = Limits(notice_s=0.0, grace_s=30.0, watchers=1)
    with ThreadPoolExecutor(1) as pool:
        with serving(embedded, app_name, limits=limits) as client:
            changes = client.watch()
            first = writer.version(0.3)
            seen = next(changes)
            assert (seen.number, seen.id, seen.variant) == (1, first.id, "fp32")
            with pytest.raises(ServingError, match="1 streams watch already") as caught:
                next(client.watch())
            assert caught.value.status == "RESOURCE_EXHAUSTED"
            writer.client.append(variant_of(first, onnx(writer.spec, 0.31)))
            seen = next(changes)
            assert (seen.number, seen.variant) == (1, "int8")
            second = writer.version(0.4)
            assert next(changes).id == second.id
            rest = pool.submit(list, changes)
            started_s = time.monotonic()
        # The stream ended by itself: the server did not wait out its grace.
        assert rest.result() == []
        assert time.monotonic() - started_s < 15.0


def test_a_watcher_that_left_makes_room(writer: Writer, embedded: str, app_name: str) -> None:
    writer.version(0.3)
    with serving(embedded, app_name, limits=Limits(notice_s=0.0, watchers=1)) as client:
        for _ in range(3):
            until(lambda: _watches(client))


def _watches(client: StreamModelClient) -> bool:
    """Whether a stream could be had; it is left at once."""
    changes = client.watch(deadline_s=20.0)
    try:
        return next(changes).number == 1
    except ServingError as refusal:
        if refusal.status != "RESOURCE_EXHAUSTED":
            raise
        return False
    finally:
        changes.close()


def test_without_a_broker_it_answers_on(app_name: str) -> None:
    with EmbeddedBroker() as broker:
        with writing(broker.bootstrap_servers, spec_of(app_name)) as writer:
            writer.version(0.3)
        with serving(broker.bootstrap_servers, app_name) as client:
            until(lambda: number(client) == 1)
            os.kill(broker.pid, signal.SIGKILL)
            until(lambda: client.predict([{}]).log_age_s > 1.5)
            assert score(client) == 0.3
            assert health(client.targets[0], SERVICE) == HEALTH.SERVING


# The process --------------------------------------------------------------------------------------


@contextmanager
def process(bootstrap_servers: str, name: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server of its own, and its port."""
    started = subprocess.Popen(
        [sys.executable, "-c", RUN, bootstrap_servers, name],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,
    )
    with started:
        try:
            assert started.stdout is not None
            line = started.stdout.readline()
            said = re.fullmatch(r"serving on 127\.0\.0\.1:(\d+)\n", line)
            assert said, line
            yield started, int(said[1])
        finally:
            started.kill()


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_drain(writer: Writer, embedded: str, app_name: str, which: signal.Signals) -> None:
    """Health goes first; calls go on meanwhile; then the process ends well, having said one line."""
    writer.version(0.3)
    with (
        process(embedded, app_name) as (started, port),
        StreamModelClient(f"127.0.0.1:{port}", deadline_s=20.0) as client,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        until(lambda: number(client) == 1)
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=30)
        assert next(watch).status == HEALTH.SERVING
        started.send_signal(which)
        assert next(watch).status == HEALTH.NOT_SERVING
        assert score(client) == 0.3  # within the notice
        watch.cancel()
        assert started.wait(20) == 0
        assert started.stdout is not None
        assert started.stdout.read() == ""


def test_calls_under_way_when_it_ends_are_answered_or_told_to_go_elsewhere(
    writer: Writer, embedded: str, app_name: str
) -> None:
    writer.version(0.3)
    with process(embedded, app_name) as (started, port), ThreadPoolExecutor(8) as pool:

        def ask_on() -> set[str]:
            said = set[str]()
            with StreamModelClient(f"127.0.0.1:{port}", deadline_s=20.0) as client:
                until(lambda: number(client) == 1)
                asking.wait(60)
                while started.poll() is None:
                    try:
                        client.predict([{}] * 20)
                        said.add("answered")
                    except ServingError as error:
                        said.add(error.status)
                        time.sleep(0.02)
            return said

        asking = threading.Barrier(9)
        clients = [pool.submit(ask_on) for _ in range(8)]
        asking.wait(60)
        time.sleep(0.2)
        started.send_signal(signal.SIGTERM)
        assert started.wait(20) == 0
        for client in clients:
            assert client.result() <= {"answered", "UNAVAILABLE"}


def test_a_server_needs_neither_torch_nor_faust() -> None:
    code = (
        "import sys, stream_app.serve, stream_app.client;"
        "print(sorted({'torch', 'faust', 'river', 'onnx'} & sys.modules.keys()))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"

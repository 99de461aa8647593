"""River on the same stream predicts before it learns and keeps the labels' delay."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from kafka.errors import KafkaConnectionError

from examples.flights import baseline as module
from examples.flights.baseline import (
    Baseline,
    BaselineError,
    Event,
    consume,
    main,
    pipeline,
    run,
    write_json,
)
from examples.flights.data import Flight, FlightFeatures, stream
from examples.flights.produce import outgoing, produce
from tests.examples.test_flights_produce import create_topic


def flights(n_flights: int) -> list[Flight]:
    """Late when it is windy; every twentieth never lands, every tenth has no wind recorded."""
    rng = Random(0)
    made = []
    for number in range(n_flights):
        wind = rng.uniform(0.0, 40.0)
        features = FlightFeatures(500.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, rng.choice(("UA", "DL")), "EWR", "ORD", "6", "1")
        if number % 10:
            features = msgspec.structs.replace(features, wind_speed=wind)
        lands = number % 20 != 19
        arrived_s, late = (60 * number + 7_200, int(wind > 20.0)) if lands else (None, None)
        made.append(Flight(f"flight-{number}", 60 * number, arrived_s, late, features))
    return made


def values(n_flights: int) -> list[bytes]:
    return [record.value for record in outgoing(stream(flights(n_flights)))]


def test_equals_the_plain_pipeline() -> None:
    """The same figures as River's own one-hot encoder, zeros included."""
    from river import compose, linear_model, preprocessing

    numeric = compose.SelectType(float) | preprocessing.StandardScaler()
    plain = (numeric + (compose.SelectType(str) | preprocessing.OneHotEncoder())) | linear_model.LogisticRegression()
    ours = pipeline()
    for flight in flights(300):
        sample = msgspec.to_builtins(flight.features)
        assert ours.predict_proba_one(sample).get(True, 0.5) == pytest.approx(
            plain.predict_proba_one(sample).get(True, 0.5), abs=1e-12
        )
        ours.learn_one(sample, bool(flight.late))
        plain.learn_one(sample, bool(flight.late))


def test_learns_and_reports(tmp_path: Path) -> None:
    out = tmp_path / "baseline.json"
    report = run(values(2_000), out, n_labels=1_900)
    assert msgspec.json.decode(out.read_bytes()) == report
    assert (report["name"], report["labels"], report["done"]) == ("river_logistic", 1_900, True)
    for figures in (report, report["window"]):
        assert figures["auc"] > 0.85
        assert figures["accuracy"] > 0.75
        assert figures["log_loss"] < 0.6


def test_label_is_scored_against_the_prediction_made_before() -> None:
    baseline = Baseline()
    features = flights(2)[1].features
    baseline.take(Event("a", features))
    baseline.take(Event("b", features))
    baseline.take(Event("b", label=1))
    baseline.take(Event("a", label=1))  # predicted before b's label was learned
    report = baseline.report()
    assert report["labels"] == 2
    assert report["log_loss"] == pytest.approx(math.log(2.0))


def test_label_without_features_or_a_second_one_is_passed_over() -> None:
    baseline = Baseline()
    baseline.take(Event("a", flights(2)[1].features))
    for event in (Event("nobody", label=1), Event("a", label=0), Event("a", label=1)):
        baseline.take(event)
    assert (baseline.n_records, baseline.n_labels) == (4, 1)


def test_bad_records_are_passed_over(tmp_path: Path) -> None:
    stream_of_20 = values(20)
    report = run(stream_of_20, tmp_path / "out.json")
    assert len(stream_of_20) == 20 + 19 + 3
    assert report["labels"] == 19


def test_nothing_seen_is_no_error(tmp_path: Path) -> None:
    report = run([None], tmp_path / "out.json", until_idle_s=0.0)
    wanted: dict[str, Any] = {
        "name": "river_logistic",
        "labels": 0,
        "events_per_s": 0.0,
        "done": True,
    }
    assert report == wanted


def test_file_is_written_while_it_runs(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    seen: list[dict[str, Any]] = []

    def watched() -> Iterator[bytes]:
        for value in values(200):
            if out.exists():
                seen.append(msgspec.json.decode(out.read_bytes()))
            yield value

    run(watched(), out, every_s=0.0)
    assert seen
    assert not any(report["done"] for report in seen)
    labels = [report["labels"] for report in seen]
    assert labels == sorted(labels)


def test_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "out.json", {"labels": 1})
    write_json(tmp_path / "out.json", {"labels": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    assert (tmp_path / "out.json").read_bytes() == b'{"labels":2}\n'


def test_reads_the_topic_from_its_beginning(bootstrap_servers: str, app_name: str, tmp_path: Path) -> None:
    create_topic(bootstrap_servers, app_name, n_partitions=2)
    produce(bootstrap_servers, app_name, flights=flights(500))
    out = tmp_path / "out.json"
    assert main([*command_for(bootstrap_servers, tmp_path, app_name), "--labels", "475"]) == 0
    assert msgspec.json.decode(out.read_bytes())["labels"] == 475


def test_missing_topic_is_a_clear_error(bootstrap_servers: str, app_name: str) -> None:
    wanted = f"^topic '{app_name}' is not there after 0 s, wanted an existing one$"
    with pytest.raises(BaselineError, match=wanted):
        next(consume(bootstrap_servers, app_name, wait_s=0.0))


def test_no_broker_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started_s = time.monotonic()
    assert main([*command_for("127.0.0.1:1", tmp_path), "--labels", "1"]) == 1
    assert time.monotonic() - started_s < 5.0
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith("baseline: 127.0.0.1:1 did not answer: ")
    assert said.endswith(", wanted a Kafka broker")


def test_broker_that_hangs_is_an_error_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        servers = f"127.0.0.1:{hangs.getsockname()[1]}"
        with pytest.raises(BaselineError, match=f"^{servers} did not answer: .*, wanted a Kafka broker$"):
            next(consume(servers, "t"))


def test_broker_that_goes_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(*_: Any) -> Iterator[bytes]:
        yield from values(20)
        raise KafkaConnectionError("socket disconnected")

    monkeypatch.setattr(module, "consume", gone)
    assert main([*command_for("127.0.0.1:1", tmp_path), "--labels", "100"]) == 1
    assert capsys.readouterr().err == "baseline: KafkaConnectionError: socket disconnected\n"


def test_command_must_know_when_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--bootstrap-servers", "127.0.0.1:1", "--topic", "t", "--out", "out.json"])
    assert "got neither --labels nor --until-idle-s" in capsys.readouterr().err


def command_for(bootstrap_servers: str, folder: Path, topic: str = "t") -> list[str]:
    return ["--bootstrap-servers", bootstrap_servers, "--topic", topic, "--out", str(folder / "out.json")]

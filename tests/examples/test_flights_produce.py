"""Flights on their way to Kafka: three bad ones at fixed places, all acknowledged, clean ends."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from typing import Any

import msgspec
import pytest
from kafka import TopicPartition
from kafka.admin import NewTopic

from examples.flights.data import (
    FeaturesRecord,
    Flight,
    FlightFeatures,
    LabelRecord,
    Record,
    stream,
)
from examples.flights.produce import (
    BAD_AT,
    Beat,
    LagGate,
    Outgoing,
    Produced,
    ProduceError,
    main,
    outgoing,
    paced,
    produce,
)
from stream_app import kafka_clients
from tests.broker.apache_kafka import ApacheKafka


def flight(number: int) -> Flight:
    """One of a made-up day, a minute apart; every tenth never lands."""
    features = FlightFeatures(
        500.0,
        0.0,
        1.0,
        0.0,
        1.0,
        0.0,
        1.0,
        "UA",
        ("EWR", "JFK", "LGA")[number % 3],
        "ORD",
        "6",
        "1",
    )
    arrived_s = None if number % 10 == 9 else 60 * number + 7_200
    late = None if arrived_s is None else number % 2
    return Flight(f"flight-{number}", 60 * number, arrived_s, late, features)


def sent(n_flights: int) -> list[Outgoing]:
    return list(outgoing(stream([flight(number) for number in range(n_flights)])))


def test_bad_records_are_at_fixed_places() -> None:
    records = sent(4_000)
    places = [place for place, record in enumerate(records) if record.kind == "bad"]
    assert places == [n_good + n_bad for n_bad, n_good in enumerate(BAD_AT)]
    assert records == sent(4_000)


def test_short_stream_has_its_bad_records_at_the_end() -> None:
    assert [record.kind for record in sent(5)] == 5 * ["flight"] + 5 * ["label"] + 3 * ["bad"]


def test_no_flights_give_no_records() -> None:
    assert sent(0) == []


def test_what_is_bad_about_the_bad_records() -> None:
    broken, wordy, nameless = [record.value for record in sent(5) if record.kind == "bad"]
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(broken)
    assert json.loads(wordy)["features"]["distance"] == "far"
    assert "id" not in json.loads(nameless)
    for value in (broken, wordy, nameless):
        with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
            msgspec.json.decode(value, type=FeaturesRecord)


def test_good_records_decode_to_what_they_were() -> None:
    records: list[Record] = list(stream([flight(number) for number in range(40)]))
    types = {"flight": FeaturesRecord, "label": LabelRecord}
    good = [record for record in outgoing(records) if record.kind != "bad"]
    assert [msgspec.json.decode(record.value, type=types[record.kind]) for record in good] == records
    assert [record.key.decode() for record in good] == [record.key for record in records]


def test_pace_follows_event_time() -> None:
    records = [Outgoing("flight", b"EWR", b"", time_s) for time_s in (1_000, 1_050, 1_100)]
    started_s = time.monotonic()
    assert list(paced(records, 500.0, threading.Event())) == records
    assert time.monotonic() - started_s >= 0.2


def test_stopped_pace_does_not_wait() -> None:
    stop = threading.Event()
    stop.set()
    records = [Outgoing("flight", b"EWR", b"", time_s) for time_s in (0, 3_600)]
    started_s = time.monotonic()
    assert list(paced(records, 1.0, stop)) == records
    assert time.monotonic() - started_s < 1.0


def test_beat_is_due_by_count_and_by_time() -> None:
    beat = Beat(every_records=10, every_s=3_600.0)
    assert [n_sent for n_sent in range(1, 31) if beat.due(n_sent)] == [10, 20, 30]
    assert Beat(every_records=10, every_s=0.0).due(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-lag", "5"], "got --max-lag 5 and --group None, wanted both or neither"),
        (["--max-lag", "-1", "--group", "g"], "--max-lag is -1, wanted at least 0"),
        (["--speed", "0"], "--speed is 0.0, wanted more than 0"),
        (["--speed", "nan"], "--speed is nan, wanted more than 0"),
        (["--limit", "0"], "--limit is 0, wanted at least 1"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--bootstrap-servers", "127.0.0.1:1", "--topic", "t", *arguments])
    assert message in capsys.readouterr().err


def test_no_broker_is_a_clear_error() -> None:
    """In a process of its own: kafka-python leaves sockets open when it finds no broker."""
    code = "from examples.flights import produce as p; p.CONNECT_TIMEOUT_S = 0.5; exit(p.main())"
    arguments = ["--bootstrap-servers", "127.0.0.1:1", "--topic", "flights"]
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (1, "")
    wanted = r"^produce: 127\.0\.0\.1:1 did not answer: .*, wanted a Kafka broker$"
    assert re.search(wanted, run.stderr, re.MULTILINE)


def test_everything_arrives_in_order(bootstrap_servers: str, app_name: str) -> None:
    flights = [flight(number) for number in range(3_000)]
    create_topic(bootstrap_servers, app_name)
    told: list[tuple[int, int]] = []
    produced = produce(bootstrap_servers, app_name, flights=flights, progress=lambda *n: told.append(n))
    counts = (produced.flights, produced.labels, produced.records, produced.bad)
    assert counts == (3_000, 2_700, 5_703, 3)
    assert told[-1] == (5_703, 5_703)
    values = consumed(bootstrap_servers, app_name, 5_703)
    assert values == [record.value for record in outgoing(stream(flights))]


def test_a_flight_stays_in_one_partition(bootstrap_servers: str, app_name: str) -> None:
    create_topic(bootstrap_servers, app_name, n_partitions=4)
    produce(bootstrap_servers, app_name, flights=[flight(number) for number in range(100)])
    consumer = reader(bootstrap_servers, app_name, n_partitions=4)
    partitions: dict[bytes, set[int]] = {}
    for _ in range(193):
        record = next(consumer)
        partitions.setdefault(record.key, set()).add(record.partition)
    consumer.close()
    assert {key: len(numbers) for key, numbers in partitions.items()} == dict.fromkeys((b"EWR", b"JFK", b"LGA"), 1)


def test_missing_topic_is_a_clear_error(
    apache_kafka: ApacheKafka, app_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not so on the embedded broker, which creates every topic that is asked for."""
    monkeypatch.setattr("examples.flights.produce.CONNECT_TIMEOUT_S", 2.0)
    wanted = f"^topic '{app_name}' is not there .*, wanted an existing one: create it first$"
    with pytest.raises(ProduceError, match=wanted):
        produce(apache_kafka.bootstrap_servers, app_name, flights=[flight(0)])


def test_too_large_a_record_is_a_clear_error(bootstrap_servers: str, app_name: str) -> None:
    create_topic(bootstrap_servers, app_name)
    large = msgspec.structs.replace(flight(0), id="x" * 2_000_000)
    with pytest.raises(ProduceError, match=f"^topic '{app_name}' did not take a record: .*2000"):
        produce(bootstrap_servers, app_name, flights=[large])


def test_stop_ends_early_with_what_was_sent(bootstrap_servers: str, app_name: str) -> None:
    create_topic(bootstrap_servers, app_name)
    stop = threading.Event()
    produced = produce(
        bootstrap_servers,
        app_name,
        flights=[flight(number) for number in range(3_000)],
        wait=lambda _: stop.set(),
        stop=stop,
    )
    assert produced.records == 1_000
    assert len(consumed(bootstrap_servers, app_name, 1_000)) == 1_000


def test_command_prints_one_object(bootstrap_servers: str, app_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    create_topic(bootstrap_servers, app_name)
    arguments = ["--bootstrap-servers", bootstrap_servers, "--topic", app_name, "--limit", "50"]
    assert main(arguments) == 0
    produced = msgspec.json.decode(capsys.readouterr().out, type=Produced)
    assert (produced.flights, produced.bad) == (50, 3)


def test_gate_knows_the_lag(bootstrap_servers: str, app_name: str) -> None:
    create_topic(bootstrap_servers, app_name)
    produce(bootstrap_servers, app_name, flights=[flight(number) for number in range(100)])
    gate = LagGate(bootstrap_servers, app_name, group=app_name, max_lag=193, stop=threading.Event())
    assert 0 < gate.lag() <= 193  # the embedded broker tells the end of the topic up to a batch too low
    gate(193)
    gate.close()


def create_topic(bootstrap_servers: str, topic: str, n_partitions: int = 1) -> None:
    admin = kafka_clients.admin(bootstrap_servers)
    admin.create_topics([NewTopic(topic, num_partitions=n_partitions, replication_factor=1)])
    admin.close()


def reader(bootstrap_servers: str, topic: str, n_partitions: int = 1) -> Any:
    consumer = kafka_clients.consumer(bootstrap_servers, consumer_timeout_ms=10_000)
    partitions = [TopicPartition(topic, number) for number in range(n_partitions)]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    return consumer


def consumed(bootstrap_servers: str, topic: str, n_records: int) -> list[bytes]:
    consumer = reader(bootstrap_servers, topic)
    values = [next(consumer).value for _ in range(n_records)]
    consumer.close()
    return values

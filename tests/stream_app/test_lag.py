"""Lag is what no version has seen; where a number would mean nothing, the reason is said."""

import io
import json
import re
from contextlib import closing

import pytest
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata
from rich.console import Console

from stream_app import kafka_clients
from stream_app import lag as lags
from stream_app.errors import BrokerError, TopicError
from stream_app.events import Topics
from stream_app.lag import as_dict, as_table, committed_offsets, lag
from stream_app.topics import create_topics, topic_ids
from tests.stream_app.heads import NOW_S, head_of, lag_of
from tests.stream_app.versions import spec_of, writing


@pytest.fixture
def topics(bootstrap_servers: str, app_name: str) -> Topics:
    """A model's topics, with 10 events in partition 0 and 4 in partition 1."""
    create(bootstrap_servers, app_name)
    topics = Topics.of(app_name)
    produce(bootstrap_servers, topics, 10, 4)
    return topics


def create(bootstrap_servers: str, name: str) -> None:
    create_topics(bootstrap_servers, name, partitions=2, retention_s=3600, max_record_bytes=65536)


def produce(bootstrap_servers: str, topics: Topics, *counts: int) -> None:
    with closing(kafka_clients.producer(bootstrap_servers, linger_ms=50)) as producer:
        for partition, count in enumerate(counts):
            for _ in range(count):
                producer.send(topics.events, b"{}", partition=partition)
        producer.flush()


def commit(bootstrap_servers: str, topics: Topics, offset: int) -> None:
    tp = TopicPartition(topics.events, 0)
    with closing(kafka_clients.consumer(bootstrap_servers, group_id="g")) as consumer:
        consumer.assign([tp])
        consumer.commit({tp: OffsetAndMetadata(offset, "", -1)})


def test_counts_from_the_versions_offsets(bootstrap_servers: str, topics: Topics) -> None:
    ids = topic_ids(bootstrap_servers, [topics.events])
    head = head_of(3, offsets={0: 7, 1: 4}, topic_ids=ids)
    commit(bootstrap_servers, topics, 5)
    found = lag(bootstrap_servers, topics, head, "g")
    assert (found.version, found.lag_events) == (3, 3)
    rows = [(p.partition, p.end_offset, p.model_offset, p.committed_offset, p.lag_events) for p in found.partitions]
    assert rows == [(0, 10, 7, 5, 3), (1, 4, 4, None, 0)]


def test_everything_is_lag_before_the_first_version(bootstrap_servers: str, topics: Topics) -> None:
    found = lag(bootstrap_servers, topics, None, "nobody")
    assert (found.version, found.created_s, found.lag_events) == (0, None, 14)
    assert committed_offsets(bootstrap_servers, topics.events, "nobody") == {}


def test_recreated_topic_is_named(bootstrap_servers: str, topics: Topics) -> None:
    other = "00000000-0000-0000-0000-00000000000a"
    head = head_of(3, offsets={0: 7, 1: 4}, topic_ids={topics.events: other})
    wanted = f"has id .*, wanted {other} as version 3 knows it; it was created anew"
    with pytest.raises(TopicError, match=wanted):
        lag(bootstrap_servers, topics, head, "g")


def test_lost_log_is_named(bootstrap_servers: str, topics: Topics) -> None:
    head = head_of(3, offsets={0: 7, 1: 5})
    wanted = (
        f"topic '{topics.events}' partition 1: ends at offset 4, wanted at least 5, which version "
        "3 has seen; the broker lost its log"
    )
    with pytest.raises(TopicError, match=re.escape(wanted)):
        lag(bootstrap_servers, topics, head, "g")


def test_deleted_records_are_named(apache_kafka: object, app_name: str) -> None:
    """On Apache Kafka only: the embedded broker deletes nothing."""
    servers = str(apache_kafka.bootstrap_servers)  # type: ignore[attr-defined]
    create(servers, app_name)
    topics = Topics.of(app_name)
    produce(servers, topics, 10, 4)
    with closing(kafka_clients.admin(servers)) as admin:
        admin.delete_records({TopicPartition(topics.events, 0): 8})
    wanted = (
        "partition 0: begins at offset 8, wanted at most 6, the next one for version 3; "
        "2 records were deleted before they were learned"
    )
    with pytest.raises(TopicError, match=re.escape(wanted)):
        lag(servers, topics, head_of(3, offsets={0: 6, 1: 4}), "g")


def test_other_partitions_are_named(embedded: str, app_name: str) -> None:
    create(embedded, app_name)
    wanted = re.escape("has partitions [0, 1], wanted [0] as version 3 knows it")
    with pytest.raises(TopicError, match=wanted):
        lag(embedded, Topics.of(app_name), head_of(3, offsets={0: 0}), "g")


def test_missing_topic_is_named(embedded: str, app_name: str) -> None:
    with pytest.raises(TopicError, match=f"topic '{app_name}.events': is not there"):
        lag(embedded, Topics.of(app_name), None, "g")


def test_no_broker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lags, "_ANSWER_S", 0.3)
    with pytest.raises(BrokerError, match=r"broker '127\.0\.0\.1:1': .*, wanted an answer"):
        committed_offsets("127.0.0.1:1", "t", "g")


def test_command_prints_json(embedded: str, app_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with writing(embedded, spec_of(app_name)) as writer:
        produce(embedded, Topics.of(app_name), 42)
        writer.version(0.5)  # its offset is 40
        code = lags.run(app_name, bootstrap_servers=embedded, as_json=True, watch_s=None)
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (found["version"], found["lag_events"], found["group"]) == (1, 2, f"{app_name}.worker")
    assert found["partitions"][0] == {
        "partition": 0,
        "end_offset": 42,
        "model_offset": 40,
        "committed_offset": None,
        "lag_events": 2,
    }
    assert found["version_age_s"] >= 0


def test_table_has_partitions_total_and_age() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(as_table(lag_of(40, 1_002), NOW_S + 2.5))
    text = console.export_text()
    assert "flights.events: version 7, 2.5 s old" in text
    assert re.search(r"0 .* 1,040 .* 1,000 .* 990 .* 40", text)
    assert re.search(r"1 .* 2,002 .* 1,000 .* - .* 1,002", text)
    assert re.search(r"all .* 1,042", text)
    assert as_dict(lag_of(40, 2), NOW_S)["lag_events"] == 42

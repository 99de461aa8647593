"""Topics are created with the right settings, once; ids and offsets are right on both brokers."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from stream_app import kafka_clients
from stream_app import topics as under_test
from stream_app.broker import free_port
from stream_app.errors import BrokerError, TopicError
from stream_app.events import Topics
from stream_app.topics import beginning_offsets, create_topics, end_offsets, topic_ids
from tests.broker.apache_kafka import ApacheKafka


def make(bootstrap_servers: str, name: str, partitions: int = 2) -> Topics:
    create_topics(bootstrap_servers, name, partitions=partitions, retention_s=3600, max_record_bytes=65536)
    return Topics.of(name)


def partition_counts(bootstrap_servers: str, topics: Topics) -> dict[str, int]:
    with kafka_clients.admin(bootstrap_servers) as admin:
        return {t["name"]: len(t["partitions"]) for t in admin.describe_topics(list(topics))}


def test_partitions(bootstrap_servers: str, app_name: str) -> None:
    topics = make(bootstrap_servers, app_name, partitions=3)
    assert partition_counts(bootstrap_servers, topics) == {
        topics.events: 3,
        topics.predictions: 3,
        topics.dead_letters: 1,
        topics.models: 1,
        topics.decisions: 1,
    }


def test_again_changes_nothing(bootstrap_servers: str, app_name: str) -> None:
    topics = make(bootstrap_servers, app_name)
    ids = topic_ids(bootstrap_servers, topics)
    make(bootstrap_servers, app_name)
    assert topic_ids(bootstrap_servers, topics) == ids
    assert len(set(ids.values())) == 5


def test_several_at_once(bootstrap_servers: str, app_name: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(make, bootstrap_servers, app_name) for _ in range(4)]:
            done.result()
    assert partition_counts(bootstrap_servers, Topics.of(app_name))[f"{app_name}.events"] == 2


def test_what_is_missing_is_added(bootstrap_servers: str, app_name: str) -> None:
    topics = Topics.of(app_name)
    with kafka_clients.admin(bootstrap_servers) as admin:
        admin.create_topics({topics.events: {"num_partitions": 2}}, wait_for_metadata=True)
    before = topic_ids(bootstrap_servers, [topics.events])
    make(bootstrap_servers, app_name)
    assert topic_ids(bootstrap_servers, topics).items() > before.items()


def test_other_partitions_are_refused(bootstrap_servers: str, app_name: str) -> None:
    make(bootstrap_servers, app_name, partitions=2)
    said = rf"topic '{app_name}.events': has 2 partitions, wanted 4; set stream.partitions"
    with pytest.raises(TopicError, match=said):
        make(bootstrap_servers, app_name, partitions=4)


def test_a_recreated_topic_has_another_id(bootstrap_servers: str, app_name: str) -> None:
    topics = make(bootstrap_servers, app_name)
    before = topic_ids(bootstrap_servers, [topics.events])
    with kafka_clients.admin(bootstrap_servers) as admin:
        admin.delete_topics([topics.events])
    with pytest.raises(TopicError, match=rf"topic '{topics.events}': is not there, wanted it created"):
        topic_ids(bootstrap_servers, [topics.events])
    make(bootstrap_servers, app_name)
    assert topic_ids(bootstrap_servers, [topics.events]) != before


def test_offsets_of_an_empty_topic(bootstrap_servers: str, app_name: str) -> None:
    topics = make(bootstrap_servers, app_name, partitions=3)
    assert end_offsets(bootstrap_servers, topics.events) == {0: 0, 1: 0, 2: 0}
    assert beginning_offsets(bootstrap_servers, topics.events) == {0: 0, 1: 0, 2: 0}


def test_offsets_after_batches(bootstrap_servers: str, app_name: str) -> None:
    """Of a last batch with many records the embedded broker's ListOffsets names the first."""
    topics = make(bootstrap_servers, app_name, partitions=4)
    wanted = {0: 1, 1: 500, 2: 0, 3: 3000}
    with kafka_clients.producer(bootstrap_servers, linger_ms=50) as producer:
        for partition, count in wanted.items():
            for _ in range(count):
                producer.send(topics.events, b"x" * 200, partition=partition)
        producer.flush()
    assert end_offsets(bootstrap_servers, topics.events) == wanted
    assert beginning_offsets(bootstrap_servers, topics.events) == dict.fromkeys(wanted, 0)


def test_offsets_after_one_batch_of_large_records(bootstrap_servers: str, app_name: str) -> None:
    """Larger than the fetch limit: the broker must send the batch all the same."""
    topics = make(bootstrap_servers, app_name, partitions=1)
    with kafka_clients.producer(bootstrap_servers, linger_ms=200, batch_size=900_000) as producer:
        for _ in range(10):
            producer.send(topics.events, b"x" * 65536)
        producer.flush()
    assert end_offsets(bootstrap_servers, topics.events) == {0: 10}


def test_the_models_topic_takes_a_large_version(bootstrap_servers: str, app_name: str) -> None:
    topics = make(bootstrap_servers, app_name)
    with kafka_clients.producer(bootstrap_servers, max_request_size=4_000_000) as producer:
        producer.send(topics.models, b"x" * 2_000_000).get(10)
    assert end_offsets(bootstrap_servers, topics.models) == {0: 1}


def test_a_missing_topic_is_named(bootstrap_servers: str, app_name: str) -> None:
    for offsets in (end_offsets, beginning_offsets):
        with pytest.raises(TopicError, match=rf"topic '{app_name}.events': is not there"):
            offsets(bootstrap_servers, f"{app_name}.events")


def test_no_broker_is_an_error(monkeypatch: pytest.MonkeyPatch, app_name: str) -> None:
    monkeypatch.setattr(under_test, "_WAIT_S", 0.3)
    nobody = f"127.0.0.1:{free_port()}"
    with pytest.raises(BrokerError, match=rf"broker '{nobody}': .*, wanted an answer"):
        make(nobody, app_name)


def test_settings(apache_kafka: ApacheKafka, app_name: str) -> None:
    """Apache Kafka only: the embedded broker does not report topic settings."""
    topics = make(apache_kafka.bootstrap_servers, app_name)
    with kafka_clients.admin(apache_kafka.bootstrap_servers) as admin:
        reported = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, t) for t in topics])["topic"]
    keys = ("cleanup.policy", "retention.ms", "max.message.bytes")
    got = {t: tuple(str(reported[t][k]["value"]) for k in keys) for t in topics}
    assert got == {
        topics.events: ("delete", "3600000", "1048588"),
        topics.predictions: ("delete", "3600000", "1048588"),
        topics.dead_letters: ("delete", "3600000", "1048588"),
        topics.models: ("delete", "-1", "2101248"),
        topics.decisions: ("delete", "-1", "1048588"),
    }


def test_retention_goes_by_the_brokers_clock_whatever_a_producer_stamps(
    apache_kafka: ApacheKafka, app_name: str
) -> None:
    """Kafka deletes by timestamp: of a replay of 2013, nothing would be left after the first check."""
    servers, topic = apache_kafka.bootstrap_servers, make(apache_kafka.bootstrap_servers, app_name).events
    with kafka_clients.producer(servers) as producer:
        kept = producer.send(topic, b"{}", timestamp_ms=1_357_034_100_000).get(10)
    assert abs(kept.timestamp / 1000 - time.time()) < 600


def test_a_compacted_topic_is_refused(apache_kafka: ApacheKafka, app_name: str) -> None:
    models = Topics.of(app_name).models
    with kafka_clients.admin(apache_kafka.bootstrap_servers) as admin:
        admin.create_topics({models: {"num_partitions": 1, "configs": {"cleanup.policy": "compact"}}})
    said = rf"topic '{models}': cleanup.policy is 'compact', wanted 'delete'"
    with pytest.raises(TopicError, match=said):
        make(apache_kafka.bootstrap_servers, app_name)

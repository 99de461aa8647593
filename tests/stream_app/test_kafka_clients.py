"""Clients end whole: however they end, no thread, file or socket of theirs is left. Unclosed sockets fail a test."""

import gc
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError

from stream_app import kafka_clients
from stream_app.broker import EmbeddedBroker, free_port
from stream_app.topics import create_topics

KINDS = (kafka_clients.admin, kafka_clients.consumer, kafka_clients.producer)
ROOT = Path(__file__).parents[2]


@contextmanager
def nothing_left() -> Iterator[None]:
    """What is begun inside ends inside."""

    def open_now() -> tuple[int, int]:
        gc.collect()
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    threads, files = open_now()
    yield
    deadline_s = time.monotonic() + 10.0
    while (now := open_now()) and (now[0] > threads or now[1] > files) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert now[0] <= threads  # fewer may be there: others' may have ended meanwhile
    assert now[1] <= files


@contextmanager
def full_backlog() -> Iterator[str]:
    """An address where a connection neither comes about nor fails."""
    with ExitStack() as until:
        listener = until.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        host, port = listener.getsockname()
        for _ in range(4):
            waiting = until.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((host, port))
        yield f"{host}:{port}"


@contextmanager
def refusing() -> Iterator[str]:
    yield f"127.0.0.1:{free_port()}"


@contextmanager
def hanging() -> Iterator[str]:
    """An address where connections are accepted and nobody answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield "{}:{}".format(*listener.getsockname())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("nobody", [refusing, hanging, full_backlog])
def test_a_client_that_finds_no_broker_leaves_nothing_behind(
    kind: Callable[..., Any], nobody: Callable[[], Any]
) -> None:
    with nobody() as address, nothing_left(), pytest.raises(KafkaError, match="bootstrap"):
        kind(address, bootstrap_timeout_ms=300)


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_is_closed_at_once_leaves_nothing_behind(kind: Callable[..., Any], embedded: str) -> None:
    with nothing_left():
        for _ in range(5):
            kind(embedded).close()


def test_a_producer_that_is_closed_while_it_writes_leaves_nothing_behind(app_name: str) -> None:
    with nothing_left(), EmbeddedBroker() as broker:
        create_topics(broker.bootstrap_servers, app_name, partitions=1, retention_s=60, max_record_bytes=1000)
        producer = kafka_clients.producer(broker.bootstrap_servers, max_request_size=8 << 20)
        producer.send(f"{app_name}.events", b"x").get(5)
        os.kill(broker.pid, signal.SIGSTOP)  # it takes no more: writes stay under way
        try:
            for _ in range(4):
                producer.send(f"{app_name}.events", bytes(6 << 20))
            time.sleep(0.3)
            with pytest.raises(KafkaTimeoutError):
                producer.close(timeout=0.2)
            producer._sender.force_close()
            producer._sender.join(10)
        finally:
            os.kill(broker.pid, signal.SIGCONT)


def test_several_servers_may_be_named_and_one_is_enough(embedded: str) -> None:
    with nothing_left(), kafka_clients.admin(f"127.0.0.1:{free_port()},{embedded}") as client:
        assert client.describe_cluster()["brokers"]


def test_consumers_commit_nothing_unasked(embedded: str) -> None:
    consumer = kafka_clients.consumer(embedded)
    assert consumer.config["enable_auto_commit"] is False
    consumer.close()


def test_no_client_makes_the_broker_create_what_is_missing(embedded: str, app_name: str) -> None:
    """A topic that was deleted would come back with the broker's settings, before its owner can create it."""
    consumer = kafka_clients.consumer(embedded)
    consumer.assign([TopicPartition(f"{app_name}.read", 0)])
    consumer.poll(timeout_ms=500)
    consumer.close()
    producer = kafka_clients.producer(embedded, max_block_ms=500)
    with pytest.raises(KafkaError):
        producer.partitions_for(f"{app_name}.written")
    producer.close(timeout=5)
    with kafka_clients.admin(embedded) as client:
        assert [t for t in client.list_topics() if t.startswith(app_name)] == []


def test_no_other_place_makes_clients_of_its_own() -> None:
    """They would leave threads and files behind, one set at each attempt to reach a broker that hangs."""
    folders = ("stream_app", "examples", "bench", "tests")
    found = [
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"\bKafka(AdminClient|Consumer|Producer)\(", path.read_text())
    ]
    assert found == []

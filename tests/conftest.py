"""Brokers for every test that needs one; Apache Kafka's are skipped, loudly, without KAFKA_HOME."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.torch_learner import use_one_thread
from stream_app.broker import EmbeddedBroker
from tests.broker.apache_kafka import ApacheKafka

_NO_KAFKA = "Apache Kafka tests SKIPPED: KAFKA_HOME is not set"
NO_CLIENTS = "tests of Triton's and KServe's clients SKIPPED: CLIENTS_PYTHON is not set"
_HINTS = {
    _NO_KAFKA: "Set KAFKA_HOME to an Apache Kafka 4 distribution (Java 17+) to run them.",
    NO_CLIENTS: "Run `make clients` to set their environment up and run them.",
}


use_one_thread()


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[EmbeddedBroker]:
    """The session's embedded broker; tests keep apart by their topic names (``app_name``)."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture(scope="session")
def apache_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    """The session's Apache Kafka, started from ``$KAFKA_HOME/libs``."""
    home = os.environ.get("KAFKA_HOME")
    if not home:
        pytest.skip(_NO_KAFKA)
    with ApacheKafka(Path(home).resolve(), tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
def embedded(embedded_broker: EmbeddedBroker) -> str:
    """Bootstrap servers of the embedded broker."""
    return embedded_broker.bootstrap_servers


@pytest.fixture(params=["embedded", "kafka"])
def bootstrap_servers(request: pytest.FixtureRequest) -> str:
    """Bootstrap servers of each broker in turn."""
    fixture = {"embedded": "embedded_broker", "kafka": "apache_kafka"}[request.param]
    return str(request.getfixturevalue(fixture).bootstrap_servers)


@pytest.fixture
def app_name() -> str:
    """A model name that no other test has."""
    return f"t{uuid.uuid4().hex[:12]}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    for reason, hint in _HINTS.items():
        count = sum(reason in str(report.longrepr) for report in skipped)
        if count:
            terminalreporter.section("WARNING", sep="!", red=True, bold=True)
            terminalreporter.line(f"{reason} ({count} tests)", red=True, bold=True)
            terminalreporter.line(hint, red=True)

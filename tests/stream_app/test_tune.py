"""Re-tuning beside a learning worker: search on replay, shadow, promote only a winner, lose nothing."""

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from models.spec import ModelSpec
from stream_app.decisions import DecisionWriter
from stream_app.errors import TopicError
from stream_app.events import Decision
from stream_app.logclient import LogClient
from stream_app.modellog import Envelope
from stream_app.replay import Reader
from stream_app.seed import Seeded, Seeder
from stream_app.topics import topic_ids
from stream_app.tune import Base, Challenger, Tuner, run
from tests import streams
from tests.broker.apache_kafka import ApacheKafka
from tests.line import Line
from tests.processes import wait_until
from tests.stream_app.test_seed import delete_records

EXAMPLES = 2_500
EVERY_LABELS = 700


def sleepy(name: str, margin: float) -> ModelSpec:
    """A model that hardly learns, because its learning rate is absurdly small."""
    spec = streams.spec(name, every_labels=EVERY_LABELS, margin=margin)
    return msgspec.structs.replace(spec, optimiser=msgspec.structs.replace(spec.optimiser, learning_rate=1e-7))


class Tuning:
    """A tuner in a thread, beside a hand-driven worker."""

    def __init__(self, line: Line) -> None:
        brokers, topics = line.bootstrap_servers, line.topics
        self._decisions, self._reader = DecisionWriter(brokers, topics.decisions), Reader(brokers)
        self.log, self._stop = LogClient(brokers, topics.models), threading.Event()
        tuner = Tuner(
            line.spec,
            models=self.log,
            registry=line.registry,
            reader=self._reader,
            decisions=self._decisions,
            topic_ids=topic_ids(brokers, (topics.events, topics.predictions)),
            stop=self._stop,
        )
        self.tuner = tuner
        self._thread = threading.Thread(target=run, args=(tuner, self._stop))
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
        for part in (self.log, self._decisions, self._reader):
            part.close()


def decisions(line: Line) -> list[Decision]:
    topic = line.topics.decisions
    records = line.reader.range(topic, 0, 0, line.reader.end(topic, 0))
    return [msgspec.json.decode(r.value, type=Decision) for r in records]


def drive(line: Line, seeder: Seeder, seeded: Seeded, kinds: set[str]) -> Envelope:
    """Learn and publish, 100 records at a time, until one of these decisions is on record."""
    streams.produce(line.bootstrap_servers, line.topics.events, streams.records(EXAMPLES))
    end = line.reader.end(line.topics.events, 0)

    def advance() -> bool:
        nonlocal seeded
        at = min(end, seeded.core.partitions[0].next_offset + 100)
        line.learn(seeded, {0: at})
        if at < end:
            head, won = line.publish(seeder, seeded)
            if won:
                seeded = seeded._replace(head=head)
        return bool(kinds & {d.kind for d in decisions(line)})

    wait_until(advance, f"a decision of {kinds}", timeout_s=60)
    return seeded.head


@pytest.fixture
def line(bootstrap_servers: str, app_name: str, tmp_path: Path) -> Iterator[Line]:
    found = Line(bootstrap_servers, sleepy(app_name, margin=0.0), tmp_path)
    yield found
    found.close()


def test_a_challenger_that_wins_is_promoted_with_its_own_offsets_and_nothing_is_missed(line: Line) -> None:
    seeder = line.seeder()
    seeded = seeder.seed()
    tuning = Tuning(line)
    drive(line, seeder, seeded, {"promoted"})
    tuning.close()

    successor = line.seeder()
    promoted = successor.seed()
    line.learn(promoted)

    found = {d.kind: d.evidence for d in decisions(line)}
    assert found["tuned"]["trials"] == 3
    assert found["promoted"]["challenger_loss"] < found["promoted"]["champion_loss"]
    assert promoted.head.epoch == 2
    assert promoted.head.hyper.learning_rate > 1e-7
    assert promoted.head.reference is not None
    ledger = {p: (s.count, s.xor) for p, s in promoted.core.partitions.items()}
    assert streams.total_ledger(ledger) == streams.expected_ledger(streams.records(EXAMPLES))
    assert promoted.core.counts["events"] == EXAMPLES


def test_one_that_does_not_win_by_the_margin_is_not(embedded: str, app_name: str, tmp_path: Path) -> None:
    line = Line(embedded, sleepy(app_name, margin=10.0), tmp_path)
    seeder = line.seeder()
    seeded = seeder.seed()
    tuning = Tuning(line)
    head = drive(line, seeder, seeded, {"kept", "promoted"})
    tuning.close()

    assert [d.kind for d in decisions(line)][:2] == ["tuned", "kept"]
    assert head.epoch == 1
    line.close()


def test_a_challenger_walks_over_the_gaps_that_transactions_leave(
    apache_kafka: ApacheKafka, app_name: str, tmp_path: Path
) -> None:
    line = Line(apache_kafka.bootstrap_servers, sleepy(app_name, margin=0.0), tmp_path)
    seeded = line.seeder().seed()
    stream = streams.records(60)
    for part in (stream[:50], stream[50:]):
        values = [msgspec.json.encode(r) for r in part]
        streams.produce_in_transaction(line.bootstrap_servers, line.topics.events, 0, values)
    challenger = Challenger(line.spec, Base(seeded.head, seeded.core.state()), line.reader)

    list(challenger.walk({0: 50}))
    list(challenger.walk({0: line.reader.end(line.topics.events, 0)}))

    count, _ = streams.expected_ledger(stream)
    assert challenger.core.counts["learned"] == count
    line.close()


def test_a_challenger_does_not_pass_over_deleted_events(
    apache_kafka: ApacheKafka, app_name: str, tmp_path: Path
) -> None:
    line = Line(apache_kafka.bootstrap_servers, sleepy(app_name, margin=0.0), tmp_path)
    seeded = line.seeder().seed()
    streams.produce(line.bootstrap_servers, line.topics.events, streams.records(60))
    base = Base(seeded.head, seeded.core.state())
    challenger = Challenger(line.spec, base, line.reader)
    list(challenger.walk({0: 20}))
    delete_records(line, line.topics.events, {0: 50})

    with pytest.raises(TopicError, match=rf"^{line.topics.events}/0: offsets 20 to 49 were deleted before the tuner"):
        list(challenger.walk({0: 100}))
    assert challenger.core.partitions[0].next_offset == 20
    with pytest.raises(TopicError, match="offsets 0 to 49 were deleted"):  # nor what waits for labels in the base
        Challenger(line.spec, base, line.reader)
    line.close()

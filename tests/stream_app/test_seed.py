"""Where a worker begins: empty log, head, lost log, recreated topic, changed spec, torn artefact, rival."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kafka
import msgspec
import pytest

from models.spec import Numeric
from stream_app import kafka_clients
from stream_app.errors import EpochError, RegistryError
from stream_app.events import DeadLetter
from stream_app.logclient import LogClient
from stream_app.registry import Artefact, Registry
from stream_app.seed import Seeded, Written
from tests import streams
from tests.broker.apache_kafka import ApacheKafka
from tests.line import Line

EXAMPLES = 600


@pytest.fixture
def line(bootstrap_servers: str, app_name: str, tmp_path: Path) -> Iterator[Line]:
    found = Line(bootstrap_servers, streams.spec(app_name, partitions=2), tmp_path)
    yield found
    found.close()


@pytest.fixture
def embedded_line(embedded: str, app_name: str, tmp_path: Path) -> Iterator[Line]:
    found = Line(embedded, streams.spec(app_name, partitions=2), tmp_path)
    yield found
    found.close()


def learned(line: Line, *, examples: int = EXAMPLES) -> Seeded:
    """A line whose newest version has learned the whole stream."""
    streams.produce(line.bootstrap_servers, line.topics.events, streams.records(examples))
    seeder = line.seeder()
    seeded = seeder.seed()
    line.learn(seeded)
    head, won = line.publish(seeder, seeded)
    assert won
    return seeded._replace(head=head)


def test_an_empty_log_begins_with_a_version_that_has_seen_nothing(line: Line) -> None:
    seeded = line.seeder().seed()

    assert seeded.head.number == 1
    assert seeded.head.parent is None
    assert seeded.head.offsets == {0: 0, 1: 0}
    assert line.seeder().seed().head.id == seeded.head.id


def test_a_successor_stands_exactly_where_the_head_stands(line: Line) -> None:
    first = learned(line)

    second = line.seeder().seed()

    assert second.head == first.head
    assert second.core.counts == first.core.counts
    for p, state in first.core.partitions.items():
        mine = second.core.partitions[p]
        assert (mine.next_offset, mine.count, mine.xor) == (state.next_offset, state.count, state.xor)
        assert len(mine.join) == len(state.join)
        assert mine.join.clock_s == state.join.clock_s
    assert streams.total_ledger(second.head.ledger) == streams.expected_ledger(streams.records(EXAMPLES))


def test_what_was_said_before_a_crash_is_what_is_scored_after_it(embedded_line: Line) -> None:
    line = embedded_line
    stream = streams.records(EXAMPLES)
    streams.produce(line.bootstrap_servers, line.topics.events, stream)
    crashed = line.seeder().seed()
    line.learn(crashed)  # its predictions are in the log, its version is not

    seeder = line.seeder()
    again = seeder.seed()
    said = [dict(s.recorded) for s in again.core.partitions.values()]
    line.learn(again)

    assert sum(map(len, said)) == EXAMPLES
    assert again.core.metrics()["events"] == EXAMPLES
    assert again.core.score.metrics() == pytest.approx(crashed.core.score.metrics(), nan_ok=True)
    first_records = line.reader.said(line.topics.predictions, 0, 0)[0]
    assert len(first_records) == sum(1 for r in said[0])


def test_junk_on_the_predictions_topic_is_passed_over(embedded_line: Line) -> None:
    first = learned(embedded_line)
    embedded_line.say(0, [b"junk", b"\x95\xa1v\xc4\x03abc\xc4\x00\xc4\x00\xc4\x00\xc4\x00"])

    again = embedded_line.seeder().seed()

    assert again.head == first.head
    assert again.core.counts["lost_predictions"] == 0


def test_of_two_writers_the_first_wins_and_the_other_sees_it(line: Line) -> None:
    streams.produce(line.bootstrap_servers, line.topics.events, streams.records(100))
    one, two = line.seeder(), line.seeder()
    first, second = one.seed(), two.seed()
    line.learn(first)
    line.learn(second)

    head, won = line.publish(one, first)
    rival, lost = line.publish(two, msgspec_changed(second))

    assert won
    assert not lost
    assert rival.id == head.id


def msgspec_changed(seeded: Seeded) -> Seeded:
    """The same state with another content, as a second worker's would be."""
    seeded.core.counts["drifts"] += 1
    return seeded


def test_a_spec_that_no_longer_fits_is_refused_and_may_begin_a_new_epoch(line: Line) -> None:
    first = learned(line)
    wider = msgspec.structs.replace(
        line.spec,
        features=msgspec.structs.replace(line.spec.features, numeric={**line.spec.features.numeric, "d": Numeric()}),
    )

    with pytest.raises(EpochError, match=r"does not fit the spec: .*features\.numeric.*--on-mismatch keep"):
        line.seeder(spec=wider).seed()
    kept = line.seeder("keep", spec=wider).seed()

    assert kept.head.epoch == first.head.epoch + 1
    assert kept.head.offsets == first.head.offsets
    assert line.seeder(spec=wider).seed().head.id == kept.head.id


def test_a_recreated_events_topic_is_told_apart_from_lag(line: Line) -> None:
    first = learned(line)
    line.recreate(line.topics.events)

    with pytest.raises(EpochError, match="was created anew"):
        line.seeder().seed()
    kept = line.seeder("keep").seed()

    assert kept.head.offsets == {0: 0, 1: 0}
    assert kept.head.epoch == first.head.epoch + 1
    assert (kept.core.learner.parameters() == first.core.learner.parameters()).all()


def test_whoever_died_between_writing_the_first_version_and_announcing_it_is_followed(line: Line) -> None:
    first = line.seeder().seed().head
    line.recreate(line.topics.models)  # as if it had never been announced

    again = line.seeder().seed()

    assert again.head.id == first.id
    assert again.head.parent is None


def test_keep_goes_on_with_what_waits_where_the_events_are_still_the_same(line: Line) -> None:
    first = learned(line)
    waiting = len(first.core.waiting)
    line.recreate(line.topics.predictions)

    with pytest.raises(EpochError, match="predictions was created anew"):
        line.seeder().seed()
    kept = line.seeder("keep").seed()

    assert kept.head.epoch == first.head.epoch + 1
    assert kept.head.ledger == first.head.ledger
    assert kept.head.replay_from == first.head.replay_from
    assert len(kept.core.waiting) == waiting > 0


def test_keep_goes_on_though_a_recreated_topic_has_fewer_partitions(line: Line) -> None:
    first = learned(line)
    line.recreate(line.topics.events, line.topics.predictions, partitions=1)

    with pytest.raises(EpochError, match="was created anew"):
        line.seeder().seed()
    kept = line.seeder("keep").seed()

    assert kept.head.offsets == {0: 0}
    assert kept.head.ledger == {0: (0, 0)}
    assert (kept.core.learner.parameters() == first.core.learner.parameters()).all()


def test_fresh_begins_with_the_settings_of_the_spec_and_keep_with_the_tuned_ones(embedded_line: Line) -> None:
    seeder = embedded_line.seeder()
    seeded = seeder.seed()
    seeded.core.learner.set_learning_rate(0.0123)
    assert embedded_line.publish(seeder, seeded)[1]
    embedded_line.recreate(embedded_line.topics.events)

    assert embedded_line.seeder("keep").seed().core.learner.learning_rate == 0.0123
    embedded_line.recreate(embedded_line.topics.events)
    fresh = embedded_line.seeder("fresh").seed()
    assert fresh.core.learner.learning_rate == embedded_line.spec.optimiser.learning_rate


def test_letters_about_a_topic_of_the_same_name_do_not_hide_those_about_this_one(embedded_line: Line) -> None:
    learned(embedded_line)
    letter = DeadLetter(topic=embedded_line.topics.events, topic_id="old", partition=0, offset=1, reason="r", value=b"")
    values = [msgspec.json.encode(letter)]
    streams.produce_raw(embedded_line.bootstrap_servers, embedded_line.topics.dead_letters, 0, values)
    embedded_line.recreate(embedded_line.topics.events)

    assert embedded_line.seeder("fresh").seed().letters == set()


def test_where_someone_has_chosen_a_recreated_topic_asks_for_a_restart_not_for_a_choice(embedded_line: Line) -> None:
    undecided, decided = embedded_line.seeder(), embedded_line.seeder("keep")
    undecided.seed()
    embedded_line.recreate(embedded_line.topics.events)

    codes = []
    for seeder in (undecided, decided):
        with pytest.raises(EpochError, match="was created anew") as caught:
            seeder.check_ids()
        codes.append(caught.value.exit_code)
    assert codes == [2, 1]


def test_an_empty_log_beside_a_full_registry_is_refused(embedded_line: Line, tmp_path: Path) -> None:
    learned(embedded_line)
    other = Line(embedded_line.bootstrap_servers, streams.spec(embedded_line.spec.name + "b", partitions=2), tmp_path)

    with pytest.raises(EpochError, match="lost its log"):
        other.seeder().seed()
    kept = other.seeder("keep").seed()

    assert kept.head.number == 1
    assert kept.head.labels > 0
    other.close()


def test_a_torn_head_is_replaced_by_the_newest_readable_version_with_its_own_offsets(line: Line) -> None:
    small = msgspec.structs.replace(line.spec, publish=msgspec.structs.replace(line.spec.publish, inline_bytes=0))
    line.spec = small
    seeder = line.seeder()
    first = seeder.seed()
    streams.produce(line.bootstrap_servers, line.topics.events, streams.records(EXAMPLES))
    line.learn(first)
    head, _ = line.publish(seeder, first)
    torn = Path(line.registry.url, head.artefact)
    torn.write_bytes(torn.read_bytes()[:1000])

    again = line.seeder().seed()

    assert again.head.epoch == head.epoch + 1
    assert again.head.offsets == {0: 0, 1: 0}
    line.learn(again)
    assert streams.total_ledger(
        {p: (s.count, s.xor) for p, s in again.core.partitions.items()}
    ) == streams.expected_ledger(streams.records(EXAMPLES))


def test_a_version_that_is_gone_back_to_is_made_durable_before_it_is_announced(
    embedded_line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wrote it may have died between renaming the file and syncing its folder."""
    line = embedded_line
    line.spec = msgspec.structs.replace(line.spec, publish=msgspec.structs.replace(line.spec.publish, inline_bytes=0))
    seeder = line.seeder()
    first = seeder.seed()
    streams.produce(line.bootstrap_servers, line.topics.events, streams.records(EXAMPLES))
    line.learn(first)
    head, _ = line.publish(seeder, first)
    Path(line.registry.url, head.artefact).unlink()
    did: list[str] = []
    write, announce = Registry.write, LogClient.announce

    def noted_write(self: Registry, *given: Any) -> Artefact:
        found = write(self, *given)
        did.append(found.path)
        return found

    def noted_announce(self: LogClient, kind: Any, *given: Any, **more: Any) -> bool:
        did.append(kind)
        return announce(self, kind, *given, **more)

    monkeypatch.setattr(Registry, "write", noted_write)
    monkeypatch.setattr(LogClient, "announce", noted_announce)
    again = line.seeder().seed().head
    assert (again.id, did) == (first.head.id, [first.head.artefact, "epoch"])


def test_a_lost_artefact_that_travelled_inline_is_written_again(embedded_line: Line) -> None:
    seeder = embedded_line.seeder()
    head = seeder.seed().head
    lost = Path(embedded_line.registry.url, head.artefact)
    lost.unlink()

    assert not seeder.mend_head()

    assert embedded_line.registry.read(head.artefact, head.sha256) == lost.read_bytes()
    assert seeder.newest() == head


def test_an_artefact_that_is_lost_later_is_noticed_too(embedded_line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    seeder = embedded_line.seeder()
    lost = Path(embedded_line.registry.url, seeder.seed().head.artefact)
    seeder.mend_head()
    lost.unlink()

    seeder.mend_head()
    assert not lost.exists()  # looked at a moment ago
    monkeypatch.setattr("stream_app.seed.CHECK_HEAD_S", 0.0)
    seeder.mend_head()
    assert lost.exists()


def test_without_any_readable_version_it_says_so(embedded_line: Line) -> None:
    line = embedded_line
    line.spec = msgspec.structs.replace(line.spec, publish=msgspec.structs.replace(line.spec.publish, inline_bytes=0))
    head = line.seeder().seed().head
    Path(line.registry.url, head.artefact).unlink()

    with pytest.raises(RegistryError, match="holds no version that can be read"):
        line.seeder().seed()


@pytest.fixture
def kafka_line(apache_kafka: ApacheKafka, app_name: str, tmp_path: Path) -> Iterator[Line]:
    """What the embedded broker cannot: delete records."""
    found = Line(apache_kafka.bootstrap_servers, streams.spec(app_name, partitions=2), tmp_path)
    yield found
    found.close()


def delete_records(line: Line, topic: str, before: dict[int, int]) -> None:
    admin = kafka_clients.admin(line.bootstrap_servers)
    admin.delete_records({kafka.TopicPartition(topic, p): offset for p, offset in before.items()})
    admin.close()


def test_what_waits_is_rebuilt_as_far_as_its_records_are_still_there(kafka_line: Line) -> None:
    first = learned(kafka_line)
    cut = {p: (at + first.head.offsets[p]) // 2 for p, (at, _) in first.head.replay_from.items()}
    delete_records(kafka_line, kafka_line.topics.events, cut)

    again = kafka_line.seeder().seed()

    assert 0 < len(again.core.waiting) < len(first.core.waiting)


def test_a_models_topic_trimmed_past_its_head_is_refused(kafka_line: Line) -> None:
    learned(kafka_line)
    models = kafka_line.topics.models
    delete_records(kafka_line, models, {0: kafka_line.reader.end(models, 0)})

    for choice in ("refuse", "keep"):
        with pytest.raises(EpochError, match=r"was trimmed past its head: it begins at offset 2.*delete the topic"):
            kafka_line.seeder(choice).seed()


def test_a_transaction_marker_at_the_end_is_no_lag(kafka_line: Line) -> None:
    seeder = kafka_line.seeder()
    streams.produce_in_transaction(kafka_line.bootstrap_servers, kafka_line.topics.events, 0, [b"{}"] * 3)

    assert kafka_line.reader.end(kafka_line.topics.events, 0) == 4
    assert seeder.lag({0: 3, 1: 0}) == 0
    assert seeder.lag({0: 2, 1: 0}) == 2


def test_what_others_wrote_to_the_dead_letters_does_not_keep_a_worker_from_beginning(embedded_line: Line) -> None:
    head = learned(embedded_line).head
    at, id_ = head.offsets[0], head.topic_ids[embedded_line.topics.events]
    letters = [
        msgspec.json.encode(DeadLetter(topic="t", topic_id=id_, partition=0, offset=o, reason="r", value=b"v"))
        for o in (at - 1, at)
    ]
    streams.produce_raw(
        embedded_line.bootstrap_servers, embedded_line.topics.dead_letters, 0, [b"no letter", b"{}", *letters]
    )

    assert embedded_line.seeder().seed().letters == {Written(0, at, None)}

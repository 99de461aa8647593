"""Re-tuning beside a learning worker: search on replay, shadow, promote only a winner, lose nothing."""

import logging
import math
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from models.search import Candidate, RandomSearch
from models.spec import ModelSpec, signature
from stream_app import tune, versions
from stream_app.decisions import DecisionWriter
from stream_app.errors import EpochError, TopicError
from stream_app.events import Decision
from stream_app.logclient import LogClient
from stream_app.modellog import Change, Envelope, Fold
from stream_app.replay import Reader
from stream_app.seed import Seeded, Seeder
from stream_app.topics import topic_ids
from stream_app.tune import Base, Challenger, Trial, Tuner, run
from tests import streams
from tests.broker.apache_kafka import ApacheKafka
from tests.line import Line
from tests.processes import wait_until
from tests.stream_app.heads import head_of
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


# Without a broker ---------------------------------------------------------------------------------


class Heads:
    """A models topic of which only the head matters, set by hand."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self.fold = Fold()

    @property
    def head(self) -> Envelope | None:
        return self.fold.head

    def poll(self, timeout_s: float) -> list[Change]:
        return []

    def catch_up(self) -> None:
        pass

    def set(self, labels: int, **changes: Any) -> None:
        number = self.fold.head.number + 1 if self.fold.head else 1
        self.fold.head = head_of(number, **({"labels": labels, "signature": signature(self._spec)} | changes))


class Rounds:
    """A tuner whose rounds are only counted; its base and window, and what they raise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.heads = Heads(sleepy("counted", margin=0.0))
        self.decided: list[tuple[str, Any]] = []
        nothing: Any = None
        self.tuner = Tuner(
            sleepy("counted", margin=0.0),
            models=cast(LogClient, self.heads),
            registry=nothing,
            reader=nothing,
            decisions=cast(DecisionWriter, self),
            topic_ids={},
            stop=threading.Event(),
        )
        self.windows: list[tuple[int, int]] = []
        self.error: Exception | None = None
        monkeypatch.setattr(versions, "read_head", lambda fold, registry: ({}, {}))
        monkeypatch.setattr(self.tuner, "_round", self._round)

    def decide(self, kind: str, version: int, evidence: Any) -> None:
        self.decided.append((kind, evidence))

    def _round(self, base: Base, head: Envelope) -> None:
        self.windows.append((base.envelope.labels, head.labels))
        if self.error is not None:
            raise self.error

    def learn(self, first: int, last: int, **changes: Any) -> None:
        """Heads of so many labels, 10 apart; the tuner looks at each."""
        for labels in range(first, last + 1, 10):
            self.heads.set(labels, **changes)
            with suppress(TopicError):
                self.tuner.step()


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> Rounds:
    return Rounds(monkeypatch)


def test_rounds_come_at_their_intervals(rounds: Rounds) -> None:
    rounds.learn(0, 2_500)
    assert rounds.windows == [(300, 700), (1_000, 1_400), (1_700, 2_100)]


def test_a_round_that_fails_is_left_with_its_base(rounds: Rounds) -> None:
    rounds.error = TopicError("deleted")
    rounds.learn(0, 1_200)
    assert rounds.windows == [(300, 700), (710, 1_110)]  # not 300 to 710, 720 ... for ever


def test_after_a_new_beginning_it_tunes_as_at_first(rounds: Rounds) -> None:
    rounds.learn(100_000, 100_700)
    rounds.learn(0, 800, epoch=2)
    assert rounds.windows == [(100_000, 100_400), (300, 700)]


def test_a_challenger_without_a_loss_never_wins_but_beats_a_champion_without_one() -> None:
    def wins(own: float, said: float, margin: float = 0.0) -> bool:
        found = Challenger.__new__(Challenger)  # only the tally
        found._weight, found._own_loss, found._said_loss = 2.0, 2 * own, 2 * said
        return found.wins(margin)

    nan, inf = math.nan, math.inf
    assert wins(0.3, 0.4)
    assert not wins(0.4, 0.4)
    assert not wins(0.3, 0.4, margin=0.2)
    assert not wins(nan, 0.4)
    assert not wins(nan, nan)
    assert not wins(inf, nan)
    assert not wins(inf, inf)
    assert wins(0.3, nan)
    assert wins(0.3, inf)


def test_what_the_search_calls_best_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cautious(RandomSearch):
        """Trusts the second that it asked for, whatever is told."""

        @property
        def best(self) -> tuple[Candidate, float]:
            return {"learning_rate": 0.2, "half_life_events": 2.0}, 0.5

        def ask(self) -> Candidate:
            return next(asked)

    asked = iter({"learning_rate": n / 10, "half_life_events": float(n)} for n in (1, 2, 3))
    losses = iter((0.4, 0.5, 0.3))
    nothing: Any = None
    monkeypatch.setattr(tune, "RandomSearch", Cautious)
    monkeypatch.setattr(
        tune, "_tried", lambda _, learner, *rest: Trial(learner.learning_rate, 1.0, next(losses), nothing)
    )
    best, told = tune.search(streams.spec("t"), {}, head_of().hyper, [], round_=0, mind_stop=lambda: None)
    assert (best.learning_rate, best.loss, told) == (0.2, 0.5, [0.4, 0.5, 0.3])


@pytest.mark.parametrize(
    ("unfit", "reason"),
    [
        ({"signature": "s"}, "the head of 'counted' does not fit the spec: signature: head has s, spec has "),
        ({"topic_ids": {"counted.events": "i"}}, "topic counted.events: its id is i for the head, was None when"),
    ],
)
def test_beside_a_head_that_does_not_fit_nothing_is_tuned_or_promoted(
    rounds: Rounds, unfit: dict[str, Any], reason: str
) -> None:
    tuner, nothing = rounds.tuner, cast(Challenger, None)
    rounds.learn(0, 600)
    rounds.heads.set(800, epoch=2, **unfit)
    for work in (tuner.step, lambda: tuner._shadow(nothing, 1), lambda: tuner._promote(nothing, 2)):
        with pytest.raises(EpochError, match=f"^{reason}"):
            work()
    assert (rounds.windows, rounds.decided) == ([], [])
    rounds.learn(810, 1_300, epoch=3)
    assert rounds.windows == [(810, 1_210)]


def test_a_line_that_is_left_before_the_promotion_is_not_brought_back(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds.heads.set(700)
    monkeypatch.setattr(rounds.heads, "catch_up", lambda: rounds.heads.set(0, epoch=2))
    rounds.tuner._promote(cast(Challenger, None), 1)
    assert rounds.decided == [("kept", {"reason": "the champion's line was left"})]


def test_an_unfit_head_is_told_of_once_and_waited_out(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stop, looks = threading.Event(), 0

    def poll(timeout_s: float) -> list[Change]:
        nonlocal looks
        looks += 1
        if looks <= 3:
            rounds.heads.set(looks, signature="s")
        else:
            rounds.heads.set(looks)
            stop.set()
        return []

    monkeypatch.setattr(tune, "RETRY_S", 0.001)
    monkeypatch.setattr(rounds.heads, "poll", poll)
    with caplog.at_level(logging.WARNING, "stream_app.tuner"):
        run(rounds.tuner, stop)
    (told,) = caplog.messages
    assert told.startswith("waiting for another head: the head of 'counted' does not fit the spec: ")
    assert looks == 4

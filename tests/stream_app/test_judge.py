"""A version that is tried is taken up if it loses less on the labels that come, and withdrawn if it does not."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.measure import mean_loss
from models.spec import ModelSpec, Optimiser, Traffic
from stream_app import stored, versions
from stream_app.judge import FEWEST, Duel, Judge
from stream_app.live import prepare
from stream_app.logclient import LogClient
from stream_app.modellog import Envelope
from stream_app.operate import Operator, Trial
from stream_app.registry import Registry
from tests import streams
from tests.broker.apache_kafka import ApacheKafka
from tests.line import Line
from tests.stream_app.test_learn import core_of, play, records_of
from tests.stream_app.test_seed import delete_records

TRAFFIC = Traffic(labels=300)
NOW_S = 1_700_000_000.0


# Two losses ---------------------------------------------------------------------------------------


def duel(own: Any, said: Any, weights: Any = None) -> Duel:
    found, own = Duel(), np.array(own, np.float64)
    found.add(own, np.array(said, np.float64), np.ones(len(own)) if weights is None else np.array(weights))
    return found


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9), st.floats(0.1, 5)), min_size=2, max_size=60), st.integers(1, 9)
)
def test_sums_are_the_weighted_mean_and_its_standard_error(rows: list[tuple[float, float, float]], cut: int) -> None:
    own, said, w = (np.array(column) for column in zip(*rows, strict=True))
    found = Duel()
    for part in (slice(None, cut), slice(cut, None)):
        found.add(own[part], said[part], w[part])
    d, mean = own - said, np.average(own - said, weights=w)
    assert found.losses == pytest.approx((np.average(own, weights=w), np.average(said, weights=w)))
    assert found.error == pytest.approx(math.sqrt((w**2 * (d - mean) ** 2).sum()) / w.sum(), abs=1e-6)


def test_enough_labels_decide_and_clearly_worse_is_said_before() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 1_000)
    assert duel(0.4 + noise, np.full(1_000, 0.5)).verdict(1_000, 0.0) == "better"
    assert duel(0.4 + noise, np.full(1_000, 0.5)).verdict(1_000, 0.2) == "not better"
    assert duel(0.4 + noise, np.full(1_000, 0.5)).verdict(1_001, 0.0) is None
    assert duel(0.6 + noise, np.full(1_000, 0.5)).verdict(5_000, 0.0) == "worse"
    assert duel(0.6 + noise[: FEWEST - 1], np.full(FEWEST - 1, 0.5)).verdict(5_000, 0.0) is None
    assert duel(0.5 + noise, np.full(1_000, 0.5)).verdict(5_000, 0.0) is None


def test_a_loss_that_is_no_number_is_worse_at_once() -> None:
    assert duel([math.nan, 0.1], [0.2, 0.2]).verdict(5_000, 0.0) == "worse"
    assert Duel().verdict(5_000, 0.0) is None


# Over a broker ------------------------------------------------------------------------------------


def trained(spec: ModelSpec, registry: Registry, *, turned: bool = False) -> Envelope:
    """A version that has learned such a stream elsewhere, or its opposite."""
    spec = msgspec.structs.replace(spec, optimiser=Optimiser(learning_rate=0.02))
    core = core_of(spec, reference=False)
    values = streams.records(1_500, seed=1)
    if turned:
        values = [v | {"label": 1 - v["label"]} if "label" in v else v for v in values]
    play(core, records_of(values), range(0, 9_000, 320))
    envelope, _ = versions.write(
        spec,
        versions.snapshot(core),
        registry,
        parent=None,
        epoch=9,
        predictions_from={0: 0},
        topic_ids={},
        created_s=5.0,
    )
    return envelope


class Tried:
    """A line whose worker learns nothing, beside versions that know the stream, or have learned its opposite."""

    def __init__(self, bootstrap_servers: str, name: str, folder: Path) -> None:
        spec = streams.spec(name, partitions=2)
        sleepy = msgspec.structs.replace(spec.optimiser, learning_rate=1e-7)
        self.spec = msgspec.structs.replace(spec, optimiser=sleepy, traffic=TRAFFIC)
        self.line = Line(bootstrap_servers, self.spec, folder)
        self.seeder = self.line.seeder()
        self.seeded = self.seeder.seed()
        self.decisions: list[tuple[str, int, dict[str, Any]]] = []
        self.log = LogClient(bootstrap_servers, self.line.topics.models)
        self.now_s = NOW_S

        def decide(kind: str, version: int, evidence: dict[str, Any]) -> None:
            self.decisions.append((kind, version, evidence))

        self.operator = Operator(
            self.log, self.line.registry, decide, by="ann", inline_bytes=0, clock=lambda: self.now_s
        )
        self.judge = self.again()
        self.log.catch_up()

    def again(self) -> Judge:
        return Judge(
            self.spec,
            models=self.log,
            registry=self.line.registry,
            reader=self.line.reader,
            operator=self.operator,
            clock=lambda: self.now_s,
        )

    def trained(self, *, turned: bool = False) -> Envelope:
        return trained(self.spec, self.line.registry, turned=turned)

    def learn(self, stream: list[dict[str, Any]]) -> None:
        streams.produce(self.line.bootstrap_servers, self.line.topics.events, stream)
        self.line.learn(self.seeded)
        head, won = self.line.publish(self.seeder, self.seeded)
        if won:
            self.seeded = self.seeded._replace(head=head)

    def follow(self) -> None:
        """The worker has noticed that its head is another's."""
        self.seeder = self.line.seeder()
        self.seeded = self.seeder.seed()

    def close(self) -> None:
        self.log.close()
        self.line.close()

    def out(self) -> str | None:
        self.log.catch_up()
        route = self.log.fold.route
        return route.challenger.mode if route and route.challenger else None


@pytest.fixture
def tried(embedded: str, app_name: str, tmp_path: Path) -> Iterator[Tried]:
    made = Tried(embedded, app_name, tmp_path)
    yield made
    made.close()


STREAM = streams.records(1_200)


def test_what_loses_less_becomes_the_head_and_what_it_replaced_watches_over_it(
    bootstrap_servers: str, app_name: str, tmp_path: Path
) -> None:
    tried = Tried(bootstrap_servers, app_name, tmp_path)
    better = tried.trained()
    tried.learn(STREAM[:500])
    tried.operator.challenge(better, Trial.of(TRAFFIC, "canary", percent=5.0), "better?")
    assert tried.judge.step() is None
    tried.learn(STREAM[500:1_500])
    before = tried.seeded.head
    assert tried.judge.step() == "better"
    tried.log.catch_up()
    head = tried.log.head
    assert head is not None
    assert (head.epoch, head.offsets, head.ledger) == (before.epoch + 1, before.offsets, before.ledger)
    assert np.array_equal(theta(tried, head), theta(tried, better))
    assert tried.out() == "guard"
    kinds = [kind for kind, _, _ in tried.decisions]
    assert kinds == ["canary", "promoted", "guard"]
    evidence = tried.decisions[1][2]
    assert evidence["labels"] >= TRAFFIC.labels
    assert evidence["challenger_loss"] < evidence["champion_loss"]
    tried.follow()
    tried.learn(STREAM[1_500:])
    assert tried.judge.step() == "not better"  # than what has replaced it
    assert (tried.out(), tried.decisions[-1][0]) == (None, "withdrawn")
    tried.learn([])
    assert streams.total_ledger(tried.seeded.head.ledger) == streams.expected_ledger(STREAM)
    tried.close()


def theta(tried: Tried, envelope: Envelope) -> Any:
    return stored.read_version(envelope, tried.line.registry)[0]["learner.theta"]


def test_what_turns_out_worse_after_all_is_rolled_back_by_its_guard(tried: Tried) -> None:
    good, bad = tried.trained(), tried.trained(turned=True)
    tried.learn(STREAM[:300])
    tried.operator.adopt(bad, "in spite of everything", kind="promoted")
    tried.follow()
    tried.operator.challenge(good, Trial.of(TRAFFIC, "guard", percent=0.0), "watches")
    tried.learn(STREAM[300:1_300])
    assert tried.judge.step() == "better"
    assert tried.out() is None
    tried.log.catch_up()
    assert np.array_equal(theta(tried, tried.log.head), theta(tried, good))  # type: ignore[arg-type]
    assert [kind for kind, _, _ in tried.decisions] == ["promoted", "guard", "rolled_back"]


def test_what_is_clearly_worse_is_withdrawn_early(tried: Tried) -> None:
    bad = tried.trained(turned=True)
    tried.learn(STREAM[:300])
    tried.operator.challenge(bad, Trial.of(Traffic(labels=10**6), "canary", percent=5.0), "better?")
    tried.learn(STREAM[300:1_000])
    assert tried.judge.step() == "worse"
    assert tried.out() is None
    kind, _, evidence = tried.decisions[-1]
    assert (kind, evidence["mode"]) == ("withdrawn", "canary")
    assert FEWEST <= evidence["labels"] < 1_000
    assert tried.judge.step() is None


def test_the_same_is_found_by_a_judge_that_starts_again_and_by_a_server(tried: Tried) -> None:
    better = tried.trained()
    tried.learn(STREAM[:500])
    out = tried.operator.challenge(better, Trial.of(Traffic(labels=10**6), "shadow"), "better?")
    for start in range(500, 1_500, 200):
        tried.learn(STREAM[start : start + 200])
        assert tried.judge.step() is None
    measured = tried.judge._measured
    again = tried.again()
    again.step()
    assert measured is not None
    assert again._measured is not None
    assert again._measured[1].duel.labels == measured[1].duel.labels
    assert again._measured[1].duel.losses == pytest.approx(measured[1].duel.losses)
    counted = {r["id"] for r in STREAM[500:1_500] if "label" in r}
    assert measured[1].duel.labels == len(counted)

    model = prepare(Path(tried.line.registry.url, out.envelope.artefact).read_bytes(), out.envelope)
    examples = {r["id"]: r for r in STREAM if "features" in r}
    labels = [r for r in STREAM[500:1_500] if "label" in r]
    rows = [examples[r["id"]] for r in labels]
    scores = model.predict([r["features"] for r in rows], [r["time"] for r in rows])
    wanted = mean_loss("binary", scores, np.array([r["label"] for r in labels]))
    assert measured[1].duel.losses[0] == pytest.approx(wanted, rel=1e-5)


def test_only_judged_it_is_put_on_record_once_and_left_to_people(tried: Tried) -> None:
    better = tried.trained()
    tried.operator.challenge(better, Trial.of(TRAFFIC, "shadow", auto=False), "better?")
    tried.learn(STREAM[:1_500])
    assert [tried.judge.step(), tried.judge.step()] == ["better", None]
    assert tried.out() == "shadow"
    kind, _, evidence = tried.decisions[-1]
    assert (kind, evidence["verdict"], len(tried.decisions)) == ("judged", "better", 2)


def test_without_labels_it_is_withdrawn_when_its_time_is_over(tried: Tried) -> None:
    tried.operator.challenge(tried.trained(), Trial.of(Traffic(most_s=60.0), "canary", percent=5.0), "better?")
    assert tried.judge.step() is None
    tried.now_s += 61.0
    tried.judge.step()
    assert tried.out() is None
    assert tried.decisions[-1][2]["reason"] == "its time is over, too few labels came"


def test_what_cannot_be_measured_any_more_is_withdrawn(
    apache_kafka: ApacheKafka, app_name: str, tmp_path: Path
) -> None:
    tried = Tried(apache_kafka.bootstrap_servers, app_name, tmp_path)
    tried.learn(STREAM[:100])
    tried.operator.challenge(tried.trained(), Trial.of(TRAFFIC, "canary", percent=5.0), "better?")
    tried.learn(STREAM[100:200])
    delete_records(tried.line, tried.line.topics.events, tried.seeded.head.offsets)
    tried.judge.step()
    assert tried.out() is None
    assert "were deleted before they were judged" in tried.decisions[-1][2]["reason"]
    tried.close()

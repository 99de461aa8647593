"""Two cores that learn half a stream each, and go on from each other's versions, beside one that learns it all."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from models import learners
from models.merging import MergeError
from models.spec import ModelSpec, parse_spec
from stream_app import versions
from stream_app.learn import Core, Version
from tests import streams
from tests.stream_app.heads import head_of
from tests.stream_app.test_learn import Record

PARTS = (0, 1)
Split = dict[int, list[Record]]


def spec_of(learner: str, more: str = "") -> ModelSpec:
    return parse_spec(streams.spec_text("sharing", partitions=2, learner=learner) + more, "test")


def halves(stream: Sequence[dict[str, object]]) -> Split:
    """By id: an example and its label belong together."""
    split: Split = {p: [] for p in PARTS}
    for record in stream:
        part = split[int(str(record["id"])[1:]) % 2]
        part.append(Record(len(part), -1, msgspec.json.encode(record)))
    return split


def fresh(spec: ModelSpec) -> Core:
    core = Core(spec, learners.make(spec))
    core.start(dict.fromkeys(PARTS, 0))
    return core


def version(core: Core, number: int, head: Version | None = None) -> Version:
    taken = versions.snapshot(core)
    taken = versions.beside(taken, head.envelope) if head else taken
    fields = {n: getattr(taken, n) for n in ("offsets", "replay_from", "ledger", "metrics", "labels", "reference")}
    return Version(head_of(number, **fields), taken.arrays)


def shared(spec: ModelSpec, split: Split, every: int) -> Version:
    """Both take ``every`` records, then each in turn makes a version of its own behind the other's."""
    head = version(fresh(spec), 1)
    cores, bases = {p: Core(spec, learners.make(spec)) for p in PARTS}, dict.fromkeys(PARTS, head)
    for p, core in cores.items():
        core.load(head.arrays, head.envelope, {p})
    for at in range(0, max(map(len, split.values())), every):
        for p, core in cores.items():
            core.take(p, split[p][at : at + every])
        for p, core in cores.items():
            if head is not bases[p]:
                core.rebase(bases[p], head)
            head = bases[p] = version(core, head.envelope.number + 1, head)
    return head


def alone(spec: ModelSpec, split: Split, every: int) -> Version:
    core = fresh(spec)
    for at in range(0, max(map(len, split.values())), every):
        for p in PARTS:
            core.take(p, split[p][at : at + every])
    return version(core, 1)


@pytest.mark.parametrize(
    ("learner", "examples"), [(streams.NETWORK, 20_000), (streams.MIXTURE, 5_000)], ids=["network", "mixture"]
)
def test_two_learn_every_pair_once_and_about_as_well_as_one(learner: str, examples: int) -> None:
    """The first few thousand labels are what a network loses: until it knows something, the mean goes half as far."""
    spec, stream = spec_of(learner), streams.records(examples, unlabelled=0.05)
    split = halves(stream)
    both, one = shared(spec, split, 300).envelope, alone(spec, split, 300).envelope
    assert both.ledger == one.ledger
    assert both.offsets == one.offsets
    assert streams.total_ledger(both.ledger) == streams.expected_ledger(stream)
    for name in ("events", "learned", "count", "expired", "orphans"):
        assert both.metrics[name] == one.metrics[name], name
    assert both.metrics["accuracy"] == pytest.approx(one.metrics["accuracy"], abs=0.012)
    assert both.metrics["majority_accuracy"] == pytest.approx(one.metrics["majority_accuracy"], abs=0.02)


def test_features_know_what_all_have_seen() -> None:
    spec = spec_of(streams.NETWORK)
    split = halves(streams.records(2_000))
    both, one = fresh(spec), fresh(spec)
    both.load(*reversed(shared(spec, split, 200)))
    one.load(*reversed(alone(spec, split, 200)))
    np.testing.assert_array_equal(both.encoder.scaler.n[:2], one.encoder.scaler.n[:2])
    np.testing.assert_allclose(both.encoder.scaler.mean[:2], one.encoder.scaler.mean[:2], atol=1e-9)
    keys, times_s = np.arange(4)[:, None].repeat(2, axis=1), np.full(4, 1_002_000.0)
    np.testing.assert_allclose(both.encoder.rates.read(keys, times_s), one.encoder.rates.read(keys, times_s), atol=1e-5)


def test_who_has_learned_nothing_goes_on_from_the_others_version_whole() -> None:
    spec = spec_of(streams.NETWORK)
    split, begin = halves(streams.records(400)), version(fresh(spec), 1)
    busy, idle = fresh(spec), Core(spec, learners.make(spec))
    idle.load(begin.arrays, begin.envelope, {1})
    busy.take(0, split[0])
    newest = version(busy, 2)
    idle.rebase(begin, newest)
    for name, array in newest.arrays.items():
        if name.startswith(("features.", "learner.", "score.")):
            np.testing.assert_array_equal(idle.state()[name], array, err_msg=name)
    assert idle.counts == busy.counts


def test_what_waits_for_its_label_is_answered_as_it_was_and_learned_later() -> None:
    spec = spec_of(streams.NETWORK)
    split, begin = halves(streams.records(400)), version(fresh(spec), 1)
    mine, theirs = (Core(spec, learners.make(spec)) for _ in PARTS)
    mine.load(begin.arrays, begin.envelope, {0})
    theirs.load(begin.arrays, begin.envelope, {1})
    mine.take(0, split[0][:200])
    theirs.take(1, split[1])
    said = mine.waiting.rows(mine.waiting.places()).said
    mine.rebase(begin, version(theirs, 2, begin))
    np.testing.assert_array_equal(mine.waiting.rows(mine.waiting.places()).said, said)
    mine.take(0, split[0][200:])
    assert mine.counts["learned"] == streams.expected_ledger(streams.records(400))[0]


def test_a_partition_that_another_learns_is_forgotten_with_all_that_waits() -> None:
    spec = spec_of(streams.NETWORK)
    split, core = halves(streams.records(400)), fresh(spec)
    for p in PARTS:
        core.take(p, split[p][:200])
    core.forget(1)
    kept = len(core.waiting)
    assert 0 < kept == len(core.partitions[0].join.rows())
    assert core.take(1, split[1][200:]).steps == []
    core.take(0, split[0][200:])


def test_a_version_in_another_layout_is_refused_and_nothing_has_changed() -> None:
    spec = spec_of(streams.NETWORK)
    split, begin = halves(streams.records(400)), version(fresh(spec), 1)
    mine, theirs = (Core(spec, learners.make(spec)) for _ in PARTS)
    for p, core in enumerate((mine, theirs)):
        core.load(begin.arrays, begin.envelope, {p})
        core.take(p, split[p])
    newest, before = version(theirs, 2, begin), mine.state()
    for other in ({"score.counts": np.zeros(3)}, {"learner.theta": np.zeros(2, np.float32)}):
        with pytest.raises(MergeError, match="version 2 cannot be merged"):
            mine.rebase(begin, newest._replace(arrays=newest.arrays | other))
    torn = {name: array for name, array in newest.arrays.items() if name != "features.rates.used"}
    with pytest.raises(MergeError, match="version 2 cannot be merged: 'used'"):
        mine.rebase(begin, newest._replace(arrays=torn))
    for name, array in mine.state().items():
        np.testing.assert_array_equal(array, before[name])


def test_an_estimator_of_river_refuses_and_nothing_has_changed() -> None:
    river = 'kind = "river"\nestimator = "river.linear_model.LogisticRegression"\nnominal = false'
    spec = spec_of(river, '[blend]\nkind = "none"\n')
    split, begin = halves(streams.records(400)), version(fresh(spec), 1)
    mine, theirs = (Core(spec, learners.make(spec)) for _ in PARTS)
    for p, core in enumerate((mine, theirs)):
        core.load(begin.arrays, begin.envelope, {p})
        core.take(p, split[p])
    before, counts = mine.state(), dict(mine.counts)
    with pytest.raises(MergeError, match="River"):
        mine.rebase(begin, version(theirs, 2, begin))
    for name, array in mine.state().items():
        np.testing.assert_array_equal(array, before[name])
    assert mine.counts == counts

"""The core: every record takes effect once, and stopping anywhere leaves no trace."""

import json
import math
import random
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.drift import Drift
from models.snapshot import pack, unpack
from models.spec import Blend, Categorical, Explain, Features, Label, Learner, ModelSpec, Numeric, Optimiser, Rates
from models.spec import Drift as DriftSpec
from models.torch_learner import TorchLearner
from stream_app import versions
from stream_app.codecs.mixed import Codec
from stream_app.columns import ROW_BITS
from stream_app.learn import Core, Taken
from stream_app.modellog import Envelope
from stream_app.predictions import Said, decode_block, encode_blocks
from stream_app.registry import Registry
from tests import streams
from tests.stream_app.test_join import WAIT_S, SlowJoin, events_of

BATCH = 8
TASKS = ("binary", "multiclass", "regression")
CLASSES: dict[str, tuple[int | str, ...]] = {"binary": (0, 1), "multiclass": ("x", "y", "z"), "regression": ()}


class Record(NamedTuple):
    offset: int
    timestamp: int
    value: bytes | None


def spec_of(task: str = "binary", **changes: Any) -> ModelSpec:
    fields: dict[str, Any] = {
        "name": "t",
        "task": task,
        "label": Label(name="y", classes=CLASSES[task], wait_s=WAIT_S),
        "features": Features(
            numeric={"a": Numeric(), "b": Numeric()},
            categorical={"c": Categorical(size=8, dim=2)},
            rates=Rates(half_lives_s=(5.0, 50.0), keys=((), ("c",)), slots=16),
        ),
        "learner": Learner(kind="torch", network="linear", batch_records=BATCH),
        "optimiser": Optimiser(learning_rate=0.05),
        "blend": Blend(half_life_events=50.0),
        "drift": DriftSpec(delta=0.05, inputs=("a", "c")),
        "explain": Explain(rows_per_label=2.0),
    }
    return ModelSpec(**fields | changes)


def core_of(spec: ModelSpec, *, reference: bool = True, partitions: int = 1) -> Core:
    core = Core(spec, TorchLearner(spec))
    core.start(dict.fromkeys(range(partitions), 0))
    if reference:
        core.learner.set_reference(np.full(core.learner.parameters().shape, 0.25, np.float32))
        core.reference = "r"
    return core


def records_of(values: Sequence[object], start: int = 0) -> list[Record]:
    """What is neither bytes nor None is written as JSON."""
    raw = [v if v is None or isinstance(v, bytes) else json.dumps(v).encode() for v in values]
    return [Record(start + i, -1, v) for i, v in enumerate(raw)]


@cache
def stream(task: str, seed: int = 0, length: int = 240) -> tuple[Record, ...]:
    """Late, early, missing and doubled labels, ids that come again, missing values, a little rubbish."""
    rng = random.Random(f"{task}{seed}")
    values: list[object] = []
    now_s = 1000.0
    for i in range(length):
        now_s += rng.choice((0.0, 0.5, 1.0, 2.0 * WAIT_S if i % 90 == 60 else -1.0))
        id_, kind = f"e{rng.randrange(i // 3, i // 3 + 3)}", rng.choice("ffffllllbbr")
        label = {"binary": rng.randrange(2), "multiclass": rng.choice("xyz"), "regression": rng.gauss(50.0, 9.0)}[task]
        given = {"a": rng.gauss(3.0, 2.0), "b": rng.choice((None, 1e6, -1.0)), "c": rng.choice(("p", 7, None))}
        value: dict[str, object] = {"id": id_}
        if kind in "fb":
            value |= {"time": now_s, "features": given}
        if kind in "lb":
            value |= {"label": label, "label_time": now_s + rng.choice((0.0, 0.0, 0.0, 1.0, 11.0))}
        values.append(rng.choice((None, b"{", b'{"id":""}', {"id": "e"})) if kind == "r" else value)
    return tuple(records_of(values))


def play(core: Core, records: Sequence[Record], fetches: Sequence[int] = ()) -> list[Taken]:
    """Take all, cut at the given offsets."""
    inner = [f for f in fetches if records[0].offset < f <= records[-1].offset]
    ends = sorted({records[0].offset, *inner, records[-1].offset + 1})
    first = records[0].offset
    return [core.take(0, records[a - first : b - first]) for a, b in pairwise(ends)]


def said_of(taken: Sequence[Taken]) -> dict[int, Said]:
    """As a reader of the predictions topic finds it, by position."""
    found: dict[int, Said] = {}
    for out in taken:
        for value in encode_blocks(out.predictions, "v"):
            for position, said in decode_block(value)[0].rows():
                assert position not in found, "said twice"
                found[position] = said
    return found


def fingerprint(core: Core) -> tuple[object, ...]:
    """All that a version says of a core, to the bit."""
    taken = versions.snapshot(core)
    return (
        pack(taken.arrays, {}),
        taken.theta.tobytes(),
        taken.offsets,
        taken.replay_from,
        taken.ledger,
        repr(taken.metrics),
        repr(taken.classes),
        taken.labels,
        taken.hyper,
        taken.reference,
    )


def stopped(core: Core, registry: Registry) -> tuple[Envelope, bytes]:
    """What is durable of a core."""
    return versions.write(
        core.spec,
        versions.snapshot(core),
        registry,
        parent=None,
        epoch=1,
        predictions_from={0: 0},
        topic_ids={},
        created_s=0.0,
    )


def resumed(spec: ModelSpec, envelope: Envelope, data: bytes, records: Sequence[Record], said: dict[int, Said]) -> Core:
    """Another process, with the version, the events topic and the predictions topic."""
    core = Core(spec, TorchLearner(spec))
    core.load(unpack(data)[0], envelope)
    start, end = envelope.replay_from[0][0], envelope.offsets[0]
    core.rebuild(0, [records[start:end]], said)
    return core


# Offsets -------------------------------------------------------------------------------------------


def test_a_fetch_from_beyond_the_expected_offset_takes_no_effect() -> None:
    core, records = core_of(spec_of()), stream("binary")
    play(core, records[:10])
    before = fingerprint(core)
    out = core.take(0, records[11:20])
    assert out == Taken([], [], [], [], [], gap_at=11)
    assert fingerprint(core) == before


def test_records_behind_the_expected_offset_are_dropped() -> None:
    steady, core, records = core_of(spec_of()), core_of(spec_of()), stream("binary")
    play(steady, records[:40], [16])
    core.take(0, records[:16])
    assert core.take(0, records[3:12]) == Taken([], [], [], [], [])
    core.take(0, records[5:40])
    assert fingerprint(core) == fingerprint(steady)
    assert core.partitions[0].next_offset == 40


def test_records_of_a_partition_that_is_not_ours_and_empty_fetches_take_no_effect() -> None:
    core = core_of(spec_of())
    before = fingerprint(core)
    assert core.take(1, stream("binary")[:9]) == Taken([], [], [], [], [])
    assert core.take(0, []) == Taken([], [], [], [], [])
    assert fingerprint(core) == before


def test_partitions_keep_their_own_offsets_joins_and_ledgers() -> None:
    core = core_of(spec_of(), partitions=2)
    both = {"id": "e", "time": 1.0, "features": {}, "label": 1, "label_time": 1.0}
    core.take(0, records_of([both, both]))
    core.take(1, records_of([both]))
    assert {p: (s.next_offset, s.count) for p, s in core.partitions.items()} == {0: (2, 1), 1: (1, 1)}
    assert core.partitions[0].xor == core.partitions[1].xor != 0


@pytest.mark.parametrize("task", TASKS)
def test_the_size_of_fetches_does_not_matter(task: str) -> None:
    records, prints = stream(task), set()
    for size in (1, 2, 3, BATCH, 13, 1000):
        core = core_of(spec_of(task))
        fetches = [records[at : at + size] for at in range(0, len(records), size)]
        outs = [core.take(0, fetch, more=True) for fetch in fetches]
        said = said_of([*outs, core.take(0, ())])
        prints.add(repr((fingerprint(core), said)))
    assert len(prints) == 1


def test_a_step_that_is_not_full_waits_only_while_more_follows() -> None:
    core, records = core_of(spec_of()), stream("binary")
    core.take(0, records[: BATCH + 3], more=True)
    assert (core.partitions[0].next_offset, core.partitions[0].expected) == (BATCH, BATCH + 3)
    assert core.take(0, records[BATCH + 4 :], more=True).gap_at == BATCH + 4
    core.take(0, records[: BATCH + 4])
    assert core.partitions[0].next_offset == core.partitions[0].expected == BATCH + 4


def test_what_was_held_takes_effect_before_a_gap_is_passed() -> None:
    core, records = core_of(spec_of()), stream("binary")
    core.take(0, records[:3], more=True)
    core.skip(0, 5)
    assert core.partitions[0].next_offset == 5
    assert core.take(0, records[5:9]).gap_at is None
    assert core.partitions[0].next_offset == 9


def test_steps_end_at_multiples_of_batch_records_wherever_a_fetch_began() -> None:
    example = {"time": 1.0, "features": {}, "label": 1, "label_time": 1.0}
    outs = play(core_of(spec_of()), records_of([{"id": f"e{i}", **example} for i in range(20)]), [3, 9])
    assert [[len(step.target) for step in out.steps] for out in outs] == [[3], [5, 1], [7, 4]]


# Stopping --------------------------------------------------------------------------------------------


def assert_no_trace(spec: ModelSpec, records: Sequence[Record], fetches: Sequence[int], stops: set[int]) -> None:
    """What is said, learned, remembered and scored is the same to the bit, wherever it stopped in between."""
    registry = Registry("memory://test_learn")
    steady, core = core_of(spec), core_of(spec)
    said = said_of(play(steady, records, fetches))
    found: dict[int, Said] = {}
    for a, b in pairwise(sorted({0, *fetches, len(records)})):
        if a in stops:
            core = resumed(spec, *stopped(core, registry), records, found)
        found |= said_of([core.take(0, records[a:b])])
    assert fingerprint(core) == fingerprint(steady)
    assert repr(found) == repr(said)


@pytest.mark.parametrize(
    ("task", "optimiser"),
    [*((task, "adam") for task in TASKS), *(("binary", o) for o in ("adamw", "sgd", "rmsprop", "adagrad"))],
)
def test_stopping_leaves_no_trace(task: str, optimiser: Any) -> None:
    spec = spec_of(task, optimiser=Optimiser(name=optimiser, learning_rate=0.02))
    rng = random.Random(f"{task} {optimiser}")
    records = stream(task, seed=1)
    fetches = sorted(rng.sample(range(1, len(records)), 20))
    assert_no_trace(spec, records, fetches, {0, *rng.sample(fetches, 5)})


@settings(deadline=None, derandomize=True, max_examples=12)
@given(st.integers(2, 50), st.sets(st.integers(1, 99), min_size=1, max_size=8))
def test_stopping_between_any_two_fetches_leaves_no_trace(seed: int, cuts: set[int]) -> None:
    assert_no_trace(spec_of(), stream("binary", seed, 100), sorted(cuts), cuts)


def test_what_was_learned_after_the_last_version_is_learned_again_alike_and_not_said_again(tmp_path: Any) -> None:
    spec, records = spec_of(), stream("binary")
    core = core_of(spec)
    said = said_of(play(core, records[:100], [64]))
    version = stopped(core, Registry(str(tmp_path)))
    said |= said_of(play(core, records[100:150], [120]))  # said, but no version has it
    again = resumed(spec, *version, records, said)
    assert said_of(play(again, records[100:150], [120])) == {}
    assert fingerprint(again) == fingerprint(core)
    assert again.partitions[0].recorded == {}


# What was said counts -----------------------------------------------------------------------------------


def resumed_with(said: Said) -> Core:
    """A core that never took a record, and finds ``said`` in the predictions topic for offset 0."""
    core = core_of(spec_of())
    core.partitions[0].recorded = {0: said, 99 << ROW_BITS: said}
    return core


def test_what_the_predictions_topic_says_first_counts() -> None:
    said = Said(np.array([0.1, 0.2, 0.3, 0.4], np.float32), np.array([0.9], np.float32), 1.0, np.array([0.7], "f4"))
    core = resumed_with(said)
    example = {"id": "e", "time": 1.0, "features": {"a": 1.0}, "label": 0, "label_time": 1.0}
    out = core.take(0, records_of([example]))
    assert out.predictions == []
    (step,) = out.steps
    assert step.said.tolist() == [[said.scores[0]]]
    assert step.own.tolist() == [[0.5]]
    assert step.dense[0, 2:].tolist() == said.rates.tolist()
    metrics = core.metrics()
    assert metrics["log_loss"] == pytest.approx(-math.log(0.1), rel=1e-6)
    assert metrics["majority_log_loss"] == pytest.approx(-math.log(0.3), rel=1e-6)
    assert metrics["nochange_accuracy"] == 0.0
    assert core.partitions[0].recorded.keys() == {99 << ROW_BITS}


def test_the_learner_answers_for_a_step_before_it_learns_any_of_it() -> None:
    core = core_of(spec_of(), reference=False)
    values = [
        {"id": f"e{i}", "time": float(i), "features": {"a": i, "c": "p"}, "label": i % 2, "label_time": float(i)}
        for i in range(BATCH + 1)
    ]
    steps = core.take(0, records_of(values)).steps
    assert steps[0].own.tolist() == [[0.5]] * BATCH
    assert steps[1].own[0, 0] != 0.5


def test_rates_and_priors_know_every_label_that_came_before_wherever_steps_end() -> None:
    values = [
        {"id": f"e{i}", "time": float(i), "features": {"a": i, "c": "p"}, "label": 1, "label_time": float(i)}
        for i in range(2 * BATCH)
    ]
    core, single = (
        core_of(spec_of()),
        core_of(spec_of(learner=Learner(kind="torch", network="linear", batch_records=1))),
    )
    said, one_by_one = (list(said_of([c.take(0, records_of(values))]).values()) for c in (core, single))
    assert [s.prior[0] for s in said] == pytest.approx([(i + 0.5) / (i + 1) for i in range(2 * BATCH)])
    assert [s.rates.tolist() for s in said] == [s.rates.tolist() for s in one_by_one]
    assert said[0].rates.tolist() == [0.5] * 4 != said[1].rates.tolist()


def test_nochange_is_the_last_label_that_had_arrived() -> None:
    feature = {"time": 1.0, "features": {}}
    values: list[object] = [
        {"id": "a", **feature},
        {"id": "b", **feature, "label": 1, "label_time": 1.0},
        {"id": "c", **feature},
        {"id": "unknown", "label": 0, "label_time": 1.0},
        {"id": "d", **feature},
    ]
    said = said_of([core_of(spec_of()).take(0, records_of(values))])
    assert [s.nochange for s in said.values()] == pytest.approx([math.nan, math.nan, 1.0, 0.0], nan_ok=True)


def test_predictions_that_are_gone_are_counted() -> None:
    spec, records = spec_of(), stream("binary")
    core = core_of(spec)
    said = said_of(play(core, records[:100]))
    envelope, data = stopped(core, Registry("memory://test_learn"))
    start = envelope.replay_from[0][0]
    rows = [p for p in said if p >= start << ROW_BITS]
    assert len(rows) > 2
    again = resumed(spec, envelope, data, records, {p: s for p, s in said.items() if p != rows[1]})
    assert again.counts["lost_predictions"] == 1
    assert len(play(again, records[100:])[0].steps)


@pytest.mark.parametrize(
    ("task", "labels", "prior"),
    [("binary", [1, 1], [2.5 / 3]), ("multiclass", ["z", "z"], [1 / 9, 1 / 9, 7 / 9]), ("regression", [], [0.0])],
)
def test_before_two_classes_were_seen_the_prior_is_said(task: str, labels: list[object], prior: list[float]) -> None:
    core = core_of(spec_of(task))  # the reference has pulled its parameters from 0
    example = {"time": 1.0, "features": {"a": 1.0}}
    both = [{"id": f"e{i}", **example, "label": label, "label_time": 1.0} for i, label in enumerate(labels)]
    core.take(0, records_of([*both, b"", b""][:BATCH]))
    at = core.partitions[0].next_offset
    core.take(0, records_of([b""] * (BATCH - at), start=at))
    (said,) = said_of([core.take(0, records_of([{"id": "x", **example}], start=BATCH))]).values()
    assert said.scores == pytest.approx(np.array(prior), rel=1e-6)
    assert said.prior.tolist() == said.scores.tolist()
    other = {"binary": 0, "multiclass": "x", "regression": 7.0}[task]
    core.take(0, records_of([{"id": "y", **example, "label": other, "label_time": 1.0}], start=BATCH + 1))
    (said,) = said_of([core.take(0, records_of([{"id": "z", **example}], start=BATCH + 2))]).values()
    assert said.scores != pytest.approx(said.prior, rel=1e-3)


# Weights ---------------------------------------------------------------------------------------------------


def test_a_weight_reaches_the_learner_the_score_and_the_rates() -> None:
    core = core_of(spec_of())
    labels = [(1, 3.0), (0, None), (1, 0.5)]
    values = [
        {"id": f"e{i}", "time": 1.0, "features": {}, "label": y, "label_time": 1.0, "weight": w}
        for i, (y, w) in enumerate(labels)
    ]
    (step,) = core.take(0, records_of(values)).steps
    assert step.weights is not None
    assert step.weights.tolist() == [3.0, 1.0, 0.5]
    assert core.metrics()["majority_accuracy"] == 3.5 / 4.5
    assert [(c.name, c.support) for c in core.classes()] == [("1", 3.5), ("0", 1.0)]
    assert core.encoder.rates.prior() == pytest.approx([(3.5 + 0.5) / (4.5 + 1.0)])
    heavy, light = core_of(spec_of()), core_of(spec_of())
    heavy.take(0, records_of(values))
    light.take(0, records_of([v | {"weight": 1} for v in values]))
    assert heavy.learner.parameters().tobytes() == core.learner.parameters().tobytes()
    assert heavy.learner.parameters().tobytes() != light.learner.parameters().tobytes()


@pytest.mark.parametrize("task", TASKS)
def test_weights_of_one_are_as_if_nobody_gave_any(task: str) -> None:
    plain, ones = core_of(spec_of(task)), core_of(spec_of(task))
    outs = play(plain, stream(task))
    values = [json.loads(r.value) | {"weight": 1} if r.value and len(r.value) > 12 else r.value for r in stream(task)]
    play(ones, records_of(values))
    assert all(step.weights is None for out in outs for step in out.steps)
    assert fingerprint(ones) == fingerprint(plain)


@pytest.mark.parametrize("task", TASKS)
def test_stopping_leaves_no_trace_of_weighted_examples_either(task: str) -> None:
    rng = random.Random(1)
    values: list[object] = [
        json.loads(r.value) | {"weight": rng.choice((None, 0.25, 2, 7.5))} if r.value and len(r.value) > 12 else r.value
        for r in stream(task, seed=2)
    ]
    fetches = sorted(rng.sample(range(1, len(values)), 15))
    assert_no_trace(spec_of(task), records_of(values), fetches, set(rng.sample(fetches, 5)))


# What is counted -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_the_ledger_is_what_a_slow_join_of_the_records_says(task: str) -> None:
    records = stream(task, seed=3)
    core, spec = core_of(spec_of(task)), spec_of(task)
    outs = play(core, records, [7, 50, 51, 130])
    slow, count, xor = SlowJoin(), 0, 0
    for event in events_of(Codec(spec).decode(records)[0]):
        if pair := slow.take(event):
            count += 1
            xor ^= streams.ledger_hash(pair.id, pair.target)
    assert count > 30
    assert versions.snapshot(core).ledger == {0: (count, xor)}
    assert core.counts["learned"] == count == core.metrics()["count"]
    assert sum(len(step.target) for out in outs for step in out.steps) == count


def test_dead_letters_are_isolated_and_counted() -> None:
    good = [{"id": f"e{i}", "time": 1.0, "features": {"a": 1}, "label": 1, "label_time": 1.0} for i in range(20)]
    values: list[object] = [*good]
    values[5:5], values[19:19] = [b"{", None], [{"id": "x"}]
    core = core_of(spec_of())
    out = core.take(0, records_of(values))
    assert [(b.offset, b.value) for b in out.bad] == [(5, b"{"), (6, b""), (19, b'{"id": "x"}')]
    assert (core.counts["dead_letters"], core.counts["learned"], core.counts["events"]) == (3, 20, 20)
    assert core.partitions[0].next_offset == 23


def test_a_fetch_of_nothing_but_rubbish_is_passed() -> None:
    core = core_of(spec_of())
    out = core.take(0, records_of([b"{"] * 20))
    assert (len(out.bad), out.steps, out.predictions) == (20, [], [])
    assert core.partitions[0].next_offset == 20


def test_examples_without_a_label_expire_by_event_time() -> None:
    core = core_of(spec_of())
    values: list[object] = [{"id": f"e{i}", "time": float(i), "features": {}} for i in range(30)]
    values += [{"id": "l", "label": 1, "label_time": 3.0}, {"id": "z", "time": 29.0 + WAIT_S, "features": {}}]
    core.take(0, records_of(values))
    assert (core.counts["expired"], core.counts["orphans"], core.counts["events"]) == (29, 1, 31)
    assert core.metrics()["waiting"] == 2
    late = core.take(0, records_of([{"id": "e3", "label": 1, "label_time": 30.0}], start=32))
    assert late.steps == []


def test_of_many_classes_those_with_the_most_labels_are_told() -> None:
    classes = tuple(range(30))
    core = core_of(spec_of("multiclass", label=Label(name="y", classes=classes, wait_s=WAIT_S)))
    labels = [k for k in classes for _ in range(1 + k)]
    values = [{"id": f"e{i}", "time": 1.0, "features": {}, "label": y, "label_time": 1.0} for i, y in enumerate(labels)]
    core.take(0, records_of(values))
    assert [(c.name, c.support) for c in core.classes()] == [(str(k), 1.0 + k) for k in range(29, 9, -1)]
    assert core_of(spec_of("regression")).classes() == ()


def test_a_score_of_an_older_layout_begins_anew_and_the_rest_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    spec, records = spec_of(), stream("binary")
    core = core_of(spec)
    said = said_of(play(core, records[:100]))
    envelope, data = stopped(core, Registry("memory://test_learn"))
    arrays = unpack(data)[0]
    arrays["score.sums"] = arrays["score.sums"][:3]
    again = Core(spec, TorchLearner(spec))
    again.load(arrays, envelope)
    again.rebuild(0, [records[envelope.replay_from[0][0] : 100]], said)
    assert "the score begins anew: score state 'sums' is of shape (3,), wanted shape (49,)" in caplog.text
    assert again.metrics()["count"] == 0
    assert again.learner.parameters().tobytes() == core.learner.parameters().tobytes()
    assert len(again.take(0, records[100:]).steps) > 0


def test_what_is_ignored_is_counted_once() -> None:
    core = core_of(spec_of())
    label = {"id": "e", "label": 1, "label_time": 1.0}
    core.take(0, records_of([label, label]))
    core.take(0, records_of([label], start=2))
    assert core.counts["ignored"] == 2


# Learning ------------------------------------------------------------------------------------------------


def separable(task: str, n: int = 600) -> list[Record]:
    rng = random.Random(0)
    values = []
    for i in range(n):
        a = rng.uniform(-1, 1)
        third = "xyz"[int((a + 1) * 1.5)]
        label: object = {"binary": int(a > 0), "multiclass": third, "regression": 100 + 10 * a}[task]
        values.append({"id": str(i), "time": float(i), "features": {"a": a}, "label": label, "label_time": float(i)})
    return records_of(values)


@pytest.mark.parametrize(
    ("task", "name", "better"),
    [("binary", "accuracy", 0.9), ("multiclass", "accuracy", 0.75), ("regression", "r2", 0.8)],
)
def test_what_can_be_learned_is_learned(task: str, name: str, better: float) -> None:
    core = core_of(spec_of(task), reference=False)
    play(core, separable(task)[:400])
    core.score = Core(core.spec, core.learner).score  # from here on
    play(core, separable(task)[400:])
    metrics = core.metrics()
    assert metrics[name] > better
    assert metrics[name] > metrics[f"majority_{name}"] + 0.2


def test_a_version_tells_what_matters(tmp_path: Any) -> None:
    core = core_of(spec_of(), reference=False)
    play(core, separable("binary"))
    envelope, _ = stopped(core, Registry(str(tmp_path)))
    assert next(iter(envelope.importance)) == "a"
    assert envelope.importance["a"] > 0.1
    assert set(envelope.importance) == {"a", "b", "rates()", "rates(c)", "c"}


ABSURD: list[dict[str, object]] = [
    {"a": 1e308, "b": -1e308},
    {"a": -1e308, "b": 3.4e38},
    {"a": None, "b": None, "c": None},
    {},
    {"a": 5e-324, "b": -0.0, "c": ""},
    {"a": 0.0, "b": 0.0, "c": "c" * 60_000},
    {"a": 1.0, "b": 1e30, "c": 10**300},
]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("at", [0, 30])
def test_absurd_values_poison_nothing(task: str, at: int) -> None:
    """Neither as the very first records nor among good ones."""
    labels: dict[str, list[object]] = {
        "binary": [0, 1],
        "multiclass": ["x", "z"],
        "regression": [3.4e38, -3.4e38, 1e-300, 0],
    }
    values: list[object] = [
        {"id": f"absurd{i}-{j}", "time": t, "features": given, "label": label, "label_time": t}
        for i, given in enumerate(ABSURD)
        for j, label in enumerate(labels[task])
        for t in ((-1e308, 0.0, 100.0)[(i + j) % 3],)
    ]
    good = [json.loads(r.value) for r in separable(task, 200) if r.value]
    core = core_of(spec_of(task))
    outs = play(core, records_of([*good[:at], *values, *good[at:]]), range(0, 300, 5))
    assert core.counts["learned"] == core.counts["events"] == len(good) + len(values)
    for name, array in core.state().items():
        as_they_came = name in ("importance.dense", "drift.waiting")
        assert np.isfinite(array).all() or as_they_came, name
    for offset, said in said_of(outs).items():
        assert np.isfinite(said.scores).all(), offset
        assert np.isfinite(said.rates).all(), offset
    assert all(math.isfinite(v) for k, v in core.metrics().items() if k.endswith(("loss", "mae", "accuracy")))


def drift_of(before: float, after: float, watched: str = "error") -> Drift:
    worse = watched == "error" and after > before
    return Drift(
        watched=watched, mean_before=before, mean_after=after, width=5, worse=worse, at_count=9, detector="adwin"
    )


def test_a_change_for_the_worse_releases_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [drift_of(0.5, 0.1)]
    core, records = core_of(spec_of()), separable("binary")
    monkeypatch.setattr(core.drift, "add", lambda errors: found[-1])
    out = core.take(0, records[:BATCH])
    assert (out.drifts, core.reference, core.counts["drifts"]) == (found, "r", 1)
    assert "reference" in core.learner.state()
    found.append(drift_of(0.1, 0.5))
    core.take(0, records[BATCH : 2 * BATCH])
    assert (core.reference, core.counts["drifts"]) == (None, 2)
    assert "reference" not in core.learner.state()
    assert len(core.references) == 1, "kept for the day its stream comes back"


def test_a_past_optimum_that_fits_again_is_recalled() -> None:
    """Released by a drift, it is tried on what comes; parameters and reference become it, what pulled waits."""
    records = separable("binary")
    good = core_of(spec_of(), reference=False)
    play(good, records)
    spec = spec_of(optimiser=Optimiser(learning_rate=1e-9), blend=Blend(half_life_events=1e12))
    core = core_of(spec)
    core.references.keep(good.learner.parameters())
    watch = core.drift
    outs = play(core, records, range(0, len(records), 50))
    assert core.counts["recalls"] == 1
    assert [r.evidence()["left"] for out in outs for r in out.recalls] == [0]
    assert (core.reference or "").startswith("recalled-at-")
    assert core.learner.reference() == pytest.approx(good.learner.parameters())
    assert core.learner.parameters() == pytest.approx(good.learner.parameters(), abs=1e-5)
    assert core.references.state()["pool"] == pytest.approx(np.full((1, len(good.learner.parameters())), 0.25))
    assert core.drift is not watch, "errors from before would pass for a drift"


def test_the_pool_of_past_references_is_part_of_a_version() -> None:
    core, records = core_of(spec_of()), separable("binary")
    core.references.keep(core.learner.parameters() + np.float32(1.0))
    play(core, records[:80])
    stopped = versions.snapshot(core)
    assert stopped.arrays["references.pool"].shape == (1, len(stopped.theta))
    assert stopped.arrays["references.evidence"].shape == (1,)


def test_without_a_blend_no_reference_is_kept() -> None:
    core = core_of(spec_of(blend=Blend(kind="none")))
    core.references.keep(core.learner.parameters())
    assert len(core.references) == 0


def test_a_changed_input_is_noted_and_releases_nothing() -> None:
    """By its name and in its own unit; what is missing is missing, not a number."""
    spec = spec_of(drift=DriftSpec(delta=1e-5, inputs=("a", "c")))
    core, rng = core_of(spec), random.Random(0)
    values = [
        {"id": str(i), "time": float(i), "features": {"a": rng.gauss(5.0, 1.0) + 3.0 * (i > 3_000), "c": i % 5}}
        for i in range(6_000)
    ]
    drifts = [drift for out in play(core, records_of(values)) for drift in out.drifts]
    assert [drift.watched for drift in drifts] == ["a"]
    assert (drifts[0].mean_before, drifts[0].worse) == (pytest.approx(5.0, abs=0.1), False)
    assert (core.counts["input_drifts"], core.counts["drifts"], core.reference) == (1, 0, "r")


def test_drift_is_watched_on_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    for task, said, wrong in (
        ("binary", [0.9], 1.0),
        ("multiclass", [0.1, 0.8, 0.1], 1.0),
        ("regression", [3.0], 3.0 / 3.5),  # majority, which said 0.5, erred by 0.5
    ):
        core = core_of(spec_of(task))
        k = len(said)
        rates = np.zeros(4 * k, np.float32)
        core.partitions[0].recorded = {0: Said(rates, np.array(said, np.float32), 0.0, np.full(k, 0.5, np.float32))}
        monkeypatch.setattr(core.drift, "add", seen.extend)
        label = {"binary": 0, "multiclass": "x", "regression": 0.0}[task]
        core.take(0, records_of([{"id": "e", "time": 1, "features": {}, "label": label, "label_time": 1}]))
        assert seen.pop() == pytest.approx(wrong)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 60.0])
def test_regressions_drift_does_not_depend_on_the_labels_unit(unit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    core = core_of(spec_of("regression"))
    monkeypatch.setattr(core.drift, "add", seen.extend)
    for i, (said, label) in enumerate([(4.0, 2.0), (9.0, 8.0), (1.0, 3.0)]):
        scores, prior = np.array([said * unit], np.float32), np.array([5.0 * unit], np.float32)
        core.partitions[0].recorded = {i << ROW_BITS: Said(np.zeros(4, np.float32), scores, 0.0, prior)}
        value = {"id": f"e{i}", "time": 1, "features": {}, "label": label * unit, "label_time": 1}
        core.take(0, records_of([value], start=i))
    assert seen == pytest.approx([2 / (2 + 3), 1 / (1 + 3), 2 / (2 + 8 / 3)], rel=1e-5)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_an_adopted_learner_answers_for_what_waits_too(task: str) -> None:
    spec = spec_of(task)
    core = core_of(spec)
    play(core, records_of([{"id": f"w{i}", "time": 1.0, "features": {"a": float(i)}} for i in range(5)]))
    before = core.waiting.rows(core.waiting.places())
    other = TorchLearner(spec)
    theta = np.linspace(-1.0, 1.0, core.learner.parameters().size, dtype=np.float32)
    other.load(core.learner.state() | {"theta": theta})

    core.adopt(other)

    rows = core.waiting.rows(core.waiting.places())
    assert len(rows.own) == 5
    assert (rows.own == other.predict(core.encoder.standardise(rows.dense), rows.categories)).all()
    assert (rows.own != before.own).any(axis=1).all()
    assert (rows.said == before.said).all()  # what was said stays said


def test_a_state_is_a_copy() -> None:
    core, records = core_of(spec_of()), stream("binary")
    play(core, records[:100])
    taken = versions.snapshot(core)
    before = pack(taken.arrays, {}), taken.theta.tobytes(), dict(taken.offsets)
    play(core, records[100:])
    assert (pack(taken.arrays, {}), taken.theta.tobytes(), taken.offsets) == before

"""Five classes and a number, from records to answers: late labels, rates, drift, a stop in between, a server."""

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.drift import DriftWatch
from models.measure import row_losses
from models.snapshot import pack
from models.spec import Blend, Categorical, Features, Label, Learner, ModelSpec, Numeric, Optimiser, Rates
from stream_app import live, replay, tune
from stream_app.learn import Core
from stream_app.registry import Registry
from stream_app.score import Prequential
from tests import streams
from tests.line import Line
from tests.stream_app.test_learn import Record, core_of, fingerprint, play, records_of, resumed, said_of, stopped

TASKS = ("multiclass", "regression")
CLASSES: tuple[int | str, ...] = ("calm", 1, 2, "late", "lost")
EXAMPLES = 4_000
CHANGE = EXAMPLES // 2
"""The example with which the meaning of feature a turns round."""
DELAY_S = 60.0


def spec_of(task: str, name: str = "t", **changes: Any) -> ModelSpec:
    fields: dict[str, Any] = {
        "name": name,
        "task": task,
        "label": Label(name="y", classes=CLASSES if task == "multiclass" else (), wait_s=500.0),
        "features": Features(
            numeric={"a": Numeric(), "b": Numeric()},
            categorical={"c": Categorical(size=16, dim=2)},
            rates=Rates(half_lives_s=(60.0, 600.0), keys=((), ("c",)), slots=64),
        ),
        "learner": Learner(kind="torch", hidden=(32,), batch_records=32),
        "optimiser": Optimiser(learning_rate=0.02),
        "blend": Blend(kind="none"),
    }
    return ModelSpec(**fields | changes)


def values(task: str, examples: int = EXAMPLES, *, weighted: bool = False) -> list[dict[str, Any]]:
    """Features at 1-second steps; each label up to a minute later; one in ten never comes."""
    rng = random.Random(task)
    timed: list[tuple[float, int, dict[str, Any]]] = []
    for i in range(examples):
        a, c, time_s = rng.gauss(0, 1), rng.choice("pqrs"), 1_000_000.0 + i
        turned = -a if i >= CHANGE else a
        drawn = turned + "pqrs".index(c) / 2 + rng.gauss(0, 0.1)
        label: Any = CLASSES[min(max(int(drawn + 1.5), 0), 4)] if task == "multiclass" else 300.0 + 40.0 * drawn
        features = {"a": a, "b": None if rng.random() < 0.2 else rng.gauss(0, 1), "c": c}
        timed.append((time_s, 2 * i, {"id": f"e{i}", "key": f"k{i % 3}", "time": time_s, "features": features}))
        if rng.random() >= 0.1:
            at_s = time_s + rng.uniform(0.5, DELAY_S)
            record = {"id": f"e{i}", "key": f"k{i % 3}", "label": label, "label_time": at_s}
            timed.append((at_s, 2 * i + 1, record | ({"weight": rng.choice((0.5, 1, 3))} if weighted else {})))
    return [record for _, _, record in sorted(timed, key=lambda t: t[:2])]


@cache
def records(task: str) -> tuple[Record, ...]:
    return tuple(records_of(values(task)))


def scored(core: Core, part: Sequence[Record]) -> dict[str, float]:
    """How good it is on these records alone, learning on."""
    core.score = Prequential(core.spec.task, len(core.spec.label.classes))
    play(core, part, range(part[0].offset, part[-1].offset, 320))
    return core.metrics()


def assert_learned(task: str, metrics: dict[str, float]) -> None:
    if task == "multiclass":
        assert metrics["accuracy"] > 0.6 > 0.4 > max(metrics["majority_accuracy"], metrics["nochange_accuracy"])
        assert metrics["log_loss"] < 0.6 * metrics["majority_log_loss"]
        assert metrics["calibration_error"] < 0.15
        assert metrics["macro_f1"] > 0.5
        assert metrics["auc"] > 0.9
    else:
        assert metrics["r2"] > 0.85 > 0.1 > max(metrics["majority_r2"], metrics["nochange_r2"])
        assert metrics["mae"] < 0.4 * metrics["majority_mae"]
        assert metrics["kappa_temporal"] > 0.5


@pytest.mark.parametrize("task", TASKS)
def test_it_is_learned_and_a_change_is_noticed_and_learned_too(task: str) -> None:
    all_, changed_at = records(task), 2 * CHANGE - 300
    core = core_of(spec_of(task), reference=False)
    outs = play(core, all_[:2_000], range(0, 2_000, 320))
    assert not any(drift.worse for out in outs for drift in out.drifts)
    assert_learned(task, scored(core, all_[2_000:changed_at]))
    outs = play(core, all_[changed_at : changed_at + 1_500], range(0, 10_000, 320))
    assert any(drift.worse for out in outs for drift in out.drifts)
    play(core, all_[changed_at + 1_500 : -1_500])
    assert_learned(task, scored(core, all_[-1_500:]))


@pytest.mark.parametrize("task", TASKS)
def test_a_stop_leaves_no_trace_and_a_server_says_what_the_learner_says(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DriftWatch, "add", lambda watch, errors: None)  # how the first steps get better is a change too
    spec, all_ = spec_of(task), records(task)[:3_000]
    steady = core_of(spec, reference=False)
    said = said_of(play(steady, all_[:2_000]))
    envelope, data = stopped(steady, Registry(str(tmp_path)))
    again = resumed(spec, envelope, data, all_, said)
    assert len(again.waiting) > 20
    for core in (steady, again):
        play(core, all_[2_000:], range(0, 3_000, 320))
    assert fingerprint(again) == fingerprint(steady)

    envelope, data = stopped(again, Registry(str(tmp_path)))
    model = live.prepare(data, envelope)
    rows = [{"a": 0.5, "c": "q"}, {"a": -1.0, "b": 2.0, "c": "never seen"}, {}]
    raw = again.encoder.raw_of(rows)
    x = again.encoder.standardise(again.encoder.dense(raw, np.full(3, model.newest_s)))
    assert model.predict(rows) == pytest.approx(again.learner.predict(x, raw.categories), rel=1e-4, abs=1e-4)
    assert not model.prior_only
    if task == "multiclass":
        assert model.predict(rows).sum(axis=1) == pytest.approx(1.0, abs=1e-5)
        assert {c.name for c in envelope.classes} == set(map(str, CLASSES))
        assert sum(c.support for c in envelope.classes) == again.counts["learned"]
    else:
        assert envelope.classes == ()


@pytest.mark.parametrize("task", TASKS)
def test_wrong_records_are_set_aside_with_a_reason_and_labels_of_unknown_ids_are_counted(task: str) -> None:
    good = values(task, 100)
    label = {"id": "w", "label_time": 1_000_001.0}
    wrong: list[tuple[object, str]] = [
        (label | {"label": [1, 2]}, "got `array` - at `$.label`"),
        (label | {"label": True}, "got `bool` - at `$.label`"),
        (b'{"id":"w","label_time":1,"label":NaN}', "malformed"),
        (b'{"id":"w","label_time":1,"label":Infinity}', "malformed"),
        (b'{"id":"w","time":1,"features":{"a":NaN}}', "malformed"),
        ({"id": "w", "time": 1.0, "features": {"a": "high"}}, "Expected `float | null`, got `str`"),
        (label | {"label": "1"}, "wanted one of" if task == "multiclass" else "Expected `float | null`, got `str`"),
    ]
    if task == "multiclass":
        wrong.append((label | {"label": 7}, "'label' is 7, wanted one of 'calm', 1, 2, 'late', 'lost'"))
    else:
        wrong.append((label | {"label": 1e39}, "wanted a number that float32 can hold"))
    known: Any = CLASSES[0] if task == "multiclass" else 1.0
    unknown = {"id": "nobody", "label": known, "label_time": 1_000_000.0}
    end = {"id": "end", "time": 1_010_000.0, "features": {}}
    core = core_of(spec_of(task), reference=False)
    out = core.take(0, records_of([unknown, *(value for value, _ in wrong), *good, end]))
    assert len(out.bad) == len(wrong) == core.counts["dead_letters"]
    for bad, (_, reason) in zip(out.bad, wrong, strict=True):
        assert reason in bad.reason
    assert core.counts["orphans"] == 1
    assert core.counts["learned"] == sum("label" in value for value in good)


@pytest.mark.parametrize("task", TASKS)
def test_over_a_broker_a_successor_and_the_tuner_find_the_weights_again(
    task: str, embedded: str, app_name: str, tmp_path: Path
) -> None:
    line = Line(embedded, spec_of(task, app_name), tmp_path)
    stream = values(task, 600, weighted=True)
    streams.produce(embedded, line.topics.events, stream)
    seeder = line.seeder()
    first = seeder.seed()
    line.learn(first, {0: 700})
    head, _ = line.publish(seeder, first)
    arrays = first.core.state()
    line.learn(first)  # what it said is in the log, what it learned is not
    successor = line.seeder().seed()
    line.learn(successor)
    challenger = tune.Challenger(line.spec, tune.Base(head, arrays), line.reader)
    steps = list(challenger.walk({0: len(stream)}))

    assert successor.head.id == head.id
    for other in (successor.core, challenger.core):
        assert pack(other.state(), {}) == pack(first.core.state(), {})
    given = {r["id"]: r["weight"] for r in stream if "label" in r}
    assert [len(s.target) for s in steps if s.weights is None] == []
    for step in steps:
        challenger.compare(step)
    weights = np.concatenate([s.weights for s in steps])
    assert set(weights) == {0.5, 1.0, 3.0}
    losses = np.concatenate([row_losses(task, s.said, s.target) for s in steps])
    assert challenger.labels == len(given) - head.labels
    assert challenger.losses[1] == pytest.approx(np.average(losses, weights=weights))
    examples = replay.recent_examples(line.spec, line.reader, line.topics, head, rows=200)
    assert examples.weights is not None
    assert len(examples.weights) == len(examples.target) == 200
    assert set(examples.weights) == {0.5, 1.0, 3.0}
    line.close()

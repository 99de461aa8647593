import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.compress import Compressed, compress
from models.export import to_onnx
from models.measure import Examples, Task, mean_loss
from models.quantise import to_int8
from models.runtime import RUNTIME, Session
from models.spec import ModelSpec
from tests.models.test_export import parameters_of, rows_of, spec_of

SPEC = spec_of()


def graph_and_examples(spec: ModelSpec, rows: int) -> tuple[bytes, Examples]:
    """Targets are drawn from the network's own answers, so that its loss is as small as can be."""
    rng = np.random.default_rng(0)
    theta, mean, std = parameters_of(spec, rng)
    numeric, categories = rows_of(spec, rng, rows, mean, std)
    data = to_onnx(spec, theta, mean, std)
    scores = Session(data).run(numeric, categories)
    target: NDArray[np.generic]
    match spec.task:
        case "binary":
            target = rng.random(rows) < scores[:, 0]
        case "multiclass":
            target = (scores.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1).clip(max=2)
        case _:
            target = scores[:, 0] + rng.normal(0, 0.1, rows)
    return data, Examples(numeric, categories, target.astype(np.float32))


def test_it_calibrates_on_the_older_half_and_measures_on_the_newer() -> None:
    data, examples = graph_and_examples(SPEC, 401)
    found = compress(SPEC, data, examples, rounds=3)
    assert found.rows == 201
    assert found.data == to_int8(data, examples.numeric[:200], examples.categories[:200])
    unseen = examples.part(slice(200, None))
    for graph, loss in ((found.data, found.loss), (data, found.fp32_loss)):
        scores = Session(graph).run(unseen.numeric, unseen.categories)
        assert loss == mean_loss("binary", scores, unseen.target)


def test_it_says_what_it_measured() -> None:
    data, examples = graph_and_examples(SPEC, 100)
    found = compress(SPEC, data, examples, batch=32, rounds=3)
    assert (found.kind, found.runtime, found.batch) == ("int8", RUNTIME, 32)
    assert (found.bytes, found.fp32_bytes) == (len(found.data), len(data))
    assert found.latency_us > 0
    assert found.fp32_latency_us > 0
    assert found.loss_delta == found.loss - found.fp32_loss


def test_the_batch_is_never_larger_than_the_rows_to_measure_on() -> None:
    data, examples = graph_and_examples(SPEC, 10)
    assert compress(SPEC, data, examples, batch=32, rounds=1).batch == 5


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_every_task_stays_within_a_small_budget(task: str) -> None:
    spec = spec_of(task, hidden=(64, 64))
    data, examples = graph_and_examples(spec, 2000)
    found = compress(spec, data, examples, rounds=3)
    assert found.within(0.002)


def test_it_wants_two_rows() -> None:
    data, examples = graph_and_examples(SPEC, 1)
    with pytest.raises(ValueError, match=r"^1 labelled rows, wanted at least 2: some to calibrate"):
        compress(SPEC, data, examples)


def measured(loss: float, fp32_loss: float) -> Compressed:
    return Compressed(
        kind="int8",
        data=b"",
        bytes=1,
        fp32_bytes=4,
        runtime=RUNTIME,
        batch=1,
        latency_us=10.0,
        fp32_latency_us=12.0,
        loss=loss,
        fp32_loss=fp32_loss,
        rows=10,
    )


losses = st.floats(0, 20)


@given(losses, losses, st.floats(-1, 1), st.floats(0, 1))
def test_whoever_keeps_to_a_budget_keeps_to_a_larger_one(
    loss: float, fp32_loss: float, budget: float, more: float
) -> None:
    found = measured(loss, fp32_loss)
    assert found.within(found.loss_delta)
    assert not found.within(budget) or found.within(budget + more)


def test_a_loss_that_is_no_number_is_within_no_budget() -> None:
    assert not measured(math.nan, 0.5).within(math.inf)


def test_equal_latency_is_not_faster() -> None:
    found = measured(0.5, 0.5)
    assert found.faster
    assert not msgspec.structs.replace(found, latency_us=12.0).faster


@pytest.mark.parametrize(
    ("task", "scores", "target", "wanted"),
    [
        ("binary", [[0.8], [0.4]], [1, 0], -(math.log(0.8) + math.log(0.6)) / 2),
        ("multiclass", [[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]], [1, 2], -math.log(0.5 * 0.8) / 2),
        ("regression", [[1.0], [5.0]], [2.0, 2.0], 5.0),
        ("binary", [[0.0]], [1], -math.log(1e-6)),
        ("binary", [[1.0]], [1], -math.log(1 - 1e-6)),
    ],
)
def test_mean_loss_is_as_by_hand(task: Task, scores: list[list[float]], target: list[float], wanted: float) -> None:
    found = mean_loss(task, np.array(scores, np.float32), np.array(target, np.float32))
    assert found == pytest.approx(wanted, rel=1e-5)


def test_mean_loss_of_weighted_rows_is_their_weighted_mean() -> None:
    scores, target = np.array([[1.0], [5.0]]), np.array([2.0, 2.0])
    assert mean_loss("regression", scores, target, np.array([3.0, 1.0])) == pytest.approx((3 * 1 + 1 * 9) / 4)


def test_regressions_loss_is_a_share_of_the_targets_variance() -> None:
    """A budget in squares of the label's unit would mean another thing for minutes than for seconds."""
    spec = spec_of("regression")
    data, examples = graph_and_examples(spec, 400)
    unseen = examples.part(slice(200, None))
    found = compress(spec, data, examples, rounds=3)
    squared = mean_loss("regression", Session(data).run(unseen.numeric, unseen.categories), unseen.target)
    assert found.fp32_loss == pytest.approx(squared / unseen.target.var(dtype=np.float64))
    assert 0.0 < found.fp32_loss < 0.2 < squared / 0.01


@pytest.mark.parametrize(("scores", "targets"), [(0, 0), (2, 3)])
def test_mean_loss_wants_as_many_scores_as_targets(scores: int, targets: int) -> None:
    with pytest.raises(ValueError, match=f"^{scores} rows of scores, {targets} targets; wanted"):
        mean_loss("binary", np.zeros((scores, 1)), np.zeros(targets))

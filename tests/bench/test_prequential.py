import math

import pytest

from bench._prequential import FLOOR, batches, delayed_blocks, per_event, score
from bench._streams import Stream, StreamError


class Recorder:
    """Writes down what it was asked, and is always sure of class 0."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def predict_one(self, x: dict[str, float | str]) -> dict[int, float]:
        self.calls.append(f"p{x['i']:.0f}")
        return {0: 1.0}

    def learn_one(self, x: dict[str, float | str], y: float) -> None:
        self.calls.append(f"l{x['i']:.0f}")

    def predict_many(self, rows: list[dict[str, float | str]]) -> list[dict[int, float]]:
        self.calls.append("P" + "".join(f"{x['i']:.0f}" for x in rows))
        return [{0: 1.0} for _ in rows]

    def learn_many(self, rows: list[dict[str, float | str]], labels: list[float]) -> None:
        self.calls.append("L" + "".join(f"{x['i']:.0f}" for x in rows))


def stream(labels: list[int]) -> Stream:
    return Stream("s", "classification", [{"i": float(i)} for i in range(len(labels))], labels, ("a", "b"))


def test_each_event_is_predicted_before_it_is_learned() -> None:
    learner = Recorder()
    assert per_event(learner, stream([0, 1, 0])).accuracy == pytest.approx(200 / 3)
    assert learner.calls == ["p0", "l0", "p1", "l1", "p2", "l2"]


def test_late_labels_are_learned_so_many_events_later() -> None:
    learner = Recorder()
    per_event(learner, stream([0, 1, 0, 1]), label_delay=2)
    assert learner.calls == ["p0", "p1", "p2", "l0", "p3", "l1"]


def test_what_nobody_could_know_is_not_scored() -> None:
    assert per_event(Recorder(), stream([1, 1, 0, 0]), label_delay=2).accuracy == 100.0
    with pytest.raises(StreamError, match="'s' has 2 events, wanted more than the label delay of 2"):
        per_event(Recorder(), stream([0, 1]), label_delay=2)


def test_batches_are_predicted_whole_before_they_are_learned() -> None:
    learner = Recorder()
    batches(learner, stream([0, 1, 0]), size=2)
    assert learner.calls == ["P01", "L01", "P2", "L2"]


def test_single_steps_can_wait_for_their_labels_as_batches_do() -> None:
    learner = Recorder()
    delayed_blocks(learner, stream([0, 1, 0]), size=2)
    assert learner.calls == ["p0", "p1", "l0", "l1", "p2", "l2"]


def test_log_loss_is_of_the_true_class_after_scaling_to_one() -> None:
    found = score(stream([0, 1]), [{0: 3.0, 1: 1.0}, {0: 1.0, 1: 1.0}], 1.0)
    assert found.log_loss == pytest.approx(-(math.log(0.75) + math.log(0.5)) / 2)


@pytest.mark.parametrize("answer", [{}, {0: 1.0}, {0: 1.0, 1: 0.0}, {0: math.nan, 1: math.nan}, {0: 0.0, 1: 0.0}])
def test_a_class_that_the_answer_lacks_has_the_floor(answer: dict[int, float]) -> None:
    assert score(stream([1]), [answer], 1.0).log_loss == pytest.approx(-math.log(FLOOR))


def test_an_empty_answer_is_wrong() -> None:
    assert score(stream([0]), [{}], 1.0).accuracy == 0.0


def test_a_regression_has_its_mean_absolute_error() -> None:
    found = score(Stream("s", "regression", [{}, {}], [1.0, 5.0]), [2.0, 2.0], 0.5)
    assert found == (None, None, 2.0, 4.0)

"""What a world calls the best answer is the truth of its labels; who answers so has no gap."""

import numpy as np
import pytest

from bench import worlds
from bench.worlds import SHAPES, WORLDS, Played, drawn, gaps, shaped

PLAYED = {name: drawn(world, 1500) for name, world in WORLDS.items() if name in ("seven_uneven", "changing_three")}
PLAYED |= {"three_gauss": shaped(*SHAPES["three_gauss"], 1500)}


@pytest.mark.parametrize("name", PLAYED)
def test_best_answers_are_as_often_right_as_they_say(name: str) -> None:
    stream, best = PLAYED[name]
    y = np.array(stream.labels)
    np.testing.assert_allclose(best.sum(axis=1), 1)
    assert (best.argmax(axis=1) == y).mean() == pytest.approx(best.max(axis=1).mean(), abs=0.04)
    np.testing.assert_allclose(np.bincount(y) / len(y), best.mean(axis=0), atol=0.04)


def test_a_seed_makes_one_world() -> None:
    again = drawn(WORLDS["changing_three"], 1500)
    assert again.stream == PLAYED["changing_three"].stream
    assert drawn(WORLDS["changing_three"]._replace(seed=0), 1500).stream != again.stream


def test_text_is_text() -> None:
    assert len(drawn(WORLDS["six_text"], 10).stream.texts) == 10


def test_a_model_that_knows_the_truth_has_no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, best = PLAYED["changing_three"]

    class Knows:
        def __init__(self, *_: object) -> None:
            self.at = -1

        def predict_one(self, _: object) -> dict[int, float]:
            self.at += 1
            return dict(enumerate(best[self.at]))

        def learn_one(self, *_: object) -> None: ...

        def best_member(self) -> tuple[str, float]:
            return "truth", -float(np.log(best[np.arange(len(best)), stream.labels]).sum())

    monkeypatch.setattr(worlds, "Ours", Knows)
    monkeypatch.setattr(worlds, "LATER", 500)
    found = gaps(Played(stream, best))
    assert [found[name] for name in ("points", "nats", "points_later", "nats_later", "its_nats")] == [0] * 5

from math import inf, log, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.search import RandomSearch, Search

SPACE = {"learning_rate": (0.0005, 0.02), "half_life_events": (20_000.0, 2_000_000.0)}
NOW = {"learning_rate": 0.003, "half_life_events": 200_000.0}


def search(seed: int = 0) -> RandomSearch:
    return RandomSearch(SPACE, seed, incumbent=NOW)


def test_it_is_a_search_and_asks_the_incumbent_first() -> None:
    found: Search = search()
    assert found.best == (NOW, inf)
    assert found.ask() == NOW
    assert found.ask() != NOW


def test_same_seed_same_path_whatever_is_told() -> None:
    a, b, c = search(1), search(1), search(2)
    asked = [a.ask() for _ in range(20)]
    b.tell(NOW, 0.1)
    assert asked == [b.ask() for _ in range(20)]
    assert asked != [c.ask() for _ in range(20)]


def test_candidates_are_log_uniform() -> None:
    found = search()
    found.ask()
    rates = [found.ask()["learning_rate"] for _ in range(4_000)]
    assert all(0.0005 <= rate <= 0.02 for rate in rates)
    shares = [(log(rate) - log(0.0005)) / (log(0.02) - log(0.0005)) for rate in rates]
    for quarter in range(4):
        inside = sum(quarter / 4 <= share < (quarter + 1) / 4 for share in shares)
        assert inside == pytest.approx(1_000, abs=120)


@given(st.lists(st.floats(), max_size=20))
def test_the_best_is_the_lowest_finite_loss(losses: list[float]) -> None:
    found = search()
    told = [(found.ask(), loss) for loss in losses]
    for candidate, loss in told:
        found.tell(candidate, loss)
    finite = [(c, x) for c, x in told if abs(x) < inf]
    assert found.best == (min(finite, key=lambda t: t[1]) if finite else (NOW, inf))


def test_a_loss_that_is_not_finite_has_lost() -> None:
    found = search()
    found.tell(found.ask(), nan)
    other = found.ask()
    found.tell(other, 0.7)
    found.tell(found.ask(), -inf)
    assert found.best == (other, 0.7)


def test_what_is_given_and_returned_is_a_copy() -> None:
    now = dict(NOW)
    found = RandomSearch(SPACE, 0, incumbent=now)
    now["learning_rate"] = 9.0
    asked = found.ask()
    found.tell(asked, 0.5)
    asked["learning_rate"] = 9.0
    found.best[0]["learning_rate"] = 9.0
    assert found.best == (NOW, 0.5)


def test_a_range_of_one_value_is_that_value() -> None:
    found = RandomSearch({"a": (0.1, 0.1)}, 0, incumbent={"a": 5.0})
    assert [found.ask() for _ in range(3)] == [{"a": 5.0}, {"a": 0.1}, {"a": 0.1}]


def test_wrong_ranges_and_names_are_refused() -> None:
    for low, high in ((0.0, 1.0), (2.0, 1.0), (nan, 1.0), (1.0, inf)):
        with pytest.raises(ValueError, match=r"range of a is \(.*\), wanted 0 < low <= high"):
            RandomSearch({"a": (low, high)}, 0, incumbent={"a": 1.0})
    with pytest.raises(ValueError, match=r"candidate has \['b'\], wanted \['a'\]"):
        RandomSearch({"a": (1.0, 2.0)}, 0, incumbent={"b": 1.0})
    with pytest.raises(ValueError, match=r"candidate has \[\], wanted \['half_life_events', 'lear"):
        search().tell({}, 0.1)

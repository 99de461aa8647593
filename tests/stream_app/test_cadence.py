"""When the next version is due: as soon as pays, within limits. Time is a number here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.cadence import Cadence

TIMES = st.floats(1e-3, 1e3)


def made(every_s: float = 1.0, least_s: float = 0.1, share: float = 0.1) -> Cadence:
    return Cadence(every_s=every_s, least_s=least_s, share=share)


def test_the_first_version_is_due_at_once() -> None:
    assert made().due_s < 0.0


def test_cheap_versions_come_as_often_as_they_may() -> None:
    cadence = made()
    cadence.begin(5.0)
    cadence.cost(0.002)
    assert cadence.due_s == pytest.approx(5.1)


def test_what_a_version_costs_is_a_share_of_the_time_between_two() -> None:
    cadence = made()
    cadence.begin(5.0)
    cadence.cost(0.03)
    assert cadence.due_s == pytest.approx(5.3)
    cadence.begin(5.3)
    assert cadence.share == pytest.approx(0.1)


def test_dear_versions_come_all_the_same() -> None:
    cadence = made()
    cadence.begin(5.0)
    cadence.cost(60.0)
    assert cadence.due_s == pytest.approx(6.0)


def test_a_longest_time_below_the_shortest_counts() -> None:
    cadence = made(every_s=0.05)
    cadence.begin(5.0)
    assert cadence.due_s == pytest.approx(5.05)


def test_one_slow_version_moves_the_period_little_and_many_do() -> None:
    cadence = made()
    cadence.cost(0.02)
    cadence.cost(0.07)
    assert cadence.period_s == pytest.approx(0.3)
    for _ in range(100):
        cadence.cost(0.07)
    assert cadence.period_s == pytest.approx(0.7)


def test_it_can_be_put_off() -> None:
    cadence = made()
    cadence.begin(5.0)
    cadence.postpone(7.0)
    assert cadence.due_s == pytest.approx(7.0)


def test_a_version_waits_while_what_is_left_takes_longer_than_the_longest_time() -> None:
    cadence = made()
    cadence.begin(5.0)
    assert cadence.backlog_due_s(5.2, learned=1_000, left=5_100) == pytest.approx(6.0)
    assert cadence.backlog_due_s(5.2, learned=1_000, left=4_900) == pytest.approx(5.1)


def test_the_first_version_is_due_at_once_in_a_backlog() -> None:
    assert made().backlog_due_s(5.0, learned=1, left=1_000_000) < 0.0


@given(every_s=TIMES, least_s=TIMES, share=st.floats(0.01, 1.0), costs_s=st.lists(TIMES, max_size=5))
def test_the_period_stays_within_its_limits(every_s: float, least_s: float, share: float, costs_s: list[float]) -> None:
    cadence = made(every_s, least_s, share)
    for cost_s in costs_s:
        cadence.cost(cost_s)
    assert min(every_s, least_s) <= cadence.period_s <= every_s

"""The parts that the profile is asked for are there, and page and picture hold what was measured."""

from xml.etree import ElementTree

import pytest

from bench import _growth_page, growth

FOUND = {"numeric": {4: 200_000.0, 16: 150_000.0}, "width": {16: 210_000.0, 64: 90_000.0}}
SHARES = {"middle": {"decode": 0.25, "rest": 0.75}, "width 64": {"decode": 0.1, "rest": 0.9}}


def test_each_part_is_found_in_the_profile() -> None:
    shape = growth.MIDDLE._replace(numeric=2, categorical=1, width=4)
    shares = growth.shares(shape, records=4 * growth.LABEL_LATER)
    assert [part for part, share in shares.items() if share == 0.0] == []
    assert sum(shares.values()) == pytest.approx(1.0, abs=0.1)


def test_a_fetch_is_one_partitions_and_none_is_left_out() -> None:
    shape = growth.MIDDLE._replace(numeric=1, categorical=1, partitions=4)
    taken = growth.fetches(shape, 10_000)
    assert {p for p, _ in taken} == set(range(4))
    assert sum(len(records) for _, records in taken) == 10_000
    for p in range(4):
        offsets = [r.offset for q, records in taken if q == p for r in records]
        assert offsets == list(range(len(offsets)))


def test_a_cost_in_proportion_has_exponent_one() -> None:
    assert growth.exponent({1: 900.0, 16: 800.0, 64: 200.0}) == pytest.approx(1.0)
    assert growth.exponent({16: 200.0, 64: 200.0}) == pytest.approx(0.0)


def test_every_configuration_is_a_spec() -> None:
    for _, _, shape in growth.shapes():
        assert shape.spec().learner.hidden == (shape.width,)


def test_the_picture_has_a_panel_for_each_axis() -> None:
    root = ElementTree.fromstring(_growth_page.picture(FOUND))
    titles = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text") if t.get("class") == "name"]
    assert titles == ["numeric features", "units of the hidden layer"]
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 4


def test_the_table_has_all_that_was_measured() -> None:
    text = _growth_page.table(FOUND, SHARES, {1: 30_000.0, 4: 28_000.0}, "Apache Kafka")
    assert "| numeric features | 4: 200,000 · 16: 150,000 |" in text
    assert "on Apache Kafka, flights, records per second | 1: 30,000 · 4: 28,000 |" in text
    assert "| decode | 25 | 10 |" in text

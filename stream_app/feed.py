"""A file of examples goes to Kafka: CSV or JSON lines -> [feed] -> producer -> events topic."""

import csv
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec

from models.spec import ModelSpec
from stream_app.errors import ExampleError, SettingsError
from stream_app.events import Topics
from stream_app.producer import EventProducer

CHUNK_ROWS = 8_192
SAY_EVERY_S = 5.0


class Named(NamedTuple):
    """What the columns of a CSV file are called that are no features; one that is not there says nothing."""

    id: str = "id"
    time: str = "time"
    label: str = "label"
    label_time: str = "label_time"
    weight: str = "weight"
    key: str = "key"


class _Line(msgspec.Struct):
    """One line of JSON, as on the events topic."""

    id: str
    key: str | None = None
    time: float | None = None
    features: dict[str, float | int | str | None] | None = None
    label: int | float | str | None = None
    label_time: float | None = None
    weight: float | None = None


def run(spec: ModelSpec, *, bootstrap_servers: str, path: Path, topic: str | None, named: Named) -> int:
    """Send a whole file and wait until it is acknowledged; the last line printed is one JSON object.

    Args:
        spec: tells which columns of a CSV file are features, and of which kind.
        bootstrap_servers: of the broker.
        path: ends with .csv or .jsonl.
        topic: default: the model's events topic.
        named: columns of a CSV file.

    Raises:
        SettingsError: the file cannot be read, or is of neither kind.
        ExampleError: a line is no example; names it. The lines before it may have been sent.
        DeliveryError: not all was acknowledged.
    """
    kind = path.suffix.lower()
    if kind not in (".csv", ".jsonl"):
        raise SettingsError(f"--file: got {str(path)!r}, wanted a name that ends with .csv or .jsonl")
    try:
        file = path.open(newline="", encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(f"--file: {error}, wanted a readable file") from error
    began_s = time.monotonic()
    with file, EventProducer(bootstrap_servers, topic or Topics.of(spec.name).events) as producer:
        say = _Progress(producer)
        for _ in _csv(producer, file, spec, named) if kind == ".csv" else _jsonl(producer, file):
            say()
        producer.flush()
        progress, seconds = producer.progress, time.monotonic() - began_s
    rate = round(progress.acknowledged / seconds, 1)
    done = {"examples": progress.acknowledged, "records": progress.records, "seconds": round(seconds, 3)}
    print(json.dumps(done | {"examples_per_s": rate}), flush=True)
    return 0


def _jsonl(producer: EventProducer, file: IO[str]) -> Iterator[None]:
    decode = msgspec.json.Decoder(_Line).decode
    for number, text in enumerate(file, 1):
        if text.strip():
            try:
                line = decode(text)
                producer.send(
                    line.id,
                    features=line.features,
                    time_s=line.time,
                    label=line.label,
                    label_time_s=line.label_time,
                    weight=line.weight,
                    key=line.key,
                )
            except (msgspec.MsgspecError, ExampleError) as error:
                raise ExampleError(f"{file.name} line {number}: {error}") from error
        if number % CHUNK_ROWS == 0:
            yield


def _csv(producer: EventProducer, file: IO[str], spec: ModelSpec, named: Named) -> Iterator[None]:
    reader = csv.reader(file)
    try:
        header = next(reader, [])
        if named.id not in header:
            raise ExampleError(f"{file.name} line 1: the columns are {header}, wanted one named {named.id!r}")
        readers = _readers(spec, named, header)
        while rows := list(itertools.islice(reader, CHUNK_ROWS)):
            columns = _columns(rows, header, readers, name=file.name, first=reader.line_num - len(rows) + 1)
            _send(producer, columns, spec, named)
            yield
    except (csv.Error, UnicodeDecodeError) as error:
        raise ExampleError(f"{file.name} line {reader.line_num + 1}: {error}, wanted CSV in UTF-8") from error


def _readers(spec: ModelSpec, named: Named, header: list[str]) -> dict[str, Callable[[str], Any]]:
    """Column -> what makes a value of its text."""
    classes = {str(c): c for c in spec.label.classes}

    def class_of(text: str) -> int | str:
        if text not in classes:
            raise ValueError(f"wanted one of {', '.join(classes)}")
        return classes[text]

    wanted: dict[str, Callable[[str], Any]] = dict.fromkeys(spec.features.numeric, _number)
    wanted |= dict.fromkeys(spec.features.categorical, str)
    wanted |= {named.id: str, named.key: str, named.time: _time, named.label_time: _time, named.weight: _number}
    wanted[named.label] = class_of if classes else _number
    return {name: read for name, read in wanted.items() if name in header}


def _columns(
    rows: list[list[str]], header: list[str], readers: Mapping[str, Callable[[str], Any]], *, name: str, first: int
) -> dict[str, list[Any]]:
    """The values of each column; ``name`` and the number of the ``first`` line say where something is wrong."""
    for i, row in enumerate(rows, first):
        if len(row) != len(header):
            raise ExampleError(f"{name} line {i}: {len(row)} values, wanted {len(header)}")
    found: dict[str, list[Any]] = {}
    for column, read in readers.items():
        at, values = header.index(column), []
        for i, row in enumerate(rows, first):
            try:
                values.append(read(row[at]) if row[at] else None)
            except ValueError as error:
                raise ExampleError(f"{name} line {i}: {column!r} is {row[at]!r}, {error}") from error
        found[column] = values
    return found


def _send(producer: EventProducer, columns: Mapping[str, list[Any]], spec: ModelSpec, named: Named) -> None:
    features = {n: columns[n] for n in (*spec.features.numeric, *spec.features.categorical) if n in columns}
    keys = columns.get(named.key)
    producer.send_columns(
        columns[named.id],
        features=features if named.time in columns else None,
        time_s=_numbers(columns.get(named.time)),
        label=columns.get(named.label),
        label_time_s=_numbers(columns.get(named.label_time)),
        weight=_numbers(columns.get(named.weight)),
        keys=None if keys is None else [k or i for k, i in zip(keys, columns[named.id], strict=True)],
    )


def _numbers(column: list[float | None] | None) -> list[float] | None:
    return None if column is None else [math.nan if v is None else v for v in column]


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.inf
    if math.isinf(number):
        raise ValueError("wanted a number")
    return number


def _time(text: str) -> float:
    """Seconds since the epoch, or ISO 8601; without a zone it is UTC."""
    try:
        return _number(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("wanted seconds since the epoch or ISO 8601") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class _Progress:
    """A line on stderr every few seconds."""

    def __init__(self, producer: EventProducer) -> None:
        self._producer, self._said_s = producer, time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._said_s >= SAY_EVERY_S:
            self._said_s = time.monotonic()
            p = self._producer.progress
            print(f"produce: {p.accepted:,} examples, {p.acknowledged:,} acknowledged", file=sys.stderr, flush=True)

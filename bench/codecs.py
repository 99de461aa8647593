"""How fast do records become columns, on one core? flights -> each encoding -> rows/s, bytes a row.

Every encoding says the same flights; all are decoded in turns, in one process, records in and checked columns out,
categories hashed. `msgspec` is what reads JSON where the scanner does not: parsed in bulk, checked and hashed by row.
`raw` is what comes next: columns to the arrays that a model takes. `python -m bench.codecs --flights 40000 --rounds 9`
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from examples.flights.data import FeaturesRecord, load, stream
from models.features import FeatureEncoder
from models.hashes import HashedEncoder
from models.spec import ModelSpec, read_spec
from stream_app.codecs.batch import pack
from stream_app.codecs.gather import Example, example, gathered
from stream_app.codecs.mixed import Codec
from stream_app.decode import Decoder
from stream_app.events import CONTENT_TYPE, ContentType
from stream_app.wire import events_pb2 as wire

CHUNK = 4_096


class Record(NamedTuple):
    """As Kafka's clients give it."""

    offset: int
    timestamp: int
    value: bytes
    headers: Sequence[tuple[str, bytes]]


def as_protobuf(e: Example) -> bytes:
    message = wire.Example(id=e.id)
    for name, value in (("time", e.time_s), ("label_time", e.label_time_s), ("weight", e.weight)):
        if value is not None:
            setattr(message, name, value)
    for feature, said in (e.features or {}).items():
        if isinstance(said, str):
            message.features.categorical[feature].text = said
        elif said is not None:
            message.features.numeric[feature] = said
    if isinstance(e.label, int):
        getattr(message, "class").number = e.label
    raw: bytes = message.SerializeToString()
    return raw


def records(values: Sequence[bytes], kind: str) -> list[Record]:
    headers = [(CONTENT_TYPE, kind.encode())] if kind else []
    return [Record(i, 0, value, headers) for i, value in enumerate(values)]


def chunked(found: Sequence[Any], size: int = CHUNK) -> list[Sequence[Any]]:
    return [found[i : i + size] for i in range(0, len(found), size)]


def ways(spec: ModelSpec, examples: Sequence[Example]) -> dict[str, tuple[float, Callable[[], Any]]]:
    """Name -> bytes a row, and what is timed."""
    codec, decoder, encoder, hashed = Codec(spec), Decoder(spec), FeatureEncoder(spec), HashedEncoder(spec)
    codec.warm()
    values = [e.json() for e in examples]
    single = [as_protobuf(e) for e in examples]
    packed = [pack(gathered(part)) for part in chunked(examples)]
    texts, protobuf = chunked(records(values, "")), chunked(records(single, ContentType.PROTOBUF))
    batches = [[r] for r in records(packed, ContentType.BATCH)]
    columns = [codec.decode(part)[0] for part in texts]

    def by_msgspec() -> None:
        for part in texts:
            encoder.raw([e.row for e in decoder.decode(part)[0] if e.row is not None])

    def by_codec(parts: Sequence[Sequence[Record]]) -> Callable[[], None]:
        def decode() -> None:
            for part in parts:
                codec.decode(part)

        return decode

    def to_raw() -> None:
        for part in columns:
            hashed.raw(part.numeric, part.hashes, part.lengths)

    rows = len(examples)
    return {
        "json, msgspec": (sum(map(len, values)) / rows, by_msgspec),
        "json": (sum(map(len, values)) / rows, by_codec(texts)),
        "protobuf": (sum(map(len, single)) / rows, by_codec(protobuf)),
        "batch": (sum(map(len, packed)) / rows, by_codec(batches)),
        "raw": (0.0, to_raw),
    }


def measured(spec: ModelSpec, examples: Sequence[Example], rounds: int) -> dict[str, dict[str, float]]:
    """Medians over the rounds, in CPU time of this process."""
    all_ways = ways(spec, examples)
    seconds: dict[str, list[float]] = {name: [] for name in all_ways}
    for _ in range(rounds + 1):
        for name, (_, run) in all_ways.items():
            began_s = time.process_time()
            run()
            seconds[name].append(time.process_time() - began_s)
    return {
        name: {"rows_per_s": round(len(examples) / statistics.median(seconds[name][1:])), "bytes": round(size, 1)}
        for name, (size, _) in all_ways.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--flights", type=int, default=20_480)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    spec, flights = read_spec("examples/flights/model.toml"), load()[: options.flights]
    everything = [_example(r) for r in stream(flights)]
    results = {
        "features": measured(spec, [e for e in everything if e.features is not None], options.rounds),
        "features and labels": measured(spec, everything, options.rounds),
    }
    for kind, found in results.items():
        for name, figures in found.items():
            print(f"{kind:20} {name:14} {figures['rows_per_s']:>12,} rows/s {figures['bytes']:>7} bytes", flush=True)
    print(json.dumps(results))


def _example(record: Any) -> Example:
    if isinstance(record, FeaturesRecord):
        features, time_s = msgspec.to_builtins(record.features), float(record.time)
        said = {"features": features, "time_s": time_s, "label": None, "label_time_s": None}
    else:
        said = {"features": None, "time_s": None, "label": record.label, "label_time_s": float(record.label_time)}
    return example(record.id, key=record.key, weight=None, **said)


if __name__ == "__main__":
    main()

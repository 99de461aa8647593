"""Versions for bench.serving: flights -> [core learns -> version] -> FOLDER, and from there into the real models log.

    python -m bench._serving_versions make FOLDER KIND COUNT          KIND: torch (an MLP 64-64) or mixture (standard)
    python -m bench._serving_versions publish FOLDER SERVERS FIRST COUNT PER_S

``make`` learns WARM records, then EVERY between two versions. Versions are made before anything is measured, so that
nobody learns beside the servers; ``publish`` does what a worker does with them: it announces and reads back. It gives
way to the servers, since a worker has a machine of its own.
"""

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from examples.flights.data import load, stream
from models import learners
from models.spec import Compression, Learner, ModelSpec, Optimiser, read_spec
from models.torch_learner import use_one_thread
from stream_app import versions
from stream_app.events import Topics
from stream_app.learn import Core
from stream_app.logclient import LogClient
from stream_app.modellog import Envelope
from stream_app.parts import Parts
from stream_app.registry import Registry

SPEC = "examples/flights/model.toml"
WARM, EVERY = 40_960, 128
_LEARNERS = {"torch": Learner(kind="torch", hidden=(64, 64)), "mixture": Learner()}


class Record(NamedTuple):
    """What the core needs of a Kafka record."""

    offset: int
    timestamp: int
    value: bytes


class Made(msgspec.Struct, frozen=True):
    """A durable version, ready to be announced."""

    envelope: Envelope
    data: bytes
    """Empty where it is too large to travel inline."""


def spec_of(kind: str) -> ModelSpec:
    """The flights example, learned by ``kind``."""
    spec = read_spec(SPEC)
    if kind == "torch":
        return msgspec.structs.replace(spec, learner=_LEARNERS[kind])
    return msgspec.structs.replace(
        spec, learner=_LEARNERS[kind], optimiser=Optimiser(), compression=Compression(kinds=None)
    )


def registry_of(folder: Path) -> Registry:
    """Where ``stream-app serve --registry FOLDER`` looks."""
    return Registry(str(folder / "flights"))


def made(folder: Path, kind: str, count: int) -> Iterator[Made]:
    """``count`` versions, each learned on the one before."""
    spec, registry = spec_of(kind), registry_of(folder)
    encode = msgspec.json.Encoder().encode
    values = islice(stream(load()), WARM + EVERY * count)
    records = [Record(i, -1, encode(record)) for i, record in enumerate(values)]
    learners.warm(spec)
    core, parts, parent = Core(spec, learners.make(spec)), Parts(registry, versions.FOLDER), None
    core.start({0: 0})
    for at in range(0, WARM, 1024):
        core.take(0, records[at : at + 1024])
    for at in range(WARM, WARM + EVERY * count, EVERY):
        core.take(0, records[at : at + EVERY])
        parent, data = versions.write(
            spec,
            versions.snapshot(core),
            registry,
            parent=parent,
            epoch=1,
            predictions_from={0: 0},
            topic_ids={},
            created_s=time.time(),
            parts=parts,
        )
        yield Made(parent, data if len(data) <= spec.publish.inline_bytes else b"")


def make(folder: Path, kind: str, count: int) -> None:
    encode = msgspec.msgpack.Encoder().encode
    for version in made(folder, kind, count):
        (folder / f"{version.envelope.number}.version").write_bytes(encode(version))


def publish(log: LogClient, folder: Path, numbers: Sequence[int], per_s: float) -> float:
    """Announce versions on schedule; returns how many a second it came to."""
    decode, inline = msgspec.msgpack.Decoder(Made).decode, read_spec(SPEC).publish.inline_bytes
    began_s = time.perf_counter()
    for i, number in enumerate(numbers):
        time.sleep(max(began_s + i / per_s - time.perf_counter(), 0.0))
        version = decode((folder / f"{number}.version").read_bytes())
        if not log.announce("version", version.envelope, version.data, inline_bytes=inline):
            raise RuntimeError(f"version {number} lost against {log.head}, wanted to be the only writer")
    return len(numbers) / max(time.perf_counter() - began_s, 1 / per_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("folder", type=Path)
    making.add_argument("kind", choices=sorted(_LEARNERS))
    making.add_argument("count", type=int)
    publishing = commands.add_parser("publish")
    publishing.add_argument("folder", type=Path)
    publishing.add_argument("servers")
    publishing.add_argument("first", type=int)
    publishing.add_argument("count", type=int)
    publishing.add_argument("per_s", type=float)
    args = parser.parse_args()
    use_one_thread()
    if args.command == "make":
        make(args.folder, args.kind, args.count)
        return
    os.nice(10)
    with closing(LogClient(args.servers, Topics.of("flights").models)) as log:
        log.catch_up()
        print("publishing", flush=True)
        print(publish(log, args.folder, range(args.first, args.first + args.count), args.per_s))


if __name__ == "__main__":
    main()

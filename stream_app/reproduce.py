"""Learn again what versions say they have learned: [models log, registry, topics] -> reproduce -> the same to the bit?

A version is a function of its writer's version before it, of the events and predictions topics, and of the order in
which records took effect, which it says itself (stream_app/course.py). A life is learned again in one core. Where its
beginning is not there any more, it is taken up at a later version, but for a mixture's: of rows that wait for their
labels its members remember what no version has.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.merging import MergeError
from models.spec import ModelSpec, SpecError, from_json
from models.torch_learner import use_one_thread
from stream_app import course, replay, stored
from stream_app.course import Course
from stream_app.errors import BrokerError, RegistryError, StreamAppError
from stream_app.events import Topics
from stream_app.learn import Core, Version
from stream_app.logclient import LogClient
from stream_app.modellog import Envelope
from stream_app.registry import Registry
from stream_app.replay import Reader
from stream_app.seed import core_of
from stream_app.topics import connect

REMEMBERED = 8
"""Lives that are followed at a time."""


class Reproduced(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one version."""

    number: int
    id: str
    result: Literal["same", "differs", "not tried"]
    records: int
    """Read for it."""
    why: str = ""
    """What differs; or why it was not tried."""


class _MissingError(StreamAppError):
    """What it would take is not there."""


@dataclass
class _Life:
    """A replica, once more."""

    core: Core
    stands_on: Version
    """What it goes on from."""


class Reproducer:
    """Follows the lives of one model.

    Args:
        models: the models log.
        registry: of the model.
        reader: of its topics.
        topics: these.
    """

    def __init__(self, models: LogClient, registry: Registry, reader: Reader, topics: Topics) -> None:
        self._log, self._registry, self._reader, self._topics = models, registry, reader, topics
        self._known: dict[int, Envelope] = {}
        self._lives: dict[str, _Life] = {}

    def run(self) -> Iterator[Reproduced]:
        """The versions that the log still names, the oldest first.

        Raises:
            ModelLogError: the log cannot be read.
        """
        changes = self._log.catch_up()
        self._known = {e.number: e for _, e in self._log.fold.history} | {c.head.number: c.head for c in changes}
        for number in sorted(self._known):
            yield self._reproduced(self._known[number])

    def _reproduced(self, envelope: Envelope) -> Reproduced:
        try:
            version, texts = self._read(envelope)
            if course.TEXT not in texts:
                raise _MissingError("it was not learned on the version before it")
            way = msgspec.json.decode(texts[course.TEXT], type=Course)
            life = self._lives.pop(way.life, None)
            if life is None or life.stands_on.envelope.number != way.before:
                life = self._begun(way, from_json(texts["spec"]))
            records = sum([self._step(life, step) for step in way.steps])
        except (RegistryError, BrokerError, SpecError, MergeError, msgspec.ValidationError, _MissingError) as error:
            return Reproduced(number=envelope.number, id=envelope.id, result="not tried", records=0, why=str(error))
        differing = _differing(life.core, version, {step[0] for step in way.steps if isinstance(step, tuple)})
        life.stands_on = version
        self._lives[way.life] = life
        for name in list(self._lives)[:-REMEMBERED]:
            del self._lives[name]
        return Reproduced(
            number=envelope.number,
            id=envelope.id,
            result="differs" if differing else "same",
            records=records,
            why=", ".join(differing),
        )

    def _read(self, envelope: Envelope) -> tuple[Version, dict[str, str]]:
        arrays, texts = stored.read_version(envelope, self._registry)
        return Version(envelope, arrays), texts

    def _version(self, number: int) -> Version:
        if number not in self._known:
            raise _MissingError(f"the log does not name version {number} any more")
        return self._read(self._known[number])[0]

    def _begun(self, way: Course, spec: ModelSpec) -> _Life:
        if way.before != way.began_at and spec.learner.kind == "mixture":
            raise _MissingError(
                f"its writer, a mixture, goes on from its version {way.before}, which was not learned again"
            )
        first = self._version(way.before)
        for p in way.partitions:
            start, _ = first.envelope.replay_from.get(p, (first.envelope.offsets[p], 0.0))
            said_from = first.envelope.predictions_from.get(p, 0)
            for topic, wanted in ((self._topics.events, start), (self._topics.predictions, said_from)):
                if (begin := self._reader.begin(topic, p)) > wanted:
                    raise _MissingError(f"{topic}/{p}: offsets {wanted} to {begin - 1} are deleted")
        core = core_of(spec, first.envelope.hyper)
        core.load(first.arrays, first.envelope, way.partitions)
        replay.rebuild(core, first.envelope, self._reader, self._topics)
        return _Life(core, first)

    def _step(self, life: _Life, step: tuple[int, int] | int) -> int:
        """One step of a course; how many records it took."""
        if isinstance(step, int):
            version = self._version(step)
            life.core.rebase(life.stands_on, version)
            life.stands_on = version
            return 0
        partition, next_offset = step
        state = life.core.partitions[partition]
        records = self._reader.range(self._topics.events, partition, state.next_offset, next_offset)
        if records and records[0].offset > state.next_offset:  # compaction, or a transaction's marker
            life.core.skip(partition, records[0].offset)
        life.core.take(partition, records)
        state.next_offset = next_offset
        return len(records)


def _differing(core: Core, version: Version, partitions: Collection[int]) -> list[str]:
    """What of a version is not what the core has; of partitions only these are its own."""
    mine, theirs = core.state(), version.arrays
    found = sorted(name for name in mine if name not in theirs or not _same(mine[name], theirs[name]))
    for p in sorted(partitions):
        state = core.partitions[p]
        if (state.count, state.xor) != version.envelope.ledger.get(p):
            found.append(f"ledger of partition {p}")
        if state.next_offset != version.envelope.offsets[p]:
            found.append(f"offset of partition {p}")
    return found


def _same(mine: NDArray[np.generic], theirs: NDArray[np.generic]) -> bool:
    """To the bit; at rest, a number is an array of one."""
    return mine.dtype == theirs.dtype and mine.size == theirs.size and mine.tobytes() == theirs.tobytes()


def run(spec: ModelSpec, brokers: str, registry: Registry, *, as_json: bool = False) -> int:
    """Print what came of each version; 1 if one differs."""
    use_one_thread()  # as workers do
    topics = Topics.of(spec.name)
    connect(brokers)
    counts = Counter[str]()
    with closing(LogClient(brokers, topics.models)) as models, closing(Reader(brokers)) as reader:
        for found in Reproducer(models, registry, reader, topics).run():
            counts[found.result] += 1
            print(msgspec.json.encode(found).decode() if as_json else _line(found), flush=True)
    if not as_json:
        print(", ".join(f"{n} {result}" for result, n in sorted(counts.items())) or "no versions yet")
    return int(counts["differs"] > 0)


def _line(found: Reproduced) -> str:
    return f"{found.number:>7}  {found.id}  {found.result:9}  {found.records:>9} records  {found.why}".rstrip()

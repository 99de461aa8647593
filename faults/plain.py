"""The oracle sees: such a stream, such kills, an ordinary Faust app -> [plain] -> lost, duplicated."""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from faults.load import Feeder
from faults.run import broker_of
from faults.scenario import Scenario, scenario
from stream_app.broker import die_with_parent
from stream_app.events import Topics
from stream_app.replay import Reader
from stream_app.topics import create_topics

KILLS, PARTITIONS = 3, 2
STILL_S = 10.0
"""The file has not changed for so long: the app is done."""


class Plain(NamedTuple):
    """What an ordinary app made of a stream."""

    lost: int
    duplicated: int
    kills: int


def plain_scenario(seed: int, *, kafka: bool) -> Scenario:
    """A stream in which nothing is wrong."""
    return scenario(seed, kafka=False)._replace(
        broker="kafka" if kafka else "embedded",
        partitions=PARTITIONS,
        poison=0.0,
        duplicates=0.0,
        early=0.0,
        late=0.0,
        columnar=0.0,
    )


def run(wanted: Scenario, kafka_servers: str, folder: Path) -> Plain:
    """Kill the app a few times while records come; count, against the log, what it has learned in the end."""
    rng, name = random.Random(wanted.seed), f"plain{wanted.seed}"
    topics, file = Topics.of(name), folder / "learned.json"
    folder.mkdir(parents=True)
    with broker_of(wanted, kafka_servers, folder / "broker") as (servers, _):
        create_topics(servers, name, partitions=PARTITIONS, retention_s=86_400, max_record_bytes=65_536)
        feeder = Feeder(wanted, servers, topics.events)
        feeder.start()
        argv = [sys.executable, "-m", "faults.plain_app", servers, name, topics.events, str(file)]
        for _ in range(KILLS):
            app = subprocess.Popen(
                argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent
            )
            _changes(file)
            time.sleep(rng.uniform(2.0, 6.0))
            app.kill()
            app.wait()
        feeder.stop()
        app = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent)
        _changes(file)
        _still(file)
        app.kill()
        app.wait()
        with closing(Reader(servers)) as reader:
            due = _labels(reader, topics.events)
    got = Counter(json.loads(file.read_text()))
    return Plain(sum((due - got).values()), sum((got - due).values()), KILLS)


def _labels(reader: Reader, topic: str) -> Counter[str]:
    found = Counter[str]()
    for p in range(PARTITIONS):
        said = (json.loads(r.value) for r in reader.range(topic, p, 0, reader.end(topic, p)))
        found.update(s["id"] for s in said if "label" in s)
    return found


def _changes(file: Path, within_s: float = 60.0) -> None:
    """Wait until the app has learned something new."""
    before, until_s = _content(file), time.monotonic() + within_s
    while _content(file) == before:
        if time.monotonic() > until_s:
            raise RuntimeError(f"the ordinary app learned nothing in {within_s:g} s")
        time.sleep(0.1)


def _still(file: Path) -> None:
    """Wait until it learns nothing more."""
    before, since_s = _content(file), time.monotonic()
    while time.monotonic() - since_s < STILL_S:
        time.sleep(0.1)
        if (now := _content(file)) != before:
            before, since_s = now, time.monotonic()


def _content(file: Path) -> str:
    return file.read_text() if file.exists() else ""

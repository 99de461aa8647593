"""One run, from its seed to its verdict: scenario -> load, faults -> [run] -> lost, duplicated, stuck."""

import os
import time
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any, NamedTuple

from faults import acts, oracle
from faults.load import Feeder
from faults.rig import Rig, Stuck
from faults.scenario import Scenario
from stream_app import kafka_clients
from stream_app.broker import EmbeddedBroker
from stream_app.replay import Reader
from tests.broker.apache_kafka import ApacheKafka


class Outcome(NamedTuple):
    """Of one run."""

    seed: int
    said: str
    """The scenario, for people."""
    kafka: bool
    lost: int
    duplicated: int
    stuck: int
    same: int
    """Versions that were learned again from the topics, and were the same to the bit."""
    differing: int
    fired: dict[str, int]
    records: int
    restarts: int
    """Of workers that ended by themselves, with 1."""
    versions: int
    seconds: float
    notes: tuple[str, ...]

    @property
    def good(self) -> bool:
        return not (self.lost or self.duplicated or self.stuck or self.differing)


def run(scenario: Scenario, kafka_servers: str, folder: Path) -> Outcome:
    """One run; its folder is kept if something went wrong.

    Args:
        kafka_servers: of the Apache Kafka that runs share.
    """
    began_s, fired, restarts, records, versions = time.monotonic(), dict[str, int](), 0, 0, 0
    lost = duplicated = stuck = same = differing = 0
    notes: tuple[str, ...] = ()
    try:
        with (
            broker_of(scenario, kafka_servers, folder / "broker") as (servers, own),
            Rig(scenario, servers, folder) as rig,
        ):
            try:
                head, records = _under_fire(scenario, rig, own)
                with closing(Reader(servers)) as reader, rig.log() as log:
                    lost, duplicated, notes = oracle.judge(reader, rig.topics, head)
                    same, differing, more = oracle.learned_again(log, rig.versions, reader, rig.topics)
                    notes += more
                versions = head.number
            finally:
                fired, restarts = dict(rig.fired), rig.restarts
            _delete_topics(rig)
    except Stuck as error:
        stuck, notes = 1, (str(error),)
    except Exception:  # whatever it is, the run has not come to its end
        stuck, notes = 1, (traceback.format_exc(),)
    if not (lost or duplicated or stuck or differing):
        rmtree(folder, ignore_errors=True)
    return Outcome(
        *(scenario.seed, str(scenario), "kafka" in scenario.broker, lost, duplicated, stuck, same, differing),
        *(fired, records, restarts, versions, round(time.monotonic() - began_s, 1), notes),
    )


def _under_fire(scenario: Scenario, rig: Rig, broker: Any) -> tuple[Any, int]:
    """The last head, and how many records there were."""
    feeder = Feeder(scenario, rig.servers, rig.topics.events)
    feeder.start()
    if not scenario.faults[0].kind.startswith("die"):
        rig.tend()
    for fault in scenario.faults:
        acts.do(rig, fault, broker)
        rig.wait(fault.after_s)
    feeder.stop()
    rig.fired.update(feeder.wrong)
    return rig.settle(), feeder.sent


_mine: list[EmbeddedBroker] = []
"""This process's embedded broker; one run after the other uses it."""


@contextmanager
def broker_of(scenario: Scenario, kafka_servers: str, folder: Path) -> Iterator[tuple[str, Any]]:
    """Bootstrap servers, and the broker if the run may strike at it."""
    match scenario.broker:
        case "kafka":
            yield kafka_servers, None
        case "own kafka":
            with ApacheKafka(Path(os.environ["KAFKA_HOME"]).resolve(), folder, heap_mb=256) as kafka:
                yield kafka.bootstrap_servers, kafka
        case "own embedded":
            with EmbeddedBroker() as embedded:
                yield embedded.bootstrap_servers, embedded
        case "embedded":
            if not _mine:
                _mine.append(EmbeddedBroker())
                _mine[0].start()
            yield _mine[0].bootstrap_servers, None


def _delete_topics(rig: Rig) -> None:
    with closing(kafka_clients.admin(rig.servers)) as admin:
        admin.delete_topics(list(rig.topics))

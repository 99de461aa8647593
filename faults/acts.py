"""What can go wrong, done to a rig: fault -> [acts] -> how often it was done.

Each is counted in ``rig.fired`` only if it really happened: who never reached its failpoint was not killed there.
"""

import os
import signal
import time
from pathlib import Path
from typing import Protocol

from faults.nursery import Worker
from faults.rig import Rig
from faults.scenario import Fault
from stream_app.logclient import LogClient

TRIES = 5
_MOST_WORKERS = 3


class OwnBroker(Protocol):
    """A broker that belongs to one run."""

    @property
    def pid(self) -> int: ...


class Restartable(OwnBroker, Protocol):
    """One that finds its log again."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...


def do(rig: Rig, fault: Fault, broker: OwnBroker | None) -> None:
    """Let it happen.

    Raises:
        Stuck: a worker refuses to go on, or does not end.
    """
    match fault.kind.split():
        case ["die", "at", point]:
            die(rig, point, fault)
        case ["kill"]:
            kill(rig, _victim(rig))
        case ["freeze"]:
            freeze(rig, fault)
        case ["stop"]:
            rig.stop(_victim(rig))
            rig.fired["stop"] += 1
        case ["churn"]:
            churn(rig, fault)
        case ["tear"]:
            tear(rig)
        case ["full", "disk"]:
            full_disk(rig, fault)
        case ["rollback"]:
            rollback(rig)
        case [what, "broker"]:
            assert broker is not None, "a run with broker faults has a broker of its own"
            strike(rig, what, broker, fault)
        case _:
            raise ValueError(f"a fault is {fault.kind!r}, wanted one of faults.scenario")


def _victim(rig: Rig) -> Worker:
    """One that runs."""
    while not rig.alive():
        rig.wait(0.1)
    return rig.rng.choice(rig.alive())


def kill(rig: Rig, worker: Worker) -> None:
    worker.kill()
    rig.fired["kill"] += 1


def die(rig: Rig, point: str, fault: Fault) -> None:
    """A worker's successor dies at that point; where it stands by, it is killed."""
    if len(rig.alive()) >= rig.wanted:
        kill(rig, _victim(rig))
    rig.next_failpoint = f"{point}:{fault.times}"
    worker = rig.start()
    if rig.dies(worker):
        rig.fired[f"die at {point}"] += 1
    elif worker.code is None:
        kill(rig, worker)


def freeze(rig: Rig, fault: Fault) -> None:
    """A worker stops so long that the group goes on without it; then it is back, and believes nothing has happened."""
    if rig.wanted == 1:
        rig.wanted = 2
        rig.wait(3.0)
    worker = _victim(rig)
    worker.signal(signal.SIGSTOP)
    rig.wait(fault.seconds)
    worker.signal(signal.SIGCONT)
    rig.fired["freeze"] += 1
    rig.wait(2.0)


def churn(rig: Rig, fault: Fault) -> None:
    """Every two or three seconds a worker comes or goes."""
    until_s = time.monotonic() + fault.seconds
    while time.monotonic() < until_s:
        if rig.wanted < _MOST_WORKERS and (rig.wanted == 1 or rig.rng.random() < 0.5):
            rig.wanted += 1
            rig.fired["join"] += 1
        else:
            rig.wanted -= 1
            rig.stop(_victim(rig))
            rig.fired["leave"] += 1
        rig.wait(rig.rng.uniform(2.0, 3.0))


def tear(rig: Rig) -> None:
    """The newest file of the registry is torn, changed or gone, before the workers begin again."""
    for _ in range(100):
        if len(_versions(rig)) >= 3:
            break
        rig.wait(0.2)
    for worker in rig.alive():
        kill(rig, worker)
    files = _versions(rig)
    if len(files) < 3:  # nothing older could take its place
        return
    how = rig.rng.choice(("torn", "changed", "gone"))
    data = bytearray(files[-1].read_bytes())
    if how == "gone":
        files[-1].unlink()
    elif how == "torn":
        files[-1].write_bytes(data[: rig.rng.randrange(len(data))])
    else:
        data[rig.rng.randrange(len(data))] ^= 1 << rig.rng.randrange(8)
        files[-1].write_bytes(data)
    rig.fired[f"artefact {how}"] += 1


def _versions(rig: Rig) -> list[Path]:
    """Files of the registry, oldest first."""
    files = [f for f in (rig.registry / rig.name / "versions").glob("[!.]*") if f.is_file()]
    return sorted(files, key=lambda f: f.stat().st_mtime_ns)


def full_disk(rig: Rig, fault: Fault) -> None:
    """Nothing larger than some bytes can be written for a while."""
    _victim(rig)
    rig.limit_files(rig.rng.choice((0, 4_000, 40_000)))
    rig.wait(fault.seconds / 2)
    rig.limit_files()
    rig.fired["full disk"] += 1


def rollback(rig: Rig) -> None:
    """An operator goes back to an older version while workers learn; someone else may be first, then again."""
    with rig.log() as log:
        for _ in range(TRIES):
            while not (older := _older(log)):
                rig.wait(0.2)
            done = rig.command("rollback", "--to", rig.rng.choice(older), "--reason", "a fault")
            if not done.returncode:
                rig.fired["rollback"] += 1
                return
            rig.wait(1.0)
    raise RuntimeError(f"{TRIES} rollbacks failed, wanted one that counts: {done.stderr}")


def _older(log: LogClient) -> list[str]:
    """Versions before the head."""
    log.catch_up()
    return [e.id for _, e in log.fold.history if log.head and e.id != log.head.id]


def strike(rig: Rig, what: str, broker: OwnBroker, fault: Fault) -> None:
    """At the broker itself."""
    _victim(rig)
    rig.wait(2.0)
    if what == "freeze":
        os.kill(broker.pid, signal.SIGSTOP)
        rig.wait(fault.seconds)
        os.kill(broker.pid, signal.SIGCONT)
    else:
        assert hasattr(broker, "kill"), "only Apache Kafka finds its log again"
        restartable: Restartable = broker  # type: ignore[assignment]
        (restartable.kill if what == "kill" else restartable.stop)()
        rig.wait(fault.seconds / 4)
        restartable.start()
    rig.fired[f"{what} broker"] += 1

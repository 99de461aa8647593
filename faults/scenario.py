"""What happens in one run, as its seed says: seed -> [scenario] -> run.

The seed alone decides: broker, shape of the service, what is wrong in the stream, and the faults in their order.
Consecutive seeds go through all kinds of faults, and through both brokers, so a block of them covers everything.
"""

import random
from typing import Literal, NamedTuple

from tests import streams

Broker = Literal["embedded", "kafka", "own embedded", "own kafka"]

FAILPOINTS = ("take", "taken", "said", "writing", "renamed", "written", "announced", "commit")
"""Where a worker is killed -9 (stream_app/failpoints.py)."""
WORKER_KINDS = (*(f"die at {point}" for point in FAILPOINTS), "kill", "freeze", "stop", "churn", "tear", "full disk")
BROKER_KINDS = ("freeze broker", "kill broker", "restart broker")
"""They want a broker of their own; the embedded one, which keeps its log in memory, can only be frozen."""
FIRST = (
    *("die at take", "kill", "freeze broker", "die at taken", "freeze", "rollback", "die at said", "stop"),
    *("kill broker", "die at writing", "churn", "tear", "die at renamed", "full disk", "restart broker"),
    *("die at written", "die at announced", "die at commit"),
)
"""The kind that a seed is about, in turns."""
CHEAP = (*(f"die at {point}" for point in FAILPOINTS), "kill", "stop", "rollback", "tear")
"""What else may happen in the same run."""
SHAPES = ("[publish]\nkeep = 300\n", "[publish]\nkeep = 300\ninline_bytes = 0\n")
"""Versions inside announcements, or in the registry only; kept until a slow operator's rollback has read its own."""


class Fault(NamedTuple):
    """One thing that goes wrong."""

    kind: str
    after_s: float
    """So long the load flows before."""
    seconds: float
    """How long it lasts, where it lasts."""
    times: int
    """At which pass of a failpoint; else unused."""


class Scenario(NamedTuple):
    """One run."""

    seed: int
    broker: Broker
    partitions: int
    workers: int
    publish: str
    """That part of the spec."""
    per_s: float
    """Records."""
    poison: float
    """Shares of examples: records that are none, before which ..."""
    duplicates: float
    early: float
    late: float
    columnar: float
    """Share of records that are many rows in columns."""
    faults: tuple[Fault, ...]
    learner: str = streams.NETWORK
    """That part of the spec."""

    def __str__(self) -> str:
        shares = ("poison", "duplicates", "early", "late", "columnar")
        wrong = ", ".join(f"{name} {getattr(self, name):.0%}" for name in shares)
        said = "; ".join(f"{f.after_s:.1f} s, {f.kind}" for f in self.faults)
        model = "mixture" if self.learner == streams.MIXTURE else "network"
        shape = f"{model}, {self.workers} workers, {self.partitions} partitions"
        return f"seed {self.seed}: {self.broker}, {shape}, {self.per_s:.0f} records/s, {wrong}: {said}"


def scenario(seed: int, *, kafka: bool) -> Scenario:
    """The run of a seed; ``kafka``: whether there is an Apache Kafka (else every run is on the embedded broker)."""
    rng = random.Random(seed)
    kind, on_kafka = FIRST[seed % len(FIRST)], kafka and seed // len(FIRST) % 5 in (0, 3)
    if kind in BROKER_KINDS and not on_kafka:
        kind = "freeze broker"
    broker: Broker = "kafka" if on_kafka else "embedded"
    if kind in BROKER_KINDS:
        broker = "own kafka" if on_kafka else "own embedded"
    kinds = [kind, *rng.choices(CHEAP, k=rng.choice((0, 1, 1, 2)))]
    rng.shuffle(kinds)
    workers = rng.choice((1, 1, 2, 2, 3))
    every_s = rng.choice((0.1, 0.3, 1.0))
    faults = [Fault(k, rng.uniform(0.0, 2.0), rng.uniform(8.0, 12.0), rng.randint(1, 4)) for k in kinds]
    if workers > 1 and rng.random() < 0.5:
        faults.append(Fault("die at merged", rng.uniform(0.0, 2.0), 0.0, rng.randint(1, 4)))
    return Scenario(
        seed=seed,
        broker=broker,
        partitions=max(workers, rng.choice((1, 2, 3))),
        workers=workers,
        publish=rng.choice(SHAPES) + f"every_s = {every_s}\n",
        per_s=rng.choice((150.0, 300.0, 600.0)),
        poison=rng.choice((0.0, 0.01)),
        duplicates=rng.choice((0.0, 0.05)),
        early=rng.choice((0.0, 0.05)),
        late=rng.choice((0.0, 0.05)),
        faults=tuple(faults),
        learner=streams.MIXTURE if rng.random() < 0.1 else streams.NETWORK,
        columnar=rng.choice((0.0, 0.0, 0.02)),
    )

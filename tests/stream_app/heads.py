"""Envelopes, decisions and statuses made by hand, for those who only show them."""

from typing import Any

import msgspec

from stream_app.events import Decision
from stream_app.lag import Lag, PartitionLag
from stream_app.modellog import Announcement, Change, ClassScore, Envelope, Hyper, Variant
from stream_app.score import Prequential
from stream_app.status import Status

NOW_S = 1_700_000_000.0
TOPIC_ID = "00000000-0000-0000-0000-000000000001"


def metrics_of(task: str = "binary", rows: int = 0, **counts: float) -> dict[str, float]:
    """All metrics that a version of this task has."""
    score = Prequential(task, 3 if task == "multiclass" else 2)  # type: ignore[arg-type]
    for i in range(rows):
        said = [[0.2, 0.3, 0.5]] if task == "multiclass" else [[0.25 + 0.5 * (i % 2)]]
        prior = [[0.4, 0.3, 0.3]] if task == "multiclass" else [[0.5]]
        score.add(said, [i % 2], [-1.0], prior)
    return score.metrics() | {"events": 0, "learned": 0, "dead_letters": 0, "drifts": 0} | counts


def classes_of(count: int = 2) -> tuple[ClassScore, ...]:
    """The first has the most labels."""
    return tuple(ClassScore(name=f"k{i}", support=1_000.0 * (count - i), said=800.0, right=400.0) for i in range(count))


def head_of(number: int = 1, **changes: Any) -> Envelope:
    envelope = Envelope(
        id=f"{number:016x}",
        number=number,
        epoch=1,
        parent=None,
        offsets={0: 100 * number},
        replay_from={},
        predictions_from={},
        artefact=f"versions/{number:016x}.safetensors",
        sha256=f"{number:064x}",
        size_bytes=123_456,
        signature="s",
        topic_ids={},
        labels=0,
        hyper=Hyper(learning_rate=0.003, half_life_events=200_000.0),
        reference=None,
        ledger={0: (3, 5)},
        metrics=metrics_of(),
        created_s=NOW_S + number,
    )
    return msgspec.structs.replace(envelope, **changes)


def variant_of(head: Envelope, *, served: bool = True) -> Variant:
    return Variant(
        of_version=head.id,
        kind="int8",
        artefact="variants/x.onnx",
        sha256="0" * 64,
        size_bytes=20_000,
        fp32_bytes=60_000,
        runtime="onnxruntime-1.31.1-cpu",
        batch=1,
        latency_us=10.0,
        fp32_latency_us=20.0,
        loss=0.4321,
        fp32_loss=0.4320,
        rows=2048,
        served=served,
        created_s=NOW_S,
        inline=b"graph",
    )


def version(head: Envelope, kind: str = "version") -> Change:
    """The change that makes it the head."""
    record = Announcement(kind=kind, envelope=head, parent_envelope=None, parent_at=-1)  # type: ignore[arg-type]
    return Change(head.number, record, head)


def decision(kind: str, /, **evidence: Any) -> Decision:
    return Decision(kind=kind, at_s=NOW_S, version=7, evidence=evidence)


def lag_of(*lags: int) -> Lag:
    """One partition for each."""
    return Lag(
        topic="flights.events",
        group="flights.worker",
        version=7,
        created_s=NOW_S,
        partitions=tuple(
            PartitionLag(
                partition=p,
                end_offset=1_000 + n,
                model_offset=1_000,
                committed_offset=None if p else 990,
                lag_events=n,
            )
            for p, n in enumerate(lags)
        ),
    )


def status_of(task: str = "binary", **changes: Any) -> Status:
    """A model in the middle of its work."""
    counts = {"events": 1_050, "learned": 1_000, "dead_letters": 3, "drifts": 2}
    metrics = metrics_of(task, 40, waiting=50, **counts)
    classes = () if task == "regression" else classes_of(3 if task == "multiclass" else 2)
    importance = {"distance": 0.0312, "rates(origin, hour)": 0.02, **{f"feature{n}": 0.01 - n / 1000 for n in range(9)}}
    head = head_of(
        7,
        metrics=metrics,
        classes=classes,
        epoch=2,
        reference="tuned-at-40000",
        labels=1_000,
        importance=importance,
        members={"forest": 0.75},
    )
    status = Status(
        name="flights",
        task=task,
        at_s=NOW_S + 9.0,
        head=head,
        variants=(variant_of(head),),
        int8=variant_of(head),
        counts=counts,
        events_per_s=1_234.0,
        records_per_s=2_468.0,
        lag=lag_of(40, 2),
        max_lag_events=99,
        decisions=(decision("drift", worse=True, level=0.25), decision("promoted", labels=5_000)),
        decision_counts={"drift": 1, "promoted": 1},
        versions=7,
        broker_silence_s=0.5,
    )
    return msgspec.structs.replace(status, **changes)

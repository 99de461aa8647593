"""Versions made by hand, whose every answer tells which one it came from."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import numpy as np

from models import walk
from models.export import to_onnx
from models.features import FeatureEncoder
from models.shapes import dense_columns, parameter_count, parameter_shapes, split
from models.snapshot import pack, prefixed
from models.spec import (
    Categorical,
    Features,
    Label,
    Learner,
    ModelSpec,
    Numeric,
    Rates,
    signature,
    to_json,
)
from stream_app.logclient import LogClient
from stream_app.modellog import Announcement, Challenger, Envelope, Hyper, Route, Variant
from stream_app.registry import Registry
from stream_app.topics import create_topics

NOW_S = 1_700_000_000.0
WAIT_S = 20.0


def until(condition: Callable[[], object]) -> None:
    """Wait for it; fail if it takes too long."""
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s, "took too long"
        time.sleep(0.005)


def spec_of(name: str, task: str = "binary") -> ModelSpec:
    classes = {"binary": ("on time", "late"), "multiclass": ("a", "b", "c"), "regression": ()}
    return ModelSpec(
        name=name,
        task=task,
        label=Label(name="delay", classes=classes[task]),
        features=Features(
            numeric={"distance": Numeric(), "hour": Numeric()},
            categorical={"carrier": Categorical(), "flight": Categorical()},
            rates=Rates(half_lives_s=(3600.0,), keys=((), ("carrier",)), slots=16),
        ),
        learner=Learner(kind="torch", hidden=(4,)),
    )


def onnx(spec: ModelSpec, score: float) -> bytes:
    """A graph that gives ``score`` for the last output whatever comes in (but multiclass)."""
    theta = np.zeros(parameter_count(parameter_shapes(spec)), np.float32)
    theta[-1] = score if spec.task == "regression" else math.log(score / (1 - score))
    columns = dense_columns(spec)
    return to_onnx(spec, theta, np.zeros(columns, np.float32), np.ones(columns, np.float32))


def looking(spec: ModelSpec) -> bytes:
    """A graph that looks at ``distance`` and at the rates of ``carrier``, and at nothing else."""
    spec = msgspec.structs.replace(spec, learner=Learner(kind="torch", network="linear"))
    shapes = parameter_shapes(spec)
    theta = np.zeros(parameter_count(shapes), np.float32)
    weights = split(theta, shapes)["layer0.weight"]
    columns = dense_columns(spec)
    weights[-1, 0], weights[-1, columns - 1] = 0.5, 1.0
    return to_onnx(spec, theta, np.zeros(columns, np.float32), np.ones(columns, np.float32))


def encoder_of(spec: ModelSpec, labels: int = 4) -> FeatureEncoder:
    """One that has learned ``labels`` labels, of different classes in turn, the last at NOW_S."""
    encoder = FeatureEncoder(spec)
    raw = encoder.raw_of([{"carrier": "UA"}] * labels)
    targets = np.eye(3)[np.arange(labels) % 3][:, : spec.outputs]
    times_s = NOW_S - np.arange(labels)[::-1]
    if labels:
        walk.learn(encoder.rates, raw.keys, targets, times_s)
    return encoder


def artefact(
    spec: ModelSpec, score: float = 0.5, labels: int = 4, graph: bytes | None = None, targets: list[float] | None = None
) -> bytes:
    """A version's file; it remembers a labelled row for each of ``targets``."""
    arrays = prefixed("features", encoder_of(spec, labels).state())
    if targets is not None:
        columns, codes = dense_columns(spec), len(spec.features.categorical)
        arrays["importance.dense"] = np.zeros((len(targets), columns), np.float32)
        arrays["importance.categories"] = np.zeros((len(targets), codes), np.int32)
        arrays["importance.targets"] = np.array(targets, np.float32)
    arrays["serving.onnx"] = np.frombuffer(graph or onnx(spec, score), np.uint8)
    return pack(arrays, {"spec": to_json(spec), "made_for": str(score)})


def envelope_of(spec: ModelSpec, data: bytes, parent: Envelope | None = None) -> Envelope:
    digest = hashlib.sha256(data).hexdigest()
    return Envelope(
        id=digest[:16],
        number=parent.number + 1 if parent else 1,
        epoch=parent.epoch if parent else 0,
        parent=parent.id if parent else None,
        offsets={0: 40},
        replay_from={0: (30, NOW_S - 60.0)},
        predictions_from={0: 3},
        artefact=f"versions/{digest[:16]}.safetensors",
        sha256=digest,
        size_bytes=len(data),
        signature=signature(spec),
        topic_ids={},
        labels=4,
        hyper=Hyper(learning_rate=0.01, half_life_events=1000.0),
        reference=None,
        ledger={},
        metrics={"log_loss": 0.25},
        created_s=time.time() - 5.0,
    )


def variant_of(envelope: Envelope, graph: bytes, *, served: bool = True) -> Variant:
    digest = hashlib.sha256(graph).hexdigest()
    return Variant(
        of_version=envelope.id,
        kind="int8",
        artefact=f"variants/{digest[:16]}.onnx",
        sha256=digest,
        size_bytes=len(graph),
        fp32_bytes=4 * len(graph),
        runtime="onnxruntime-1.31.1-cpu",
        batch=1,
        latency_us=10.0,
        fp32_latency_us=20.0,
        loss=0.251,
        fp32_loss=0.25,
        rows=100,
        served=served,
        created_s=time.time(),
        inline=graph,
    )


def challenger_of(envelope: Envelope, **changes: object) -> Challenger:
    fields: dict[str, object] = {
        "envelope": envelope,
        "mode": "canary",
        "percent": 100.0,
        "key": "",
        "auto": True,
        "labels": 100,
        "margin": 0.0,
        "until_s": time.time() + 3600.0,
        "offsets": envelope.offsets,
        "replay_from": envelope.replay_from,
        "predictions_from": envelope.predictions_from,
    }
    return Challenger(**fields | changes)  # type: ignore[arg-type]


class Writer:
    """Announces versions of one model, each learned on the one before; ``registry`` gets them, too."""

    def __init__(self, bootstrap_servers: str, spec: ModelSpec, registry: Registry | None = None) -> None:
        create_topics(bootstrap_servers, spec.name, partitions=1, retention_s=3600, max_record_bytes=65536)
        self.spec, self._registry = spec, registry
        self.client = LogClient(bootstrap_servers, f"{spec.name}.models")
        self.client.catch_up()

    def announce(self, data: bytes, *, inline: bool = True, between: bool = False, **changes: object) -> Envelope:
        """Make it the head. ``changes`` are fields of its envelope."""
        head = self.client.head
        if self._registry:
            self._registry.write("versions", ".safetensors", data)
        envelope = msgspec.structs.replace(envelope_of(self.spec, data, head), **changes)
        wish = Announcement(
            kind="version" if head is None or envelope.epoch == head.epoch else "epoch",
            envelope=envelope,
            parent_envelope=head,
            parent_at=self.client.fold.head_at,
            inline=data if inline else None,
            between=between,
        )
        assert self.client.propose(wish)
        assert self.client.head is not None
        return self.client.head

    def version(self, score: float, **changes: object) -> Envelope:
        """Make a sound version the head."""
        return self.announce(artefact(self.spec, score), **changes)

    def route(self, **changes: object) -> Route:
        """Say what servers answer with."""
        made = Route(after=self.client.fold.route_at, created_s=time.time(), **changes)  # type: ignore[arg-type]
        assert self.client.reroute(made)
        return made

    def broken(self, score: float) -> Envelope:
        """Make a version the head whose graph cannot be loaded, though every hash is right."""
        arrays = prefixed("features", encoder_of(self.spec).state())
        arrays["serving.onnx"] = np.frombuffer(b"no graph at all", np.uint8)
        return self.announce(pack(arrays, {"spec": to_json(self.spec), "made_for": str(score)}))


@contextmanager
def writing(bootstrap_servers: str, spec: ModelSpec, registry: Registry | None = None) -> Iterator[Writer]:
    writer = Writer(bootstrap_servers, spec, registry)
    try:
        yield writer
    finally:
        writer.client.close()

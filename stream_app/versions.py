"""A core at rest becomes a version: snapshot -> [artefact, envelope] -> announce; and back."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np

from models.export import to_onnx
from models.scaler import Scaler
from models.snapshot import Arrays, pack, under
from models.spec import ModelSpec, SpecError, fit_problem, from_json, signature, to_json
from stream_app import artefacts, course
from stream_app.course import Course
from stream_app.errors import EpochError, RegistryError
from stream_app.learn import Core
from stream_app.modellog import ClassScore, Envelope, Fold, Hyper
from stream_app.parts import Parts
from stream_app.registry import Registry
from stream_app.stored import FOLDER, SUFFIX, unpacked

IMPORTANCES = 50
"""So many features' importances travel in an envelope; each becomes a time series somewhere."""


class Snapshot(NamedTuple):
    """What a version will be, taken between two steps; nothing in it changes any more."""

    arrays: Arrays
    theta: Any
    """(P,) as served."""
    offsets: dict[int, int]
    replay_from: dict[int, tuple[int, float]]
    ledger: dict[int, tuple[int, int]]
    metrics: dict[str, float]
    classes: tuple[ClassScore, ...]
    labels: int
    hyper: Hyper
    reference: str | None
    importance: dict[str, float]
    members: dict[str, float]
    course: Course | None
    """Of the core, where it is kept."""


def snapshot(core: Core) -> Snapshot:
    """Copy everything a version holds; a few milliseconds."""
    parts = core.partitions
    return Snapshot(
        arrays=core.state(),
        theta=core.learner.serving_parameters(),
        offsets={p: s.next_offset for p, s in parts.items()},
        replay_from={p: s.join.replay_from(s.next_offset) for p, s in parts.items()},
        ledger={p: (s.count, s.xor) for p, s in parts.items()},
        metrics=core.metrics(),
        classes=core.classes(),
        labels=core.counts["learned"],
        hyper=core.hyper(),
        reference=core.reference,
        importance=core.importance.largest(IMPORTANCES),
        members=core.learner.members(),
        course=core.course.course() if core.course else None,
    )


def beside(taken: Snapshot, head: Envelope) -> Snapshot:
    """What a replica of some partitions has learned, with what ``head``, which it began from, says of the others."""
    return taken._replace(
        offsets=head.offsets | taken.offsets,
        replay_from=head.replay_from | taken.replay_from,
        ledger=head.ledger | taken.ledger,
    )


def write(
    spec: ModelSpec,
    taken: Snapshot,
    registry: Registry,
    *,
    parent: Envelope | None,
    epoch: int,
    predictions_from: dict[int, int],
    topic_ids: Mapping[str, str],
    created_s: float,
    parts: Parts | None = None,
    between: bool = False,
) -> tuple[Envelope, bytes]:
    """Make a snapshot durable; returns its envelope and the artefact's bytes. Not announced yet.

    Args:
        parts: writes what is too large to travel inline; None for who writes so rarely that all would be new.
        between: it will not travel inline, however small.
    """
    draft = Envelope(
        id="",
        number=parent.number + 1 if parent else 1,
        epoch=epoch,
        parent=parent.id if parent else None,
        offsets=taken.offsets,
        replay_from=taken.replay_from,
        predictions_from=predictions_from,
        artefact="",
        sha256="",
        size_bytes=0,
        signature=signature(spec),
        topic_ids=dict(topic_ids),
        labels=taken.labels,
        hyper=taken.hyper,
        reference=taken.reference,
        ledger=taken.ledger,
        metrics=taken.metrics,
        classes=taken.classes,
        importance=taken.importance,
        members=taken.members,
        created_s=created_s,
    )
    # Not msgspec's JSON: it writes null for NaN and the clock of an empty join, and then cannot read it.
    texts = {"spec": to_json(spec), "envelope": json.dumps(msgspec.to_builtins(draft, str_keys=True))}
    if taken.course is not None:
        texts[course.TEXT] = msgspec.json.encode(taken.course).decode()
    data = pack(taken.arrays | _serving(spec, taken), texts)
    by_reference = between or len(data) > spec.publish.inline_bytes
    artefact = parts.write(data) if parts and by_reference else registry.write(FOLDER, SUFFIX, data)
    envelope = msgspec.structs.replace(
        draft,
        id=artefact.id,
        artefact=artefact.path,
        sha256=artefact.sha256,
        size_bytes=len(data),
    )
    return envelope, data


def _serving(spec: ModelSpec, taken: Snapshot) -> Arrays:
    """The graph that servers run, of a network; other learners answer themselves."""
    if spec.learner.kind != "torch":
        return {}
    onnx = to_onnx(spec, taken.theta, *_scale(under("features.scaler", taken.arrays)))
    return {artefacts.SERVING: np.frombuffer(onnx, dtype=np.uint8)}


def _scale(scaler: Arrays) -> tuple[Any, Any]:
    restored = Scaler(len(scaler["n"]))
    restored.load(scaler)
    return restored.mean.astype(np.float32), restored.std.astype(np.float32)


def read_head(fold: Fold, registry: Registry) -> tuple[Arrays, dict[str, str]]:
    """The head's artefact, from the announcement if it was inline, else from the registry; hash checked.

    Raises:
        RegistryError: neither can be read whole.
    """
    head = fold.head
    assert head is not None
    return unpacked(head.artefact, artefacts.read(head, fold.head_inline, registry))


def unfit(spec: ModelSpec, fold: Fold, registry: Registry) -> str:
    """Why the head's parameters do not mean what the spec says; empty if they do, or if there is no head."""
    head = fold.head
    if head is None or head.signature == signature(spec):
        return ""
    problem = f"signature: head has {head.signature}, spec has {signature(spec)}"
    try:
        return fit_problem(spec, from_json(read_head(fold, registry)[1]["spec"])) or problem
    except (RegistryError, SpecError, KeyError):
        return problem  # unreadable, or of a newer program: its signature must do


def check_fit(spec: ModelSpec, fold: Fold, registry: Registry) -> None:
    """Whoever works beside the worker with a spec of its own must not touch a head of another meaning.

    The text names no version: it stays the same until head or spec change their meaning.

    Raises:
        EpochError: the head does not fit the spec.
    """
    if problem := unfit(spec, fold, registry):
        raise EpochError(f"the head of {spec.name!r} does not fit the spec: {problem}")

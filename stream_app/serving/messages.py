"""What the live model is and says, as messages of our own service: live model, scores -> [messages] -> wire."""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec
import numpy as np
from google.protobuf.message import DecodeError

from models.spec import ModelSpec
from stream_app.catalogue import Listed
from stream_app.codecs.fields import field
from stream_app.errors import ServingError
from stream_app.live import LiveModel, Scores
from stream_app.modellog import Envelope, Variant
from stream_app.serving.source import Standing
from stream_app.serving.traffic import Role, Seen
from stream_app.wire import stream_app_pb2 as pb

T = TypeVar("T")


def parsed(read: Callable[[bytes], T], raw: bytes) -> T:
    """A message of its bytes.

    Raises:
        ServingError: INVALID_ARGUMENT: they are none.
    """
    try:
        return read(raw)
    except DecodeError as error:
        text = f"the request is {len(raw)} bytes that are no such message, wanted one of protos/"
        raise ServingError("INVALID_ARGUMENT", text) from error


def predictions(spec: ModelSpec, scores: Scores) -> Iterator[pb.Prediction]:
    """One per row of ``scores`` (B, K)."""
    names = spec.score_names
    for row in scores.tolist():
        if spec.task == "regression":
            yield pb.Prediction(value=row[0])
            continue
        shares = (1.0 - row[0], row[0]) if spec.task == "binary" else row
        most = max(range(len(names)), key=shares.__getitem__)
        yield pb.Prediction(scores=dict(zip(names, shares, strict=True)), label=names[most])


def scores(spec: ModelSpec, said: Scores) -> pb.Scores:
    """Of rows (B, K) asked as columns."""
    names = spec.score_names if spec.task != "regression" else ()
    return pb.Scores(classes=names, values=told(spec, said).astype("<f4", copy=False).tobytes())


def told(spec: ModelSpec, said: Scores) -> Scores:
    """Of two classes both."""
    return np.concatenate([1.0 - said, said], axis=1) if spec.task == "binary" else said


def answered_by(live: LiveModel, log_age_s: float | None, role: Role) -> pb.PredictResponse:
    """A response that says what answers, without predictions yet; without staleness if ``log_age_s`` is None."""
    return pb.PredictResponse(
        model=live.spec.name,
        version=live.envelope.number,
        version_id=live.envelope.id,
        epoch=live.envelope.epoch,
        variant=live.variant,
        prior_only=live.prior_only,
        staleness=None if log_age_s is None else _staleness(live.envelope, log_age_s),
        role=role,
    )


class Header:
    """What a response says of who answers, as bytes: made once for a version.

    Args:
        live: answers as champion.
    """

    def __init__(self, live: LiveModel) -> None:
        self.fixed = answered_by(live, None, "champion").SerializeToString()
        """All but the staleness."""
        self._spec = live.spec
        classes = live.spec.score_names if live.spec.task != "regression" else ()
        self._classes = b"".join(field(0x0A, name.encode()) for name in classes)

    def scores(self, said: Scores) -> bytes:
        """The field ``scores``, of rows (B, K) asked as columns."""
        values = told(self._spec, said).astype("<f4", copy=False).tobytes()
        return field(0x4A, self._classes + field(0x12, values))


def streamed(response: bytes) -> bytes:
    """A PredictResponse as a PredictStreamResponse."""
    return field(0x0A, response)


def version(envelope: Envelope) -> pb.Version:
    return pb.Version(
        number=envelope.number,
        id=envelope.id,
        epoch=envelope.epoch,
        parent=envelope.parent or "",
        created_s=envelope.created_s,
    )


def described(live: LiveModel, log_age_s: float, standing: Standing) -> pb.GetModelResponse:
    spec, envelope = live.spec, live.envelope
    return pb.GetModelResponse(
        model=spec.name,
        task=spec.task,
        label_name=spec.label.name,
        classes=spec.score_names if spec.task != "regression" else (),
        features=_features(spec),
        version=version(envelope),
        variant=live.variant,
        prior_only=live.prior_only,
        staleness=_staleness(envelope, log_age_s),
        offsets=envelope.offsets,
        labels=envelope.labels,
        metrics=envelope.metrics,
        hyper=pb.Hyper(**msgspec.structs.asdict(envelope.hyper)),
        variants=[_variant(v) for v in live.variants],
        importance=envelope.importance,
        members=envelope.members,
        pinned=standing.pinned,
        alarm=standing.alarm,
        trial=_trial(standing),
    )


def _trial(standing: Standing) -> pb.Trial | None:
    """What is tried beside the live version, as far as it could be prepared here."""
    trial, seen = standing.arms.trial, standing.seen
    if trial is None:
        return None
    if seen.id != trial.envelope.id:  # nobody has asked since it came
        seen = Seen()
    return pb.Trial(
        mode=trial.mode,
        version=version(trial.envelope),
        percent=trial.percent,
        key=trial.key,
        rows=seen.rows,
        failed=seen.failed,
        dropped=seen.dropped,
        differing=seen.differing,
        mean_difference=seen.difference / seen.rows if seen.rows else 0.0,
    )


def listed(version_: Listed) -> pb.ListedVersion:
    envelope = version_.envelope
    return pb.ListedVersion(
        version=version(envelope),
        size_bytes=envelope.size_bytes,
        labels=envelope.labels,
        metrics=envelope.metrics,
        variants=version_.variants,
        where=version_.where,
        roles=version_.roles,
    )


def _staleness(envelope: Envelope, log_age_s: float) -> pb.Staleness:
    return pb.Staleness(version_age_s=version_age_s(envelope), log_age_s=log_age_s)


def version_age_s(envelope: Envelope) -> float:
    """Wall time since the version was made; hosts' clocks differ."""
    return max(time.time() - envelope.created_s, 0.0)


def _features(spec: ModelSpec) -> list[pb.Feature]:
    numeric = [pb.Feature(name=n, kind="numeric") for n in spec.features.numeric]
    return numeric + [pb.Feature(name=n, kind="categorical") for n in spec.features.categorical]


def _variant(variant: Variant) -> pb.Variant:
    names = pb.Variant.DESCRIPTOR.fields_by_name
    return pb.Variant(**{name: getattr(variant, name) for name in names})

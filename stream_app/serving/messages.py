"""What the live model is and says, as messages of our own service: live model, scores -> [messages] -> wire."""

import time
from collections.abc import Iterator

import msgspec
import numpy as np

from models.spec import ModelSpec
from stream_app.catalogue import Listed
from stream_app.live import LiveModel, Scores
from stream_app.modellog import Envelope, Variant
from stream_app.serving.source import Standing
from stream_app.serving.traffic import Role, Seen
from stream_app.wire import stream_app_pb2 as pb


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
    if spec.task == "binary":
        said = np.concatenate([1.0 - said, said], axis=1)
    names = spec.score_names if spec.task != "regression" else ()
    return pb.Scores(classes=names, values=said.astype("<f4", copy=False).tobytes())


def answered_by(live: LiveModel, log_age_s: float, role: Role) -> pb.PredictResponse:
    """A response that says what answers, without predictions yet."""
    return pb.PredictResponse(
        model=live.spec.name,
        version=live.envelope.number,
        version_id=live.envelope.id,
        epoch=live.envelope.epoch,
        variant=live.variant,
        prior_only=live.prior_only,
        staleness=_staleness(live.envelope, log_age_s),
        role=role,
    )


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

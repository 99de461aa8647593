"""A version that answers: artefact -> [prepare -> check] -> live model."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models import learners
from models.direct import Direct
from models.explain import Background, Explained, Explainer, remembered, targets
from models.features import Coder, FeatureEncoder, Raw
from models.graph import Net
from models.measure import Examples, mean_loss, target_variance
from models.network import Network, compile_for
from models.rates import Table
from models.runtime import Runs, Session
from models.snapshot import Arrays, under, unpack
from models.spec import ModelSpec, from_json
from stream_app import artefacts
from stream_app.errors import ModelLogError
from stream_app.modellog import Envelope, Variant

FEWEST_CHECKED = 32
"""With fewer labelled rows a loss says nothing yet."""

Scores = NDArray[np.float32]
Times = NDArray[np.float64]
Row = Mapping[str, object]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LiveModel:
    """One version, ready to answer. Use it from one thread at a time."""

    envelope: Envelope
    spec: ModelSpec
    encoder: FeatureEncoder
    session: Runs
    explainer: Explainer
    newest_s: float
    """Event time of the newest label it has learned from; 0 before the first."""
    rates: Table | None
    """All recent rates at ``newest_s``, which is when nearly everybody asks for; None if too many."""
    prior_only: bool
    """Before two classes (one label, for regression) had been seen: the labels' all-time mean is all it says."""
    examples: Examples
    """Labelled rows that it remembers, up to 128; ``check_loss`` asks it about them."""
    variant: Literal["fp32", "int8"] = "fp32"
    variants: tuple[Variant, ...] = ()
    """All that are attached to the version, without their bytes."""

    @property
    def net(self) -> Net | None:
        """What compiled code reads, if it may answer all that is asked for at ``newest_s``; else None."""
        may = not self.prior_only and (self.rates is not None or self.encoder.rates.columns == 0)
        return self.session.net if may and isinstance(self.session, Network) and self.session.compiled else None

    def predict(self, rows: Sequence[Row], times_s: Sequence[float | None] | None = None) -> Scores:
        """Scores of rows by feature name: (B, K) float32, as ``models.export`` defines them.

        Args:
            times_s: event times at which recent rates are read; None, also for single rows, is
                ``newest_s``.

        Raises:
            FeatureError: a name that the model does not have, or a value of the wrong type.
        """
        at_s = None if times_s is None else np.array([math.nan if t is None else t for t in times_s])
        return self.score(self.encoder.raw_of(rows), at_s)

    def predict_columns(self, numeric: Times, columns: Sequence[Sequence[object]], times_s: Times | None) -> Scores:
        """The same of whole columns in spec order, each value sound: numeric features (B, N) and C categorical ones.

        Args:
            times_s: (B,); NaN, or None for all, is ``newest_s``.
        """
        return self.score(self.encoder.raw_columns(numeric, columns), times_s)

    def score(self, raw: Raw, times_s: Times | None) -> Scores:
        """Scores (B, K) of rows that the encoder made; ``times_s`` as for ``predict_columns``."""
        if self.prior_only:
            return self.encoder.priors(len(raw.numeric))
        if self.rates is not None and (times_s is None or np.isnan(times_s).all()):
            return self.session.run(self.encoder.dense_of(raw, self.rates), raw.categories)
        asked_s = np.full(len(raw.numeric), math.nan) if times_s is None else times_s
        at_s = np.where(np.isnan(asked_s), self.newest_s, asked_s)
        return self.session.run(self.encoder.dense(raw, at_s), raw.categories)

    def explain(self, row: Row, time_s: float | None = None, *, log_odds: bool = False) -> tuple[Explained, Scores]:
        """What moved a row's scores, and its dense columns (N + R,), recent rates included.

        Raises:
            FeatureError: as for ``predict``.
        """
        raw = self.encoder.raw_of([row])
        dense = self.encoder.dense(raw, np.array([self.newest_s if time_s is None else time_s]))[0]
        return self.explainer.explain(self.session.run, dense, raw.categories[0], log_odds=log_odds), dense

    def with_variant(self, variant: Variant, onnx: bytes) -> "LiveModel":
        """The same version, answered by a compressed form of it.

        Raises:
            ModelLogError: the form is of another version, or fails the self-check.
        """
        name = f"variant {variant.kind} of version {variant.of_version}"
        if variant.of_version != self.envelope.id:
            raise ModelLogError(f"{name}: given to version {self.envelope.id}, wanted its own")
        try:
            session = Session(onnx)
        except Exception as error:  # onnxruntime's errors share no base
            raise ModelLogError(f"{name}: {error!r}, wanted a loadable graph") from error
        model = dataclasses.replace(self, session=session, variant=variant.kind)
        _check(model, name)
        return model


def prepare(data: bytes, envelope: Envelope) -> LiveModel:
    """Turn a version's artefact into a model that has answered once already.

    Args:
        data: the artefact; its hash has been checked.

    Raises:
        ModelLogError: it cannot be loaded, or fails the self-check.
    """
    name = f"version {envelope.id} (number {envelope.number})"
    try:
        model = _load(data, envelope)
    except Exception as error:  # broken bytes break anything: safetensors, msgspec, numpy, onnxruntime
        raise ModelLogError(f"{name}: {error!r}, wanted a loadable artefact") from error
    _check(model, name)
    return model


def _load(data: bytes, envelope: Envelope) -> LiveModel:
    arrays, texts = unpack(data)
    spec, coder = _spec(texts["spec"])
    encoder = FeatureEncoder(spec, coder)
    learned = under("features", arrays)
    encoder.load(learned)
    newest_s = _newest_s(learned, envelope)
    return LiveModel(
        envelope=envelope,
        spec=spec,
        encoder=encoder,
        session=_session(spec, encoder, arrays),
        explainer=Explainer(spec, _background(encoder, arrays)),
        newest_s=newest_s,
        rates=encoder.rates.table(newest_s),
        examples=_examples(arrays),
        prior_only=encoder.prior_only,
    )


def compile_network(live: LiveModel) -> None:
    """Let compiled code answer for networks from now on, if it agrees with the graph on the rows that one remembers."""
    if isinstance(live.session, Network):
        rows, count = live.examples, len(live.examples.target)
        dense = np.full((count + 1, len(live.encoder.scaler.mean)), np.nan, np.float32)
        codes = np.zeros((count + 1, len(live.encoder.categorical_names)), np.int64)
        if count:
            dense[1:], codes[1:] = rows.numeric, rows.categories
        compile_for(live.session, dense, codes)


@lru_cache(maxsize=4)
def _spec(text: str) -> tuple[ModelSpec, Coder]:
    """Versions of one model have one spec; to read it takes longer than all else of a small version."""
    spec = from_json(text)
    return spec, Coder(spec)


def _session(spec: ModelSpec, encoder: FeatureEncoder, arrays: Arrays) -> Runs:
    """What answers: the version's graph, or the learner itself where there is none."""
    if artefacts.SERVING in arrays:
        return Network(arrays[artefacts.SERVING].tobytes(), spec)
    learner = learners.make(spec)  # imports what it needs: numba, River
    learner.load(under("learner", arrays))
    return Direct(encoder, learner)


def _background(encoder: FeatureEncoder, arrays: Arrays) -> Background:
    """Rows that the version remembers; while it has none, one of means, its categories missing."""
    kept = under("importance", arrays)
    if "dense" in kept and len(kept["dense"]):
        return remembered(kept)
    codes = np.zeros((1, len(encoder.categorical_names)), np.int64)
    return Background(encoder.scaler.mean.astype(np.float32)[None], codes)


def _examples(arrays: Arrays) -> Examples:
    """Those of its rows whose label is known."""
    kept = under("importance", arrays)
    if "dense" not in kept:
        return Examples(np.zeros((0, 0), np.float32), np.zeros((0, 0), np.int64), np.zeros(0, np.float32))
    rows, target = remembered(kept), targets(kept)
    known = np.isfinite(target)
    return Examples(rows.dense[known], rows.categories[known], target[known])


def check_loss(model: LiveModel, other: LiveModel, budget: float) -> None:
    """See that a model is not much worse than another one, on the labelled rows that it remembers itself.

    It has learned these rows, the other one perhaps not: a sound one does not lose by much. Nothing is said where
    there are too few rows, where one of them answers with the prior, or where features or classes differ; nor of
    River's estimators, which may not be asked here while they answer elsewhere.

    Args:
        budget: how much more it may lose: log-loss, or for regression squared error as a share of the label's variance.

    Raises:
        ModelLogError: it loses more.
    """
    rows = model.examples
    apart = model.envelope.signature != other.envelope.signature or model.prior_only or other.prior_only
    if apart or model.spec.learner.kind == "river" or len(rows.target) < FEWEST_CHECKED:
        return
    unit = target_variance(rows) if model.spec.task == "regression" else 1.0
    if unit == 0.0:
        return
    mine, its = (_loss(m, rows) / unit for m in (model, other))
    if not mine <= its + budget:
        name = f"{model.variant} of version {model.envelope.id} (number {model.envelope.number})"
        before = f"the {its:.4f} of version {other.envelope.id} (number {other.envelope.number})"
        wanted = f"wanted at most {budget:g} more than {before}"
        raise ModelLogError(f"{name}: self-check lost {mine:.4f} on {len(rows.target)} rows, {wanted}")


def _loss(model: LiveModel, rows: Examples) -> float:
    return mean_loss(model.spec.task, model.session.run(rows.numeric, rows.categories), rows.target)


def _newest_s(learned: Arrays, envelope: Envelope) -> float:
    """Newest label time in the rates; without rates nothing depends on it: the newest clock."""
    times_s = learned["rates.last_s"]
    if times_s.size:
        return float(times_s.astype(np.float64).max())
    return max((clock_s for _, clock_s in envelope.replay_from.values()), default=0.0)


def _check(model: LiveModel, name: str) -> None:
    """Answer one row whose features are all missing; the session is warm afterwards.

    Raises:
        ModelLogError: it fails, or the answer has a wrong shape or is no probability.
    """
    try:
        scores = dataclasses.replace(model, prior_only=False).predict([{}])  # the graph's, whatever it will say
    except Exception as error:  # onnxruntime's errors share no base
        raise ModelLogError(f"{name}: self-check failed with {error!r}") from error
    wanted = (1, model.spec.outputs)
    if scores.shape != wanted:
        raise ModelLogError(f"{name}: self-check gave shape {scores.shape}, wanted {wanted}")
    possible = np.isfinite(scores)
    if model.spec.task != "regression":
        possible &= (scores >= 0.0) & (scores <= 1.0)
    if not possible.all():
        kind = "a finite number" if model.spec.task == "regression" else "probabilities"
        raise ModelLogError(f"{name}: self-check gave {scores.tolist()}, wanted {kind}")

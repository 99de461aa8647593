"""The model as tensors: inputs -> [columns -> live model] -> outputs; the Open Inference Protocol without its wires.

B rows, N numeric features, C categorical features, K classes

Inputs are one tensor (B,) or (B, 1) per feature, by its name, those that are not given being missing; or one
tensor ``features`` (B, N + C) of numbers in the spec's order. A NaN is missing. Outputs are ``scores`` (B, K) and
``label`` (B,), or for regression ``value`` (B,).
"""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.features import FeatureEncoder
from models.spec import ModelSpec
from stream_app.errors import ServingError
from stream_app.live import LiveModel, Scores
from stream_app.serving import scoring
from stream_app.serving.limits import Limits
from stream_app.serving.messages import version_age_s
from stream_app.serving.source import Source
from stream_app.serving.tensors import Parameter, Tensor

MATRIX = "features"
"""Input of all features at once."""
TIME = "time_s"
"""Input (B,) of the times at which recent label rates are read."""
MISSING = "missing"
"""Parameter of an input: the value that says that there is none."""


Categories = Sequence[str | int | None]
"""Of B rows."""


class Asked(NamedTuple):
    """A ModelInfer request."""

    model: str
    version: str
    id: str
    inputs: Sequence[Tensor]
    outputs: Sequence[str]
    """Names of those wanted; none are all."""


class Answered(NamedTuple):
    """A ModelInfer response."""

    model: str
    version: str
    id: str
    parameters: Mapping[str, Parameter]
    outputs: Sequence[Tensor]


class Declaration(NamedTuple):
    """What metadata says of a tensor."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Columns(NamedTuple):
    """What is asked, ready for ``LiveModel.predict_columns``."""

    numeric: NDArray[np.float64]
    """(B, N)"""
    categories: Sequence[Categories]
    """C"""
    times_s: NDArray[np.float64]
    """(B,)"""


async def infer(source: Source, limits: Limits, asked: Asked) -> Answered:
    """Answer one request, all rows with one version.

    Raises:
        ServingError: NOT_FOUND: another model or version is live; INVALID_ARGUMENT: tensors that it cannot take;
            UNAVAILABLE: as ``Source.live``.
    """
    live = named(source.live(), asked.model, asked.version)
    names = [d.name for d in outputs_of(live.spec)]
    for name in asked.outputs:
        if name not in names:
            raise _wrong(f"outputs: there is no {name!r}, wanted of {', '.join(names)}")
    given = columns(live.encoder, asked.inputs, limits)
    live, scores = await _scored(source, live, given, by_version=bool(asked.version))
    outputs = [t for t in _outputs(live.spec, scores) if t.name in (asked.outputs or names)]
    return Answered(live.spec.name, str(live.envelope.number), asked.id, _parameters(live, source.log_age_s()), outputs)


async def _scored(source: Source, live: LiveModel, given: Columns, *, by_version: bool) -> tuple[LiveModel, Scores]:
    """(B, K), and who said them: ``live``, or what is tried beside it unless a version was asked for."""
    chosen = source.chosen("", partial(_values_of, live.encoder, given))
    if by_version or chosen.live.envelope.signature != live.envelope.signature:
        return live, await scoring.score_columns(live, given.numeric, given.categories, given.times_s)
    try:
        scores = await scoring.score_columns(chosen.live, given.numeric, given.categories, given.times_s)
    except Exception as error:
        if chosen.role == "champion":
            raise
        source.traffic.failed(error)
        return live, await scoring.score_columns(live, given.numeric, given.categories, given.times_s)
    source.traffic.note(
        chosen, scores, lambda model: model.predict_columns(given.numeric, given.categories, given.times_s)
    )
    return chosen.live, scores


def _values_of(encoder: FeatureEncoder, given: Columns, feature: str) -> Iterable[object]:
    place, n = encoder.places.get(feature), len(encoder.numeric_names)
    if place is None:
        return ()
    return given.numeric[:, place].tolist() if place < n else given.categories[place - n]


def named(live: LiveModel, model: str, version: str) -> LiveModel:
    """Raises ServingError: NOT_FOUND: ``model``, or a ``version`` that is not empty, is not what is live."""
    if model != live.spec.name:
        raise ServingError("NOT_FOUND", f"there is no model {model!r}, wanted {live.spec.name!r}")
    if version not in ("", str(live.envelope.number)):
        text = f"version {version!r} of {model!r} is not live, wanted {live.envelope.number} or none"
        raise ServingError("NOT_FOUND", text)
    return live


def inputs_of(spec: ModelSpec) -> list[Declaration]:
    """One per feature; integers do for a categorical one, too, and any number for a numeric one."""
    numeric = [Declaration(name, "FP32", (-1, 1)) for name in spec.features.numeric]
    return numeric + [Declaration(name, "BYTES", (-1, 1)) for name in spec.features.categorical]


def outputs_of(spec: ModelSpec) -> list[Declaration]:
    if spec.task == "regression":
        return [Declaration("value", "FP32", (-1,))]
    return [Declaration("scores", "FP32", (-1, len(spec.score_names))), Declaration("label", "BYTES", (-1,))]


def properties_of(spec: ModelSpec) -> dict[str, str]:
    """What tensors cannot say: the order of features in ``features``, and of classes in ``scores``."""
    order = [d.name for d in inputs_of(spec)]
    return {"task": spec.task, MATRIX: json.dumps(order), "classes": json.dumps(_classes(spec))}


def _classes(spec: ModelSpec) -> Sequence[str]:
    return () if spec.task == "regression" else spec.score_names


def _parameters(live: LiveModel, log_age_s: float) -> dict[str, Parameter]:
    """Ages are whole milliseconds: clients' parameters know no fractions."""
    return {
        "version_id": live.envelope.id,
        "epoch": live.envelope.epoch,
        "variant": live.variant,
        "prior_only": live.prior_only,
        "version_age_ms": int(1000 * version_age_s(live.envelope)),
        "log_age_ms": int(1000 * log_age_s),
    }


def _outputs(spec: ModelSpec, scores: Scores) -> list[Tensor]:
    rows = len(scores)
    if spec.task == "regression":
        return [Tensor("value", "FP32", (rows,), scores.reshape(-1))]
    if spec.task == "binary":
        scores = np.concatenate([1.0 - scores, scores], axis=1)  # (B, 2)
    classes = spec.score_names
    said = {"classes": json.dumps(classes)}
    labels = [classes[k] for k in scores.argmax(axis=1).tolist()]
    return [
        Tensor("scores", "FP32", (rows, len(classes)), scores.reshape(-1), said),
        Tensor("label", "BYTES", (rows,), labels),
    ]


# Inputs become columns ----------------------------------------------------------------------------


def columns(encoder: FeatureEncoder, inputs: Sequence[Tensor], limits: Limits) -> Columns:
    """Raises ServingError: INVALID_ARGUMENT: tensors that the model cannot take."""
    tensors = {tensor.name: tensor for tensor in inputs}
    if len(tensors) < len(inputs):
        names = [tensor.name for tensor in inputs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _wrong(f"inputs: {twice!r} is there {names.count(twice)} times, wanted once")
    rows = _rows(inputs, limits)
    features = encoder.numeric_names + encoder.categorical_names
    times = None if TIME in features else tensors.pop(TIME, None)
    times_s = np.full(rows, np.nan) if times is None else _finite(times, _numbers(times, rows))
    if MATRIX in tensors and MATRIX not in features:
        numeric, categories = _matrix(encoder, tensors.pop(MATRIX), rows)
        features = (MATRIX,) if tensors else features
    else:
        numeric = np.full((rows, len(encoder.numeric_names)), np.nan)
        for n, name in enumerate(encoder.numeric_names):
            if (tensor := tensors.pop(name, None)) is not None:
                numeric[:, n] = _finite(tensor, _numbers(tensor, rows))
        categories = [_categories(tensors.pop(name, None), rows) for name in encoder.categorical_names]
    for name in tensors:
        raise _wrong(f"inputs: the model has no feature {name!r}; {_hint(name, features)}")
    return Columns(numeric, categories, times_s)


def _rows(inputs: Sequence[Tensor], limits: Limits) -> int:
    """B, which all inputs agree on."""
    if not inputs:
        raise _wrong("inputs is empty, wanted at least one tensor")
    first = inputs[0]
    for tensor in inputs:
        if not tensor.shape or tensor.shape[0] != first.shape[0]:
            wanted = f"as many rows as {first.name!r} has" if first.shape else "at least one dimension"
            raise _wrong(f"{_named(tensor)}, wanted {wanted}")
    if not 0 < first.shape[0] <= limits.rows:
        raise _wrong(f"{_named(first)}, wanted 1 to {limits.rows} rows")
    return first.shape[0]


def _hint(name: str, features: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, features, 1)
    return f"did you mean {near[0]!r}?" if near else f"it has {', '.join(features)}"


def _matrix(encoder: FeatureEncoder, tensor: Tensor, rows: int) -> tuple[NDArray[np.float64], list[Categories]]:
    n, c = len(encoder.numeric_names), len(encoder.categorical_names)
    if tensor.shape != (rows, n + c):
        raise _wrong(f"{_named(tensor)}, wanted [{rows}, {n + c}]: {n} numeric features, then {c} categorical ones")
    values = _numbers(tensor._replace(shape=(rows * (n + c),)), rows * (n + c)).reshape(rows, n + c)
    numeric = _finite(tensor, values[:, :n])
    names = encoder.categorical_names
    return numeric, [_whole(f"feature {names[i]!r}", values[:, n + i]) for i in range(c)]


def _numbers(tensor: Tensor, rows: int) -> NDArray[np.float64]:
    """(B,)"""
    if tensor.shape not in ((rows,), (rows, 1)):
        raise _wrong(f"{_named(tensor)}, wanted [{rows}] or [{rows}, 1]")
    if not isinstance(tensor.values, np.ndarray) or tensor.datatype == "BOOL":
        raise _wrong(f"{_named(tensor)}, wanted numbers, such as FP32")
    values = tensor.values.astype(np.float64)
    if (missing := tensor.parameters.get(MISSING)) is not None:
        if isinstance(missing, str):
            raise _wrong(f"{_named(tensor)}: parameter {MISSING} is {missing!r}, wanted a number")
        values[values == missing] = np.nan
    return values


def _finite(tensor: Tensor, values: NDArray[np.float64]) -> NDArray[np.float64]:
    infinite = np.isinf(values)
    if infinite.any():
        at = np.argwhere(infinite)[0].tolist()
        raise _wrong(f"{_named(tensor)}: element {at} is infinite, wanted finite numbers (NaN means missing)")
    return values


def _categories(tensor: Tensor | None, rows: int) -> Categories:
    if tensor is None:
        return [None] * rows
    if isinstance(tensor.values, np.ndarray):
        return _integers(tensor, rows)
    if tensor.shape not in ((rows,), (rows, 1)):
        raise _wrong(f"{_named(tensor)}, wanted [{rows}] or [{rows}, 1]")
    try:
        texts = [v.decode() if isinstance(v, bytes) else v for v in tensor.values]
    except UnicodeDecodeError as error:
        raise _wrong(f"{_named(tensor)}: has {error.object[:20]!r}, wanted texts in UTF-8") from error
    missing = tensor.parameters.get(MISSING)
    return texts if missing is None else [None if text == missing else text for text in texts]


def _integers(tensor: Tensor, rows: int) -> list[int | None]:
    """Exact: a double does not hold every integer of 64 bits."""
    if tensor.datatype.startswith("FP") or tensor.datatype == "BOOL":
        return _whole(f"feature {tensor.name!r}", _numbers(tensor, rows))
    _numbers(tensor, rows)
    missing = tensor.parameters.get(MISSING)
    return [None if v == missing else v for v in np.asarray(tensor.values).tolist()]


def _whole(what: str, values: NDArray[np.float64]) -> list[int | None]:
    """Numbers that name categories."""
    wrong = ~np.isnan(values) & (~np.isfinite(values) | (np.floor(values) != values))
    if wrong.any():
        at = int(wrong.argmax())
        raise _wrong(f"row {at}: {what} is {values[at]}, wanted a whole number (NaN means missing)")
    return [None if v != v else int(v) for v in values.tolist()]


def _named(tensor: Tensor) -> str:
    return f"input {tensor.name!r} is {tensor.datatype} {list(tensor.shape)}"


def _wrong(text: str) -> ServingError:
    return ServingError("INVALID_ARGUMENT", text)

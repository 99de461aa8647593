"""Rows or columns of a request become scores: request -> [check -> values by place -> live model] -> scores.

B rows, K scores, F features, N of them numeric, C categorical
"""

import asyncio
import math
from collections.abc import Iterable, Sequence

import numpy as np

from models.features import FeatureEncoder, FeatureError
from models.spec import ModelSpec
from stream_app.errors import ServingError
from stream_app.live import LiveModel, Scores, Times
from stream_app.serving.limits import Limits
from stream_app.wire import stream_app_pb2 as pb

COLUMN_ROWS_AT_ONCE = 256
"""Rows given as columns, scored before other calls get their turn."""
Values = tuple[float | int | str | None, ...]
_DOUBLE = np.dtype("<f8")


def check(request: pb.PredictRequest, spec: ModelSpec, limits: Limits) -> None:
    """Raises ServingError: INVALID_ARGUMENT: too many rows or none, or they cannot be explained so."""
    rows, explain = len(request.rows), request.explain
    if request.HasField("columns"):
        if rows or explain:
            what = f"{rows} rows" if rows else "explain"
            raise ServingError("INVALID_ARGUMENT", f"the request has columns and {what}, wanted columns alone")
        rows = request.columns.rows
    if rows == 0:
        raise ServingError("INVALID_ARGUMENT", "rows is empty, wanted at least one row")
    if rows > limits.rows:
        raise ServingError("INVALID_ARGUMENT", f"rows has {rows} rows, wanted at most {limits.rows}")
    if explain:
        _check_explain(explain, rows, spec, limits)


def _check_explain(explain: pb.Explain, rows: int, spec: ModelSpec, limits: Limits) -> None:
    if explain not in pb.Explain.values():
        raise ServingError("INVALID_ARGUMENT", f"explain is {explain}, wanted {' or '.join(pb.Explain.keys())}")
    if rows > limits.explained_rows:
        text = f"rows has {rows} rows, wanted at most {limits.explained_rows} to explain"
        raise ServingError("INVALID_ARGUMENT", text)
    if explain == pb.EXPLAIN_LOG_ODDS and spec.task != "binary":
        text = f"explain is EXPLAIN_LOG_ODDS, wanted EXPLAIN_SCORE for task {spec.task}"
        raise ServingError("INVALID_ARGUMENT", text)


def values_of(request: pb.PredictRequest, feature: str) -> Iterable[object]:
    """The values that a request's rows have of a feature; what no version could answer is said later."""
    for row in request.rows:
        yield _empty(row.features[feature]) if feature in row.features else None
    for column in request.columns.columns:
        if column.name == feature:
            yield from column.texts
            yield from np.frombuffer(column.numbers[: len(column.numbers) // 8 * 8], _DOUBLE).tolist()


def values(encoder: FeatureEncoder, rows: Sequence[pb.Row], start: int) -> list[Values]:
    """Each row's values in the encoder's order.

    Args:
        start: the first row's place in the request, for errors to name.

    Raises:
        ServingError: INVALID_ARGUMENT, naming the row.
    """
    found: list[Values] = []
    try:
        for row in rows:
            found.append(_values(encoder, row))
    except FeatureError as error:
        raise ServingError("INVALID_ARGUMENT", f"rows[{start + len(found)}]: {error}") from error
    return found


def _values(encoder: FeatureEncoder, row: pb.Row) -> Values:
    found: list[object] = [None] * len(encoder.places)
    features, places = row.features, encoder.places
    for name in features:  # items() is several times as slow in protobuf's maps
        value, place = features[name], places.get(name)
        # Both are falsy where the other is set, or none is.
        found[encoder.place(name) if place is None else place] = value.number or value.text or _empty(value)
    return encoder.checked(found)


def _empty(value: pb.Value) -> object:
    """0.0, "", or None where there is none."""
    kind = value.WhichOneof("kind")
    return None if kind is None else getattr(value, kind)


def times_s(rows: Sequence[pb.Row], start: int) -> Times | None:
    """Event times (B,), NaN where a row has none; None if all have none.

    Raises:
        ServingError: INVALID_ARGUMENT, naming the row.
    """
    found = [row.time_s if row.HasField("time_s") else None for row in rows]
    if not any(time_s is not None for time_s in found):
        return None
    for i, time_s in enumerate(found):
        if time_s is not None and not math.isfinite(time_s):
            text = f"rows[{start + i}]: time_s is {time_s}, wanted seconds since the epoch"
            raise ServingError("INVALID_ARGUMENT", text)
    return np.array([math.nan if time_s is None else time_s for time_s in found])


def columns(encoder: FeatureEncoder, asked: pb.Columns) -> tuple[Times, list[Sequence[object]], Times | None]:
    """In the encoder's order: numeric features (B, N), C times B categories; event times (B,) or NaN, or None for all.

    Raises:
        ServingError: INVALID_ARGUMENT, naming the column.
    """
    n, size = len(encoder.numeric_names), asked.rows * _DOUBLE.itemsize
    categories: list[Sequence[object]] = [[None] * asked.rows] * len(encoder.categorical_names)
    places, parts = [], []
    try:
        for column in asked.columns:
            place = encoder.place(column.name)
            if place >= n:
                categories[place - n] = _categories(column, asked.rows)
                continue
            if column.texts:
                raise FeatureError(f"feature {column.name!r} has texts, wanted numbers")
            places.append(place)
            parts.append(column.numbers)
            if len(parts[-1]) != size:
                _doubles(parts[-1], asked.rows, column.name)
        numeric = np.full((n, asked.rows), np.nan)
        numeric[places] = np.frombuffer(b"".join(parts), _DOUBLE).reshape(len(parts), asked.rows)
        _check_finite(encoder, numeric.T)
    except FeatureError as error:
        raise ServingError("INVALID_ARGUMENT", f"columns: {error}") from error
    return numeric.T, categories, _at_s(asked)


def _check_finite(encoder: FeatureEncoder, numeric: Times) -> None:
    infinite = np.isinf(numeric)
    if infinite.any():
        row, place = np.argwhere(infinite)[0].tolist()
        text = f"is {numeric[row, place]} in row {row}, wanted a finite number (NaN means missing)"
        raise FeatureError(f"feature {encoder.numeric_names[place]!r} {text}")


def _categories(column: pb.Column, rows: int) -> Sequence[object]:
    if column.numbers:
        return [_integer(column.name, v) for v in _doubles(column.numbers, rows, column.name).tolist()]
    texts: list[object] = list(column.texts)
    if column.at:
        texts = [None, *texts]
        try:
            texts = [texts[i] for i in column.at]
        except IndexError as error:
            wanted = f"wanted at most {len(column.texts)}, as many as it has texts"
            raise FeatureError(f"feature {column.name!r} has {max(column.at)} in `at`, {wanted}") from error
    if len(texts) != rows:
        raise FeatureError(f"feature {column.name!r} has {len(texts)} values, wanted one per row: {rows}")
    return texts


def _integer(name: str, value: float) -> int | None:
    if math.isnan(value):
        return None
    if not value.is_integer():
        raise FeatureError(f"feature {name!r} is {value!r}, wanted a string or an integer")
    return int(value)


def _doubles(data: bytes, rows: int, name: str) -> Times:
    """(B,), read where they lie."""
    if len(data) != rows * _DOUBLE.itemsize:
        raise FeatureError(
            f"{name!r} has {len(data)} bytes, wanted {_DOUBLE.itemsize} per row: {rows * _DOUBLE.itemsize}"
        )
    return np.frombuffer(data, _DOUBLE)


def _at_s(asked: pb.Columns) -> Times | None:
    if not asked.times_s:
        return None
    try:
        found = _doubles(asked.times_s, asked.rows, "times_s")
    except FeatureError as error:
        raise ServingError("INVALID_ARGUMENT", f"columns: {error}") from error
    if np.isinf(found).any():
        raise ServingError("INVALID_ARGUMENT", "columns: times_s is infinite, wanted seconds since the epoch, or NaN")
    return found


async def score_columns(
    live: LiveModel, numeric: Times, categories: Sequence[Sequence[object]], times_s: Times | None
) -> Scores:
    """(B, K) of whole columns, as ``LiveModel.predict_columns``; other calls get their turn in between."""
    parts = []
    for start in range(0, len(numeric), COLUMN_ROWS_AT_ONCE):
        if start:
            await asyncio.sleep(0)
        part = slice(start, start + COLUMN_ROWS_AT_ONCE)
        at_s = None if times_s is None else times_s[part]
        parts.append(live.predict_columns(numeric[part], [c[part] for c in categories], at_s))
    return np.concatenate(parts)


def explanation(live: LiveModel, row: pb.Row, unit: pb.Explain) -> pb.Explanation:
    """Of a row that has been scored, so is sound."""
    time_s = row.time_s if row.HasField("time_s") else None
    by_name = {name: _empty(value) for name, value in row.features.items()}
    explained, dense = live.explain(by_name, time_s, log_odds=unit == pb.EXPLAIN_LOG_ODDS)
    k = int(explained.said.argmax())  # binary and regression have only one
    names, contributions = live.explainer.grouping.names, explained.contributions[:, k]  # (F,)
    rates = live.explainer.grouping.rate_columns
    found = []
    for f in np.argsort(-np.abs(contributions), kind="stable").tolist():
        value = pb.Value(number=dense[rates[f] + k]) if f in rates else row.features.get(names[f])
        found.append(pb.Attribution(name=names[f], value=value, contribution=contributions[f]))
    label = {"binary": live.spec.score_names[-1], "regression": ""}.get(live.spec.task, live.spec.score_names[k])
    return pb.Explanation(label=label, base=explained.base[k], said=explained.said[k], attributions=found)

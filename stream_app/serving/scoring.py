"""Rows of a request become scores: request -> [check -> values by name -> live model] -> scores.

B rows, K scores, F features
"""

import asyncio
import math
from collections.abc import Mapping, Sequence

import numpy as np

from models.features import FeatureError
from models.spec import ModelSpec
from stream_app.errors import ServingError
from stream_app.live import LiveModel, Scores, Times
from stream_app.serving.limits import Limits
from stream_app.wire import stream_app_pb2 as pb

ROWS_AT_ONCE = 64
"""Rows scored before other calls get their turn."""


def check(request: pb.PredictRequest, spec: ModelSpec, limits: Limits) -> None:
    """Raises ServingError: INVALID_ARGUMENT: too many rows or none, or they cannot be explained so."""
    rows, explain = len(request.rows), request.explain
    if rows == 0:
        raise ServingError("INVALID_ARGUMENT", "rows is empty, wanted at least one row")
    if rows > limits.rows:
        raise ServingError("INVALID_ARGUMENT", f"rows has {rows} rows, wanted at most {limits.rows}")
    if explain not in pb.Explain.values():
        raise ServingError("INVALID_ARGUMENT", f"explain is {explain}, wanted {' or '.join(pb.Explain.keys())}")
    if explain and rows > limits.explained_rows:
        text = f"rows has {rows} rows, wanted at most {limits.explained_rows} to explain"
        raise ServingError("INVALID_ARGUMENT", text)
    if explain == pb.EXPLAIN_LOG_ODDS and spec.task != "binary":
        text = f"explain is EXPLAIN_LOG_ODDS, wanted EXPLAIN_SCORE for task {spec.task}"
        raise ServingError("INVALID_ARGUMENT", text)


def score(live: LiveModel, rows: Sequence[pb.Row], start: int) -> Scores:
    """(B, K).

    Args:
        start: the first row's place in the request, for errors to name.

    Raises:
        ServingError: INVALID_ARGUMENT, naming the row.
    """
    times_s = [row.time_s if row.HasField("time_s") else None for row in rows]
    for i, time_s in enumerate(times_s):
        if time_s is not None and not math.isfinite(time_s):
            text = f"rows[{start + i}]: time_s is {time_s}, wanted seconds since the epoch"
            raise ServingError("INVALID_ARGUMENT", text)
    values = [_values(row) for row in rows]
    try:
        return live.predict(values, times_s)
    except FeatureError as error:
        text = f"rows[{start + _first_wrong(live, values)}]: {error}"
        raise ServingError("INVALID_ARGUMENT", text) from error


async def score_columns(
    live: LiveModel, numeric: Times, categories: Sequence[Sequence[object]], times_s: Times
) -> Scores:
    """(B, K) of whole columns, as ``LiveModel.predict_columns``; other calls get their turn in between."""
    parts = []
    for start in range(0, len(numeric), ROWS_AT_ONCE):
        if start:
            await asyncio.sleep(0)
        part = slice(start, start + ROWS_AT_ONCE)
        parts.append(live.predict_columns(numeric[part], [c[part] for c in categories], times_s[part]))
    return np.concatenate(parts)


def explanation(live: LiveModel, row: pb.Row, unit: pb.Explain) -> pb.Explanation:
    """Of a row that has been scored, so is sound."""
    time_s = row.time_s if row.HasField("time_s") else None
    explained, dense = live.explain(_values(row), time_s, log_odds=unit == pb.EXPLAIN_LOG_ODDS)
    k = int(explained.said.argmax())  # binary and regression have only one
    names, contributions = live.explainer.grouping.names, explained.contributions[:, k]  # (F,)
    rates = live.explainer.grouping.rate_columns
    found = []
    for f in np.argsort(-np.abs(contributions), kind="stable").tolist():
        value = pb.Value(number=dense[rates[f] + k]) if f in rates else row.features.get(names[f])
        found.append(pb.Attribution(name=names[f], value=value, contribution=contributions[f]))
    label = {"binary": live.spec.score_names[-1], "regression": ""}.get(live.spec.task, live.spec.score_names[k])
    return pb.Explanation(label=label, base=explained.base[k], said=explained.said[k], attributions=found)


def _values(row: pb.Row) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in row.features.items():
        kind = value.WhichOneof("kind")
        found[name] = None if kind is None else getattr(value, kind)
    return found


def _first_wrong(live: LiveModel, values: Sequence[Mapping[str, object]]) -> int:
    """Index of the first row that the encoder refuses."""
    for i, row in enumerate(values):
        try:
            live.predict([row])
        except FeatureError:
            return i
    return 0

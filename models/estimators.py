"""River's estimators by their import path: spec's [learner] -> [checks] -> an estimator or pipeline.

Only classes of River are made, from plain settings. A setting may be such a table itself:
``settings = {model = {estimator = "river.tree.HoeffdingTreeClassifier"}}``.
"""

import difflib
import importlib
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from river import base, compose

_PATH = re.compile(r"(river(?:\.[a-z][a-z0-9_]*)+)\.([A-Z]\w*)")


class EstimatorError(ValueError):
    """River has no such estimator, or it cannot be made or used so."""


def build(stages: Sequence[tuple[str, Mapping[str, Any]]], *, task: str, seed: int) -> Any:
    """An estimator, or a pipeline of them.

    Args:
        stages: import path and settings of each; all but the last transform.
        task: binary, multiclass or regression.
        seed: given to whatever takes one and has none in its settings, so that a replay takes the same path.

    Raises:
        EstimatorError: naming the path, what is wrong with it and what was wanted.
    """
    made = [_made(path, settings, seed) for path, settings in stages]
    for (path, _), part in zip(stages[:-1], made[:-1], strict=True):
        if not isinstance(part, base.Transformer):
            raise EstimatorError(f"{path} is no transformer, wanted one before the end of a pipeline")
    (path, _), last = stages[-1], made[-1]
    wanted = base.Regressor if task == "regression" else base.Classifier
    if not isinstance(last, wanted):
        raise EstimatorError(f"{path} is no {wanted.__name__.lower()}, wanted one for task {task}")
    if task == "multiclass" and isinstance(last, base.Classifier) and not last._multiclass:
        raise EstimatorError(
            f"{path} knows two classes only, wanted another for task multiclass, "
            "or it inside river.multiclass.OneVsRestClassifier"
        )
    return compose.Pipeline(*made) if len(made) > 1 else last


def _made(path: str, settings: Mapping[str, Any], seed: int) -> Any:
    kind = _class(path)
    takes = inspect.signature(kind).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    for name in settings:
        if name not in takes and not anything:
            near = difflib.get_close_matches(name, takes, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(takes) or 'none'}"
            raise EstimatorError(f"{path} has no setting {name!r}; {hint}")
    given = {name: _setting(value, seed) for name, value in settings.items()}
    if "seed" in takes and given.get("seed") is None:
        given["seed"] = seed
    try:
        return kind(**given)
    except EstimatorError:
        raise
    except Exception as error:  # whatever a constructor thinks of its settings
        raise EstimatorError(f"{path} cannot be made with {dict(settings)}: {error}") from error


def _setting(value: Any, seed: int) -> Any:
    if isinstance(value, Mapping) and "estimator" in value:
        if unknown := value.keys() - {"estimator", "settings"}:
            raise EstimatorError(
                f"{value['estimator']} has {', '.join(sorted(unknown))}, wanted estimator and settings"
            )
        return _made(value["estimator"], value.get("settings", {}), seed)
    if isinstance(value, list | tuple):
        return [_setting(v, seed) for v in value]
    return value


def _class(path: object) -> type[base.Base]:
    found = _PATH.fullmatch(path) if isinstance(path, str) else None
    if found is None:
        raise EstimatorError(f"{path!r} is no path of a class in River, such as river.tree.HoeffdingTreeClassifier")
    try:
        module = importlib.import_module(found[1])
    except ImportError as error:
        raise EstimatorError(f"{path}: {error}") from error
    kind = getattr(module, found[2], None)
    if not isinstance(kind, type) or kind.__module__.split(".")[0] != "river" or not issubclass(kind, base.Base):
        near = difflib.get_close_matches(found[2], [n for n in dir(module) if n[0].isupper()], 1)
        raise EstimatorError(f"{found[1]} has no {found[2]}" + (f", did you mean {near[0]}?" if near else ""))
    if inspect.isabstract(kind):
        raise EstimatorError(f"{path} is abstract, wanted one that can learn")
    return kind

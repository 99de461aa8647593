"""A River estimator at rest: object <-> bytes. River's objects can only be pickled; what is read back is limited.

A pickle names functions to call. Here it may name River's estimators and their parts, containers, and what numpy's
arrays and generators are made of: nothing that opens, imports or evaluates. Everything else is refused before it is
looked up, and so are attributes of what is allowed.
"""

import importlib
import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NAMES = frozenset(
    {
        *(f"builtins.{n}" for n in ("bool", "bytearray", "complex", "dict", "float", "frozenset", "int", "list")),
        *(f"builtins.{n}" for n in ("object", "range", "set", "slice", "str", "tuple")),
        *(f"collections.{n}" for n in ("Counter", "OrderedDict", "defaultdict", "deque")),
        *(f"datetime.{n}" for n in ("date", "datetime", "time", "timedelta", "timezone")),
        *("copyreg._reconstructor", "copy.deepcopy", "functools.partial"),  # of what is allowed itself
        "random.Random",
        "statistics.NormalDist",
        *("numpy.dtype", "numpy.ndarray", "numpy._core.numeric._frombuffer"),
        *("numpy._core.multiarray._reconstruct", "numpy._core.multiarray.scalar"),
        *(f"numpy.random._pickle.{n}_ctor" for n in ("__bit_generator", "__generator", "__randomstate")),
        *("numpy.random._mt19937.MT19937", "numpy.random._pcg64.PCG64"),
        # River's own functions are not allowed as such; these do nothing but make a part.
        "river.naive_bayes.gaussian.GaussianNB._make_gaussian",
        "river.tree.splitter.ebst_splitter.EBSTNode._update_estimator_univariate",
        "river.tree.splitter.ebst_splitter.EBSTNode._update_estimator_multivariate",
        "river.forest.online_extra_trees.ExtraTrees._detection_mode_all",
        "river.forest.online_extra_trees.ExtraTrees._detection_mode_drop",
        "river.forest.online_extra_trees.ExtraTrees._detection_mode_off",
        "river._river_rust.vectordict.euclidean_distance_tuple",
    }
)
_RIVER = frozenset(
    {
        *("active", "anomaly", "bandit", "base", "cluster", "compose", "covariance", "drift", "dummy", "ensemble"),
        *("facto", "feature_extraction", "feature_selection", "forest", "imblearn", "linear_model", "metrics"),
        *("misc", "model_selection", "multiclass", "multioutput", "naive_bayes", "neighbors", "neural_net", "optim"),
        *("preprocessing", "proba", "rules", "sketch", "stats", "time_series", "tree", "utils", "_river_rust"),
    }
)
"""Packages whose classes may be named: no datasets, no streams, nothing that reads files or talks to a network."""


class PickleError(ValueError):
    """An estimator that cannot be kept, or bytes that are none."""


def dumps(estimator: object) -> NDArray[np.uint8]:
    """The estimator's bytes, (size,).

    Raises:
        PickleError: it has parts that cannot be pickled, or nests too deeply.
    """
    try:
        data = pickle.dumps(estimator, protocol=5)
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
        raise PickleError(f"{type(estimator).__name__} cannot be kept in a version: {error}") from error
    return np.frombuffer(data, np.uint8)


def loads(data: NDArray[np.generic]) -> Any:
    """The estimator that ``dumps`` wrote.

    Raises:
        PickleError: the bytes are torn, or name what is not allowed.
    """
    try:
        return _Limited(io.BytesIO(data.tobytes())).load()
    except PickleError:
        raise
    except Exception as error:  # broken bytes break anything
        raise PickleError(f"not an estimator ({data.size} bytes): {error!r}") from error


class _Limited(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" == "builtins.getattr":
            return _method
        if f"{module}.{name}" in _NAMES:
            return super().find_class(module, name)
        packages = module.split(".")
        if packages[0] == "river" and len(packages) > 1 and packages[1] in _RIVER and "." not in name:
            found = getattr(importlib.import_module(module), name, None)
            # Modules also hold what they import: a class must be River's own.
            if isinstance(found, type) and found.__module__.split(".")[0] == "river":
                return found
        raise PickleError(f"a pickled estimator names {module}.{name}, wanted what River's are made of")


def _method(owner: object, name: str) -> Any:
    """What a pickled method looks up: one that a class allowed here defines."""
    kind = type(owner)
    known = kind.__module__.split(".")[0] in ("river", "random", "numpy") and not name.startswith("__")
    if known and not isinstance(owner, type) and callable(getattr(kind, name, None)):
        return getattr(owner, name)
    raise PickleError(f"a pickled estimator wants {name!r} of a {kind.__name__}, wanted a method of River's own")

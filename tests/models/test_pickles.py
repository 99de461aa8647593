"""Estimators come back as they were; a pickle that names anything else is refused before anything of it runs."""

import copyreg
import functools
import os
import pickle
import random
import re
import subprocess
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from river import compose, datasets, forest, linear_model, naive_bayes, neighbors, preprocessing, tree

from models.pickles import PickleError, dumps, loads

ESTIMATORS = [
    tree.HoeffdingAdaptiveTreeClassifier(grace_period=20, seed=1),
    preprocessing.StandardScaler() | linear_model.LogisticRegression(),
    forest.ARFClassifier(n_models=2, seed=1),
    forest.AMFClassifier(n_estimators=2, seed=1),
    naive_bayes.GaussianNB(),
    neighbors.KNNClassifier(),
    linear_model.PAClassifier(),
    linear_model.SoftmaxRegression(),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_an_estimator_comes_back_as_it_was(estimator: Any) -> None:
    rows = list(islice(datasets.Phishing(), 300))
    steady = estimator.clone()
    for x, y in rows[:200]:
        steady.learn_one(x, y)
    resumed = loads(dumps(steady))
    for x, y in rows[200:]:
        assert resumed.predict_one(x) == steady.predict_one(x)
        for each in (steady, resumed):
            each.learn_one(x, y)


class Evil:
    """Pickled, it is a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


MARK = Path("made-by-a-pickle")


@pytest.mark.parametrize(
    "evil",
    [
        Evil(os.system, f"touch {MARK}"),
        Evil(subprocess.check_output, ["touch", str(MARK)]),
        Evil(eval, f"open({str(MARK)!r}, 'w')"),
        Evil(exec, f"open({str(MARK)!r}, 'w')"),
        Evil(open, str(MARK), "w"),
        Evil(__import__, "os"),
        Evil(getattr, [], "__class__"),
        Evil(getattr, tree.HoeffdingTreeClassifier(), "__reduce_ex__"),
        Evil(getattr, tree.HoeffdingTreeClassifier, "mro"),
        Evil(functools.partial, os.system, f"touch {MARK}"),
        Evil(functools.partial(os.system, f"touch {MARK}")),
        Evil(datasets.Phishing),
        Evil(copyreg.add_extension, "os", "system", 1),
        {"nested": [tree.HoeffdingTreeClassifier(), Evil(os.system, f"touch {MARK}")]},
        compose.FuncTransformer(os.system),
        np.load,
    ],
    ids=range(16),
)
def test_what_names_anything_else_is_refused_and_does_nothing(
    evil: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = np.frombuffer(pickle.dumps(evil), np.uint8)
    with pytest.raises(PickleError, match=r"a pickled estimator (names|wants) .*, wanted "):
        loads(data)
    assert not MARK.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("river.compose.pipeline", "OrderedDict.fromkeys"),
        ("river.base.base", "inspect.os.system"),
        ("river.base.base", "inspect"),
        ("river.utils.pretty", "print_table"),
        ("river.datasets.base", "RemoteDataset"),
        ("river.stream.cache", "Cache"),
        ("riverbed.tree", "Tree"),
        ("models.pickles", "loads"),
    ],
)
def test_names_are_not_looked_up_through_river(module: str, name: str) -> None:
    wild = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(t)]) + t.encode() for t in (module, name)) + b"\x93."
    wanted = f"a pickled estimator names {module}.{name}, wanted what River's are made of"
    with pytest.raises(PickleError, match=re.escape(wanted)):
        loads(np.frombuffer(wild, np.uint8))


@pytest.mark.parametrize("data", [b"", b"no pickle", pickle.dumps(random.Random(0))[:-100]])
def test_torn_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(PickleError, match=r"not an estimator \(\d+ bytes\)"):
        loads(np.frombuffer(data, np.uint8))


def test_what_cannot_be_kept_says_so() -> None:
    with pytest.raises(PickleError, match="FuncTransformer cannot be kept in a version"):
        dumps(compose.FuncTransformer(lambda x: x))

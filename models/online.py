"""A model without any service: named values -> [columns, standardisation] -> mixture -> probabilities by class.

    from models.online import OnlineModel

    model = OnlineModel()  # or OnlineModel("regression")
    for x, y in stream:
        p = model.predict_proba_one(x)
        model.learn_one(x, y)

B rows   K classes seen or named so far
"""

import json
import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np

from models.features import LARGEST
from models.learner import Floats, Ints
from models.rows import MAX_CODES, Encoded, Row, RowEncoder
from models.snapshot import Arrays, SnapshotError, pack, prefixed, under, unpack
from models.spec import MAX_CLASSES

Task = Literal["classification", "regression"]
Tier = Literal["fast", "standard", "full"]
Class = str | int
"""bool among them; True is 1, as in Python."""

STEP_ROWS = MAX_CODES // 4
"""As RowEncoder.observe wants it."""


class LabelError(ValueError):
    """A label or a weight that cannot be learned from."""


class GrowingLearner(Protocol):
    """What a model learns with: a learner whose columns, classes and codes grow with the stream."""

    def predict(self, x: Floats, categories: Ints) -> Floats:
        """Probabilities (B, K), or values (B, 1). Changes nothing."""
        ...

    def learn(self, x: Floats, categories: Ints, target: Floats, weights: Floats | None = None) -> None:
        """Row by row: rows together are as the same rows one by one."""
        ...

    def grow(self, *, columns: int, classes: int, category_sizes: tuple[int, ...]) -> None:
        """Never to less; new columns were 0 so far, new categories 0."""
        ...

    def forget(self, column: int, codes: Sequence[int]) -> None:
        """These codes of a categorical column will mean something else."""
        ...

    def state(self) -> Arrays: ...

    def load(self, state: Arrays) -> None:
        """Sizes are in the state."""
        ...


class MakesLearner(Protocol):
    """Called when the first row is learned."""

    def __call__(
        self,
        *,
        task: Task,
        columns: int,
        classes: int,
        category_sizes: tuple[int, ...],
        tier: str,
        seed: int,
    ) -> GrowingLearner: ...


class OnlineModel:
    """Learns and predicts rows of named values.

    Names are strings or integers and need not be declared: new ones may come at any time, and whatever does not come
    is missing. Numbers and bools (0 or 1) are numeric, strings categorical, None and NaN missing. A feature stays what
    its first value made it. See ``models.rows`` for the limits; the same stream takes the same path.

    A refused row, label or weight leaves the model as it was.

    Args:
        task: what labels are: classes (strings, integers, bools) or numbers.
        tier: how much a row may cost.
        seed: of all that is random.
        classes: those known beforehand; others may come all the same.
        learner: makes what learns, instead of ``models.experts.mixture.Mixture``.
    """

    def __init__(
        self,
        task: Task = "classification",
        *,
        tier: Tier = "standard",
        seed: int = 0,
        classes: Sequence[Class] | None = None,
        learner: MakesLearner | None = None,
    ) -> None:
        if task not in ("classification", "regression"):
            raise ValueError(f"task is {task!r}, wanted 'classification' or 'regression'")
        if classes and task == "regression":
            raise ValueError(f"classes is {classes!r}, wanted none for regression")
        self.task, self.tier, self.seed = task, tier, seed
        self._make = learner if learner is not None else _mixture
        self._encoder = RowEncoder()
        self._classes: dict[Class, int] = {}
        for label in classes or ():
            self._classes.setdefault(_class(label), len(self._classes))
        self._counts = [0] * len(self._classes)  # labels of each class; for regression of all
        self._learner: GrowingLearner | None = None
        self._sizes = self._wanted_sizes()

    @property
    def classes(self) -> tuple[Class, ...]:
        """Named or seen, in this order."""
        return tuple(self._classes)

    @property
    def prior_only(self) -> bool:
        """Before two classes (one label, for regression) were seen, answers do not hang on the features.

        They are then {} or 1 for the only class known; or, where several were named, their frequencies with one
        label more of each; for regression 0.0.
        """
        wanted = 2 if self.task == "classification" else 1
        return sum(n > 0 for n in self._counts) < wanted

    @property
    def left_out(self) -> int:
        """Values not looked at, since there were too many features."""
        return self._encoder.left_out

    # --- answering --------------------------------------------------------------------------------------

    def predict_proba_one(self, x: Row) -> dict[Class, float]:
        """Probability of each class known so far; changes nothing.

        Raises:
            FeatureError: a name or a value is of a kind that no model takes, or of another one than before.
            TypeError: the task is regression.
        """
        return self.predict_proba_many([x])[0]

    def predict_proba_many(self, rows: Sequence[Row]) -> list[dict[Class, float]]:
        """As ``predict_proba_one``, for each row."""
        if self.task == "regression":
            raise TypeError("regression has no probabilities, wanted predict_one or predict_many")
        scores = self._scores(rows)
        if scores is None:
            total = sum(self._counts) + len(self._counts)
            return [{c: (self._counts[i] + 1) / total for c, i in self._classes.items()} for _ in rows]
        return [self._named(row) for row in scores.tolist()]

    def predict_one(self, x: Row) -> Class | float | None:
        """The likeliest class, None before any is known; the value for regression. Raises as above."""
        return self.predict_many([x])[0]

    def predict_many(self, rows: Sequence[Row]) -> list[Class | float | None]:
        """As ``predict_one``, for each row."""
        if self.task == "classification":
            return [max(p, key=p.__getitem__) if p else None for p in self.predict_proba_many(rows)]
        scores = self._scores(rows)
        return [0.0] * len(rows) if scores is None else scores[:, 0].tolist()

    def _named(self, scores: Sequence[float]) -> dict[Class, float]:
        total = sum(scores)  # 1 as float32 has it
        return {c: p / total for c, p in zip(self._classes, scores, strict=True)}

    def _scores(self, rows: Sequence[Row]) -> Floats | None:
        """(B, K); None as long as the features do not count."""
        x, categories = self._encoder.look(rows)
        if self.prior_only or not rows:
            return None
        assert self._learner is not None
        return self._learner.predict(x, categories)

    # --- learning ---------------------------------------------------------------------------------------

    def learn_one(self, x: Row, y: object, w: float = 1.0) -> None:
        """Learn one row.

        Args:
            x: values by name.
            y: the class, or the number.
            w: how many rows it stands for.

        Raises:
            FeatureError: as for ``predict_proba_one``.
            LabelError: the label or the weight is none.
        """
        self.learn_many([x], [y], None if w == 1.0 else [w])

    def learn_many(self, rows: Sequence[Row], ys: Sequence[object], ws: Sequence[float] | None = None) -> None:
        """As ``learn_one``, in order; if one is refused, those before it have been learned.

        Raises:
            ValueError: there are not as many labels or weights as rows; nothing has been learned.
        """
        for name, given in (("ys", ys), ("ws", ws)):
            if given is not None and len(given) != len(rows):
                raise ValueError(f"{name} has {len(given)} entries, wanted {len(rows)}, as rows has")
        for start in range(0, len(rows), STEP_ROWS):
            end = start + STEP_ROWS
            self._step(rows[start:end], ys[start:end], None if ws is None else ws[start:end])

    def _step(self, rows: Sequence[Row], ys: Sequence[object], ws: Sequence[float] | None) -> None:
        taken: list[Encoded] = []
        targets: list[float] = []
        weights: list[float] = []
        try:
            for i, (x, y) in enumerate(zip(rows, ys, strict=True)):
                label, weight = self._label(y), 1.0 if ws is None else _weight(ws[i])
                taken.append(self._encoder.take(x))
                targets.append(self._entered(label))
                weights.append(weight)
        finally:
            if taken:
                w = None if ws is None else np.array(weights, np.float32)
                self._learn(taken, np.array(targets, np.float32), w)

    def _label(self, y: object) -> Class | float:
        if self.task == "regression":
            return _number(y)
        label = _class(y)
        if label not in self._classes and len(self._classes) >= MAX_CLASSES:
            raise LabelError(f"label {y!r} would be one more than the {MAX_CLASSES} classes that a model takes")
        return label

    def _entered(self, label: Class | float) -> float:
        """What the learner gets of it."""
        if isinstance(label, float):
            self._counts = [sum(self._counts) + 1]
            return label
        code = self._classes.setdefault(label, len(self._classes))
        self._counts += [0] * (len(self._classes) - len(self._counts))
        self._counts[code] += 1
        return float(code)

    def _learn(self, taken: Sequence[Encoded], target: Floats, weights: Floats | None) -> None:
        x, categories = self._encoder.observe(taken)
        learner = self._grown()
        for column, codes in self._encoder.expired().items():
            learner.forget(column, codes)
        learner.learn(x, categories, target, weights)

    def _grown(self) -> GrowingLearner:
        """The learner, as large as the rows taken so far want it."""
        wanted = self._wanted_sizes()
        if self._learner is None:
            self._learner = self._made(wanted)
        elif wanted != self._sizes:
            columns, classes, category_sizes = wanted
            self._learner.grow(columns=columns, classes=classes, category_sizes=category_sizes)
        self._sizes = wanted
        return self._learner

    def _wanted_sizes(self) -> tuple[int, int, tuple[int, ...]]:
        classes = max(2, len(self._classes)) if self.task == "classification" else 1
        return self._encoder.width, classes, self._encoder.category_sizes

    def _made(self, sizes: tuple[int, int, tuple[int, ...]]) -> GrowingLearner:
        columns, classes, category_sizes = sizes
        return self._make(
            task=self.task,
            columns=columns,
            classes=classes,
            category_sizes=category_sizes,
            tier=self.tier,
            seed=self.seed,
        )

    # --- at rest ----------------------------------------------------------------------------------------

    def save(self) -> bytes:
        """Everything, as one safetensors file; nothing in it is ever executed."""
        arrays, rows = self._encoder.state()
        whole = prefixed("rows", arrays)
        if self._learner is not None:
            whole |= prefixed("learner", self._learner.state())
        model = {
            "task": self.task,
            "tier": self.tier,
            "seed": self.seed,
            "classes": list(self._classes),
            "counts": self._counts,
        }
        return pack(whole, {"model": json.dumps(model), "rows": rows})

    @classmethod
    def load(cls, data: bytes, *, learner: MakesLearner | None = None) -> "OnlineModel":
        """A saved model; what follows equals never having stopped.

        Args:
            data: from ``save``.
            learner: as the model was made with.

        Raises:
            SnapshotError: the bytes are torn, or no model.
        """
        arrays, texts = unpack(data)
        try:
            told = json.loads(texts["model"])
            model = cls(told["task"], tier=told["tier"], seed=told["seed"], classes=told["classes"], learner=learner)
            model._counts = told["counts"]
            model._encoder.load(under("rows", arrays), texts["rows"])
        except (KeyError, TypeError, ValueError) as error:
            raise SnapshotError(f"a snapshot, but of no OnlineModel: {error!r}") from error
        if state := under("learner", arrays):
            model._sizes = model._wanted_sizes()
            model._learner = model._made(model._sizes)
            model._learner.load(state)
        return model


def _mixture(**sizes: Any) -> GrowingLearner:
    from models.experts.mixture import Mixture

    return Mixture(**sizes)


def _class(y: object) -> Class:
    if isinstance(y, np.generic):
        y = y.item()
    if not isinstance(y, str | int):
        raise LabelError(f"label is {y!r}, a {type(y).__name__}; wanted a class: a string, an integer or a bool")
    return y


def _number(y: object) -> float:
    if not isinstance(y, int | float | np.integer | np.floating | np.bool_) or not -LARGEST <= y <= LARGEST:
        raise LabelError(f"label is {y!r}, wanted a finite number that a float32 holds")
    return float(y)


def _weight(w: float) -> float:
    if not 0.0 < w < math.inf:
        raise LabelError(f"weight is {w!r}, wanted a finite number above 0")
    return float(w)

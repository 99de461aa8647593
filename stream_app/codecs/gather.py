"""What a producer is given becomes examples: arguments -> [checked] -> JSON, or rows -> [gather] -> batch.

Nothing here knows the model: a wrong name or class is found where the record is read. What no model could take is
refused at once, as the caller still knows where it came from.

    B rows
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_app.codecs.batch import Batch, Coded, Doubles, coded
from stream_app.errors import ExampleError
from stream_app.events import LONGEST_ID, WEIGHTS

Value = float | int | str | None

_PLAIN = {str, float, type(None)}
_INTEGERS = (-(2**63), 2**63 - 1)
_ROW_BYTES, _VALUE_BYTES = 400, 64
"""What a row, and each of its values, takes in memory; about."""


class Example(NamedTuple):
    """One example, checked."""

    id: str
    key: str
    time_s: float | None
    features: Mapping[str, Value] | None
    label: int | str | float | None
    label_time_s: float | None
    weight: float | None

    def json(self) -> bytes:
        """As a record of the events topic."""
        said = {"id": self.id, "key": self.key, "time": self.time_s, "features": self.features}
        said |= {"label": self.label, "label_time": self.label_time_s, "weight": self.weight}
        return msgspec.json.encode({name: value for name, value in said.items() if value is not None})

    def size_bytes(self) -> int:
        """Memory it takes; about."""
        texts = sum([len(v) for v in (self.features or {}).values() if type(v) is str])
        return _ROW_BYTES + 2 * len(self.id) + _VALUE_BYTES * len(self.features or ()) + texts


def example(
    id: str,
    *,
    features: Mapping[str, Any] | None,
    time_s: float | None,
    label: Any,
    label_time_s: float | None,
    weight: float | None,
    key: str | None,
) -> Example:
    """Check one example.

    Raises:
        ExampleError: it is none; names the value, and what was wanted.
    """
    if not isinstance(id, str) or not 0 < len(id) <= LONGEST_ID:
        raise ExampleError(f"id is {id!r:.80}, wanted a text of 1 to {LONGEST_ID} characters")
    if key is not None and not isinstance(key, str):
        raise ExampleError(f"example {id!r}: key is {key!r}, wanted a text")
    if features is None and label is None:
        raise ExampleError(f"example {id!r} has neither features nor a label")
    _text(id, id if key is None else f"{id}{key}")
    checked = None if features is None else _checked(id, features)
    at_s = None if features is None else _finite(id, "time_s", time_s, "seconds since the epoch")
    told_s = None if label is None else _finite(id, "label_time_s", label_time_s, "seconds since the epoch")
    if weight is not None and not WEIGHTS[0] <= _finite(id, "weight", weight, "a number") <= WEIGHTS[1]:
        raise ExampleError(f"example {id!r}: weight is {weight!r}, wanted {WEIGHTS[0]:g} to {WEIGHTS[1]:g}")
    told = None if label is None else _value(id, "label", label)
    if isinstance(told, str):
        _text(id, told)
    if label is not None and told is None:
        raise ExampleError(f"example {id!r}: label is {label!r}, wanted a class or a number")
    weighed = None if weight is None else float(weight)
    return Example(id, id if key is None else key, at_s, checked, told, told_s, weighed)


def gathered(examples: Sequence[Example]) -> Batch:
    """The same in columns."""
    rows = [e.features or {} for e in examples]
    numeric: dict[str, NDArray[np.floating[Any]]] = {}
    categorical: dict[str, Coded] = {}
    for name in sorted(set().union(*rows)):
        column = [row.get(name) for row in rows]
        numbers, categories = _split(column)
        numeric |= {} if numbers is None else {name: numbers}
        categorical |= {} if categories is None else {name: categories}
    values, classes = _split([e.label for e in examples])
    return Batch(
        [e.id for e in examples],
        _doubles([e.time_s for e in examples]),
        numeric,
        categorical,
        classes,
        values,
        _doubles([e.label_time_s for e in examples]),
        _doubles([e.weight for e in examples]),
    )


def columns(
    ids: Sequence[str],
    *,
    features: Mapping[str, Any] | None,
    time_s: Any,
    label: Any,
    label_time_s: Any,
    weight: Any,
) -> Batch:
    """Check many examples given as columns: of B numbers (NaN: missing) or of B texts and integers (None: missing).

    Raises:
        ExampleError: a column is not of B values, or of no kind that an example takes.
    """
    ids = list(ids)
    for i in ids:
        if not isinstance(i, str) or not 0 < len(i) <= LONGEST_ID:
            raise ExampleError(f"an id is {i!r:.80}, wanted texts of 1 to {LONGEST_ID} characters")
    _text("(many)", "".join(ids))
    numeric: dict[str, NDArray[np.floating[Any]]] = {}
    categorical: dict[str, Coded] = {}
    for name, given in (features or {}).items():
        numbers, categories = _column(name, given, len(ids))
        numeric |= {} if numbers is None else {name: numbers}
        categorical |= {} if categories is None else {name: categories}
    values, classes = (None, None) if label is None else _column("label", label, len(ids))
    times_s, label_times_s, weights = (
        None if given is None else _times(name, given, len(ids))
        for name, given in (("time_s", time_s), ("label_time_s", label_time_s), ("weight", weight))
    )
    if features is None and label is None:
        raise ExampleError("there are neither features nor labels")
    if features is not None and times_s is None:
        raise ExampleError("there are features and no time_s, wanted seconds since the epoch")
    if label is not None and label_times_s is None:
        raise ExampleError("there are labels and no label_time_s, wanted seconds since the epoch")
    doubles = None if values is None else values.astype(np.float64)
    return Batch(ids, times_s, numeric, categorical, classes, doubles, label_times_s, weights)


def taken(batch: Batch, rows: NDArray[np.int64]) -> Batch:
    """Some rows, with all dictionaries cut to what occurs in them."""
    return Batch(
        [batch.ids[i] for i in rows.tolist()],
        None if batch.time_s is None else batch.time_s[rows],
        {name: values[rows] for name, values in batch.numeric.items()},
        {name: _taken(column, rows) for name, column in batch.categorical.items()},
        None if batch.classes is None else _taken(batch.classes, rows),
        None if batch.values is None else batch.values[rows],
        None if batch.label_time_s is None else batch.label_time_s[rows],
        None if batch.weight is None else batch.weight[rows],
    )


def size_bytes(batch: Batch) -> int:
    """Memory it takes; about."""
    arrays = [a for a in (batch.time_s, batch.values, batch.label_time_s, batch.weight) if a is not None]
    coded = [*batch.categorical.values(), *([batch.classes] if batch.classes else [])]
    texts = sum(len(v) + _VALUE_BYTES for c in coded for v in c.values if isinstance(v, str))
    numbers = sum(a.nbytes for a in itertools.chain(arrays, batch.numeric.values(), (c.codes for c in coded)))
    return numbers + texts + sum(map(len, batch.ids)) + _VALUE_BYTES * len(batch.ids)


def _checked(id: str, features: Mapping[str, Any]) -> dict[str, Value]:
    """The features as Python has them."""
    kinds = set(map(type, features.values()))
    plain = dict(features)
    if not kinds <= _PLAIN or not math.isfinite(sum([v for v in plain.values() if type(v) is float])):
        plain = {name: _value(id, name, value) for name, value in features.items()}
    if set(map(type, plain)) - {str}:
        raise ExampleError(f"example {id!r}: the features' names are {[*plain]!r:.80}, wanted texts")
    _text(id, "".join([*plain, *[v for v in plain.values() if type(v) is str]]))
    return plain


def _text(id: str, text: str) -> None:
    """Refuse what UTF-8 has not."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ExampleError(f"example {id!r}: {error}, wanted whole characters") from error


def _value(id: str, name: object, value: Any) -> Value:
    """A feature or a label as Python has it; None if it is missing."""
    kind = type(value)
    if kind is str or value is None:
        return value  # type: ignore[no-any-return]
    if kind is float:
        if math.isfinite(value):
            return value  # type: ignore[no-any-return]
        if value != value:
            return None
    elif kind is int:
        if _INTEGERS[0] <= value <= _INTEGERS[1]:
            return value  # type: ignore[no-any-return]
    elif isinstance(value, np.generic) and not isinstance(value, np.bool_):
        return _value(id, name, value.item())
    wanted = "a text, an integer of 64 bits or a finite number (NaN or None: missing)"
    raise ExampleError(f"example {id!r}: {name!r} is {value!r:.80}, wanted {wanted}")


def _finite(id: str, name: str, value: Any, wanted: str) -> float:
    if isinstance(value, int | float | np.number) and math.isfinite(value):
        return float(value)
    raise ExampleError(f"example {id!r}: {name} is {value!r}, wanted {wanted}")


def _split(column: list[Value]) -> tuple[Doubles | None, Coded | None]:
    """The numbers, and the texts and integers, of B values; None where there are none."""
    kinds = set(map(type, column))
    if float not in kinds:
        return None, coded(column) if kinds - {type(None)} else None
    if kinds <= {float, type(None)}:
        return np.array(column, np.float64), None
    numbers = np.array([v if type(v) is float else math.nan for v in column])
    return numbers, coded([None if type(v) is float else v for v in column])


def _doubles(column: list[float | None]) -> Doubles | None:
    return None if column.count(None) == len(column) else np.array(column, np.float64)


def _column(name: str, given: Any, rows: int) -> tuple[NDArray[np.floating[Any]] | None, Coded | None]:
    """As ``_split``, of whatever the caller has: arrays, lists, columns of a data frame."""
    numbers, categories = _kinds(name, given, rows)
    if categories is not None:
        _text("(many)", "".join([name, *(v for v in categories.values if isinstance(v, str))]))
    return numbers, categories


def _kinds(name: str, given: Any, rows: int) -> tuple[NDArray[np.floating[Any]] | None, Coded | None]:
    array = np.asarray(given) if hasattr(given, "__array__") else np.array(given, object)
    if array.shape != (rows,):
        raise ExampleError(f"column {name!r} has the shape {array.shape}, wanted ({rows},): one value for each id")
    match array.dtype.kind:
        case "f":
            if np.isinf(array).any():
                raise ExampleError(f"column {name!r} has an infinite number, wanted finite ones (NaN: missing)")
            return array if array.dtype == np.float32 else array.astype(np.float64), None
        case "i" | "u":
            values, codes = np.unique(array, return_inverse=True)
            if len(values) and int(values[-1]) > _INTEGERS[1]:
                raise ExampleError(f"column {name!r} has {values[-1]}, wanted integers of 64 bits")
            return None, Coded(codes.astype(np.int32), values.tolist())
        case "U":
            return None, coded(array.tolist())
        case "O":
            return _split([_value(f"row {i}", name, v) for i, v in enumerate(array.tolist())])
    raise ExampleError(f"column {name!r} is of {array.dtype}, wanted numbers or texts")


def _times(name: str, given: Any, rows: int) -> Doubles:
    array = np.asarray(given, np.float64)
    if array.shape != (rows,):
        raise ExampleError(f"column {name!r} has the shape {array.shape}, wanted ({rows},): one value for each id")
    if np.isinf(array).any():
        raise ExampleError(f"column {name!r} has an infinite number, wanted finite ones (NaN: the row has none)")
    return array


def _taken(column: Coded, rows: NDArray[np.int64]) -> Coded:
    codes = column.codes[rows]
    present, places = np.unique(codes, return_inverse=True)
    missing = int(len(present) > 0 and present[0] < 0)
    return Coded((places - missing).astype(np.int32), [column.values[c] for c in present[missing:].tolist()])

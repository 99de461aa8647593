"""What makes an example, asked of many rows at once: [rules] -> columns.

The same rules, and the same words, as stream_app/decode.py has for one JSON object.

    B rows
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.features import LARGEST
from models.spec import ModelSpec
from stream_app.columns import Columns
from stream_app.events import LONGEST_ID, WEIGHTS

Mask = NDArray[np.bool_]
Stamps = NDArray[np.int64]


class Rules:
    """Knows one model's.

    Args:
        spec: its label and stream.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._ahead_s, self._classes = spec.stream.ahead_s, spec.label.classes
        self._class_index = {(type(c), c): float(i) for i, c in enumerate(spec.label.classes)}

    def target(self, label: int | str) -> float:
        """Index of a class; NaN if it is none. For regression the number that it is."""
        if self._classes:
            return self._class_index.get((type(label), label), math.nan)
        return math.nan if isinstance(label, str) else float(label)

    def faults(
        self,
        columns: Columns,
        timestamps_ms: Stamps,
        *,
        featured: Mask,
        labelled: Mask,
        label_at: Callable[[int], object],
    ) -> dict[int, str]:
        """Row -> why it is no example; and what a good row says without need is taken out of ``columns``.

        Args:
            columns: B rows; a target that is NaN where there is a label is none of the classes.
            timestamps_ms: (B,) of Kafka.
            featured: (B,) which have a feature that is not missing.
            labelled: (B,) which have a label.
            label_at: the label of a row as it came, to be named.
        """
        time_s, target, label_time_s = columns.time_s, columns.target, columns.label_time_s
        columns.label_time_s[~labelled] = np.nan
        timed, lengths = ~np.isnan(time_s), columns.ids.sizes()
        if lengths.max(initial=0) > LONGEST_ID:  # in bytes: of characters there are fewer, if they are not ASCII
            lengths = columns.ids.characters()
        bad = (lengths < 1) | (lengths > LONGEST_ID) | np.isinf(time_s) | (featured & ~timed) | ~(timed | labelled)
        bad |= labelled & ~((np.abs(target) <= LARGEST) & np.isfinite(label_time_s))
        with np.errstate(over="ignore"):
            late_ms = (np.fmax(time_s, label_time_s) - self._ahead_s) * 1000
        bad |= (timestamps_ms > 0) & (late_ms > timestamps_ms)
        bad |= ~np.isnan(columns.weight) & ~((columns.weight >= WEIGHTS[0]) & (columns.weight <= WEIGHTS[1]))
        return {
            i: self._reason(columns, i, int(timestamps_ms[i]), bool(featured[i]), label_at(i) if labelled[i] else None)
            for i in np.flatnonzero(bad).tolist()
        }

    def _reason(self, columns: Columns, i: int, timestamp_ms: int, featured: bool, label: object) -> str:
        id_, weight = columns.ids[i], float(columns.weight[i])
        if not 0 < len(id_) <= LONGEST_ID:
            return f"'id' has {len(id_)} characters, wanted 1 to {LONGEST_ID}"
        timed = featured or not math.isnan(columns.time_s[i])
        reason = self._time_fault(id_, "time", float(columns.time_s[i]), timestamp_ms) if timed else None
        if reason is None and label is not None:
            if not abs(columns.target[i]) <= LARGEST:
                classes = f"one of {', '.join(map(repr, self._classes))}"
                wanted = classes if self._classes else "a number that float32 can hold"
                return f"event {id_!r}: 'label' is {label!r}, wanted {wanted}"
            reason = self._time_fault(id_, "label_time", float(columns.label_time_s[i]), timestamp_ms)
        if reason is not None:
            return reason
        if not timed and label is None:
            return f"event {id_!r} has neither 'features' nor 'label'"
        least, most = WEIGHTS
        return f"event {id_!r}: 'weight' is {weight!r}, wanted a number from {least:g} to {most:g}"

    def _time_fault(self, id_: str, name: str, value: float, timestamp_ms: int) -> str | None:
        if not math.isfinite(value):
            said = None if math.isnan(value) else value
            return f"event {id_!r}: '{name}' is {said!r}, wanted seconds since the epoch"
        if 0 < timestamp_ms < (value - self._ahead_s) * 1000:
            return (
                f"event {id_!r}: '{name}' is {value!r}, {value - timestamp_ms / 1000:.10g} s ahead of its Kafka "
                f"timestamp; wanted at most {self._ahead_s:.10g} (stream.ahead_s)"
            )
        return None

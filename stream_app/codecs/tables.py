"""What compiled scanners know of a spec, and where they write: spec -> [tables] -> scan -> columns.

B records   F names in an object   N numeric features   C categorical features
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled_exactly
from models.features import LARGEST
from models.hashes import TABLE
from models.spec import ModelSpec
from stream_app.codecs.names import Names, names
from stream_app.codecs.numbers import FIVES, TENS, Bytes, Words
from stream_app.columns import Columns
from stream_app.events import WEIGHTS
from stream_app.ids import Ids, joined

Places = NDArray[np.int64]

EVENT = ("id", "time", "features", "label", "label_time", "weight")
"""Fields of a JSON event."""


class Tables(NamedTuple):
    """What the scanner knows of a spec."""

    event: Names
    features: Names
    texts: Names
    """Classes that are texts, in spec order, then ``integers``: those that are integers."""
    integers: Names
    text_class: Places
    """Index of each of ``texts`` among the classes."""
    integer_class: Places
    numeric: int
    """N; the features from N on are categorical."""
    regression: bool
    limits: NDArray[np.float64]
    """Largest record (bytes), seconds a time may be ahead, longest id (bytes), least and most weight, largest float."""
    fives: Words
    tens: NDArray[np.float64]
    crc: NDArray[np.uint32]
    word: Words
    """(1,) room for the bits of a number."""
    digits: Bytes
    """(20,) room for an integer in decimal."""


class Found(NamedTuple):
    """Where the scanner writes: arrays of ``Columns``, and where the ids stand."""

    ids: Places
    """(B, 2) from and to."""
    has_features: NDArray[np.bool_]
    """(B,)"""
    seen: Places
    """(F,) the last row that had each feature."""
    time_s: NDArray[np.float64]
    numeric: NDArray[np.float32]
    hashes: NDArray[np.uint32]
    lengths: NDArray[np.int32]
    target: NDArray[np.float64]
    label_time_s: NDArray[np.float64]
    weight: NDArray[np.float64]

    def whole_ids(self, text: bytes | bytearray, plain: NDArray[np.bool_]) -> Ids:
        """Those of the rows that were read; else empty. They let the text go."""
        self.ids[~plain] = 0
        return joined([Ids(np.frombuffer(text, np.uint8), self.ids)])


def tables_of(spec: ModelSpec, longest_id: int) -> Tables:
    """What there is to know of a spec.

    Args:
        spec: its features and label.
        longest_id: characters.
    """
    classes = list(enumerate(spec.label.classes))
    texts = [(i, c) for i, c in classes if isinstance(c, str)]
    integers = [(i, str(c)) for i, c in classes if not isinstance(c, str)]
    return Tables(
        event=names(EVENT),
        features=names([*spec.features.numeric, *spec.features.categorical]),
        texts=names([c for _, c in texts]),
        integers=names([c for _, c in integers]),
        text_class=np.array([i for i, _ in texts], np.int64),
        integer_class=np.array([i for i, _ in integers], np.int64),
        numeric=len(spec.features.numeric),
        regression=not classes,
        limits=np.array([spec.stream.max_record_bytes, spec.stream.ahead_s, longest_id, *WEIGHTS, LARGEST]),
        fives=FIVES,
        tens=TENS,
        crc=TABLE,
        word=np.zeros(1, np.uint64),
        digits=np.zeros(20, np.uint8),
    )


def found_in(into: Columns) -> Found:
    """Where to write B rows."""
    b, features = len(into.ids), into.numeric.shape[1] + into.hashes.shape[1]
    columns = (getattr(into, name) for name in Found._fields[3:])
    return Found(np.zeros((b, 2), np.int64), np.zeros(b, np.bool_), np.full(features, -1, np.int64), *columns)


@compiled_exactly
def right(found: Found, row: int, timestamp_ms: int, limits: NDArray[np.float64]) -> bool:
    """Whether a row that was read keeps every rule; what does not belong to it is taken out."""
    _, ahead_s, longest_id, least, most, largest = limits
    if not 0 < found.ids[row, 1] - found.ids[row, 0] <= longest_id:
        return False
    target, weight = found.target[row], found.weight[row]
    if not found.has_features[row]:
        found.time_s[row] = np.nan
    elif np.isnan(found.time_s[row]):
        return False
    if np.isnan(target):
        found.label_time_s[row] = np.nan
        if not found.has_features[row]:
            return False
    elif np.isnan(found.label_time_s[row]) or abs(target) > largest:
        return False
    for time_s in (found.time_s[row], found.label_time_s[row]):
        if 0 < timestamp_ms < (time_s - ahead_s) * 1000:
            return False
    return bool(np.isnan(weight) or least <= weight <= most)

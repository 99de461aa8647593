"""Scores become the bytes of predictions, compiled: scores -> [write] -> what protobuf would make of them.

B rows, K scores, L labels that may be said
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled_exactly
from models.spec import ModelSpec
from stream_app.codecs.fields import field
from stream_app.codecs.numbers import Bytes

Ints = NDArray[np.int64]


class Templates(NamedTuple):
    """A prediction of each label, but for its numbers."""

    text: Bytes
    starts: Ints
    """(L + 1,) where in ``text`` each begins."""
    places: Ints
    """(L, K) where in it each class's number stands."""
    binary: bool
    number: NDArray[np.float64]
    """(1,) room for one, and its bytes."""
    bytes: Bytes
    single: NDArray[np.float32]
    """The same of a number in four bytes."""
    single_bytes: Bytes


class ResponseWriter:
    """Knows how one model's predictions look."""

    def __init__(self, spec: ModelSpec) -> None:
        made, places = [], []
        for label in spec.score_names if spec.task != "regression" else ("",):
            text, found = _prediction(spec, label)
            made.append(text)
            places.append(found)
        number, single = np.zeros(1), np.zeros(1, np.float32)
        self.templates = Templates(
            text=np.frombuffer(b"".join(made), np.uint8),
            starts=np.cumsum([0, *map(len, made)]).astype(np.int64),
            places=np.array(places, np.int64),
            binary=spec.task == "binary",
            number=number,
            bytes=number.view(np.uint8),
            single=single,
            single_bytes=single.view(np.uint8),
        )
        self.longest = max(map(len, made))
        """Bytes of a prediction."""

    def predictions(self, scores: NDArray[np.float32]) -> bytes:
        """The field ``predictions`` of a response, one per row of ``scores`` (B, K)."""
        out = np.empty(len(scores) * self.longest, np.uint8)
        return out[: write(scores, self.templates, out)].tobytes()


def _prediction(spec: ModelSpec, label: str) -> tuple[bytes, list[int]]:
    """As an element of ``predictions``, and where its numbers stand in it."""
    if spec.task == "regression":
        text = b"\x19" + bytes(8)
        return field(0x0A, text), [len(field(0x0A, text)) - 8]
    entries = [field(0x0A, field(0x0A, name.encode()) + b"\x11" + bytes(8)) for name in spec.score_names]
    text = b"".join(entries) + field(0x12, label.encode())
    before = len(field(0x0A, text)) - len(text)
    ends = np.cumsum([len(entry) for entry in entries])
    return field(0x0A, text), [before + int(end) - 8 for end in ends]


@compiled_exactly
def write(scores: NDArray[np.float32], templates: Templates, out: Bytes) -> int:
    """How many bytes of ``out`` (at least B times the longest template) are written."""
    at, outputs = 0, templates.places.shape[1]
    for row in range(len(scores)):
        label = 0
        if templates.binary:
            label = 1 if np.float64(scores[row, 0]) > 1.0 - np.float64(scores[row, 0]) else 0
        elif len(templates.places) > 1:
            for k in range(1, outputs):
                label = k if scores[row, k] > scores[row, label] else label
        begin, end = templates.starts[label], templates.starts[label + 1]
        for i in range(begin, end):
            out[at + i - begin] = templates.text[i]
        for k in range(outputs):
            score = np.float64(scores[row, 0 if templates.binary else k])
            templates.number[0] = 1.0 - score if templates.binary and k == 0 else score
            place = at + templates.places[label, k]
            for i in range(8):
                out[place + i] = templates.bytes[i]
        at += end - begin
    return at

"""One compiled call from a request's bytes to its response's: bytes -> [scan -> network -> write] -> bytes.

Between two calls a server touches so much other code that each further kind of it costs more to fetch than to run: the
same work in five steps takes three times as long (docs/serving-speed.md).

    B rows   N numeric features   R rate columns   K scores, of two classes only the second   S scores that are said
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled_exactly
from models.forward import forward, room_of
from models.graph import Net, no_net
from models.rates import Table
from models.shapes import dense_columns
from models.spec import ModelSpec
from stream_app.codecs.fields import field
from stream_app.codecs.names import Names
from stream_app.codecs.numbers import Bytes
from stream_app.codecs.requests import MOST_ROWS, Read, RequestScanner, Shape, fill, scan
from stream_app.codecs.responses import ResponseWriter, Templates, write

_PADDING = bytes(32)
_STALENESS = b"\x42\x12\x09" + bytes(8) + b"\x11" + bytes(8)
"""The field ``staleness``, of two ages that are filled in."""
_LONGEST_LENGTH = 5


class Work(NamedTuple):
    """All that the compiled call needs."""

    shape: Shape
    read: Read
    templates: Templates
    net: Net
    table: Table
    """((K + 1) * slots, R / K), or (0, 0)."""
    room: NDArray[np.float32]
    """Of the network."""
    dense: NDArray[np.float32]
    """(MOST_ROWS, N + R), raw."""
    scores: NDArray[np.float32]
    """(MOST_ROWS, K)"""
    classes: Bytes
    """Their names, as they stand in ``Scores``."""
    head: int
    """Bytes of ``out`` that say who answers; they stand there already."""
    out: Bytes


class Answerer:
    """Knows one model's requests and responses; of one thread."""

    def __init__(self, spec: ModelSpec) -> None:
        self.scanner, self.writer = RequestScanner(spec), ResponseWriter(spec)
        names = spec.score_names if spec.task != "regression" else ()
        classes = b"".join(field(0x0A, name.encode()) for name in names)
        self._longest = MOST_ROWS * max(self.writer.longest, 4 * max(len(names), 1)) + len(classes) + 32
        self._work = Work(
            shape=self.scanner.shape,
            read=self.scanner.read,
            templates=self.writer.templates,
            net=no_net(),
            table=np.zeros((0, 0), np.float32),
            room=room_of(no_net()),
            dense=np.empty((MOST_ROWS, dense_columns(spec)), np.float32),
            scores=np.empty((MOST_ROWS, spec.outputs), np.float32),
            classes=np.frombuffer(classes, np.uint8),
            head=0,
            out=np.empty(0, np.uint8),
        )
        self.become(b"", None, None)

    def become(self, fixed: bytes, net: Net | None, table: Table | None) -> None:
        """Answer as a version.

        Args:
            fixed: what a response says of it, but its staleness.
            net: None if it has none, or it may not be asked.
            table: its recent rates.
        """
        head = fixed + _STALENESS
        out = np.empty(len(head) + self._longest, np.uint8)
        out[: len(head)] = np.frombuffer(head, np.uint8)
        net = net or no_net()
        table = np.zeros((0, 0), np.float32) if table is None else table
        self._work = self._work._replace(net=net, table=table, room=room_of(net), head=len(head), out=out)
        self._bare = bare(self._work)

    def answer(self, request: bytes, most_rows: int, version_age_s: float, log_age_s: float) -> bytes | int:
        """The response; or how many rows the request has if others must say their scores, 0 if it is not plain."""
        text = np.frombuffer(request + _PADDING, np.uint8)
        end = _answer(text, len(request), most_rows, version_age_s, log_age_s, self._bare)
        return self._work.out[:end].tobytes() if end > 0 else -end

    def head(self, version_age_s: float, log_age_s: float) -> bytes:
        """What a response begins with that others make."""
        _ages(version_age_s, log_age_s, self._work)
        return self._work.out[: self._work.head].tobytes()


def bare(value: tuple[Any, ...]) -> tuple[Any, ...]:
    """Without names: numba reads tuples that have none in a third of the time."""
    return tuple(bare(part) if isinstance(part, tuple) else part for part in value)


@compiled_exactly
def _put(value: float, out: Bytes, at: int, templates: Templates) -> None:
    """Eight bytes of a number."""
    templates.number[0] = value
    for i in range(8):
        out[at + i] = templates.bytes[i]


@compiled_exactly
def _put_length(length: int, out: Bytes, at: int) -> int:
    """Where it ends."""
    while length > 127:
        out[at] = length & 127 | 128
        length >>= 7
        at += 1
    out[at] = length
    return at + 1


@compiled_exactly
def _ages(version_age_s: float, log_age_s: float, work: Work) -> None:
    _put(version_age_s, work.out, work.head - 17, work.templates)
    _put(log_age_s, work.out, work.head - 8, work.templates)


@compiled_exactly
def _score(rows: int, work: Work) -> None:
    """Scores of the rows that were read."""
    fill(work.dense[:rows], work.read, work.shape, work.table)
    forward(work.net, work.room, work.dense, work.read.categories, work.scores[:rows])


@compiled_exactly
def _put_columns(rows: int, work: Work) -> int:
    """Where the field ``scores`` ends that is behind the head."""
    out, templates, binary = work.out, work.templates, work.templates.binary
    said = 2 if binary else work.scores.shape[1]
    size = 4 * said * rows
    length, left = 1, size
    while left > 127:
        left >>= 7
        length += 1
    out[work.head] = 0x4A
    at = _put_length(len(work.classes) + 1 + length + size, out, work.head + 1)
    for i in range(len(work.classes)):
        out[at + i] = work.classes[i]
    at += len(work.classes)
    out[at] = 0x12
    at = _put_length(size, out, at + 1)
    for row in range(rows):
        for k in range(said):
            score = work.scores[row, 0 if binary else k]
            templates.single[0] = np.float32(1.0) - score if binary and k == 0 else score
            for i in range(4):
                out[at + i] = templates.single_bytes[i]
            at += 4
    return at


@compiled_exactly
def _answer(text: Bytes, end: int, most_rows: int, version_age_s: float, log_age_s: float, parts: Any) -> int:
    """Where in ``out`` the response ends; 0 if the request is not plain; less by as many rows as others must score.

    Args:
        text: the request, and padding.
        end: of the request.
        most_rows: more are not plain.
        version_age_s: of the version.
        log_age_s: of the models log.
        parts: a ``Work`` without names.
    """
    shape = Shape(Names(*parts[0][0]), *parts[0][1:])
    work = Work(shape, Read(*parts[1]), Templates(*parts[2]), Net(*parts[3]), *parts[4:])
    rows = scan(text, end, work.shape, work.read)
    if not 0 < rows <= most_rows:
        return 0
    if len(work.net.widths) == 1:
        return -rows
    for row in range(rows):
        if not np.isnan(work.read.times_s[row]):
            return -rows
    _score(rows, work)
    _ages(version_age_s, log_age_s, work)
    if work.read.columns[0]:
        return _put_columns(rows, work)
    return work.head + write(work.scores[:rows], work.templates, work.out[work.head :])

"""Fetched bytes become records, none of which is a Python object before it is asked for: fetch -> [read] -> Records.

Kafka's record batches (message format v2, kafka.apache.org/documentation/#recordbatch) lie one after another in what a
broker answers. That is one text, or their bodies unpacked are; an index says where in it each record's parts stand.
What is rare (transactions, formats before Kafka 0.11) is left to aiokafka, which is the reference: a test holds them
together.

    n records   text: the answer, or the unpacked bodies of its batches, one after another
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, overload

import numpy as np
from aiokafka import ConsumerRecord
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from crc32c import crc32c
from numpy.typing import NDArray

from models.compiled import compiled

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Places = NDArray[Any]
"""Of RECORD."""

RECORD = np.dtype(
    [
        ("offset", np.int64),
        ("timestamp", np.int64),  # ms
        ("timestamp_type", np.int64),  # 0: the producer's; 1: when it was appended
        ("key_at", np.int64),
        ("key_size", np.int64),  # below 0: there is none
        ("value_at", np.int64),
        ("value_size", np.int64),  # below 0: there is none
        ("headers_at", np.int64),
        ("headers", np.int64),  # how many
        ("end", np.int64),  # of the headers and the record
    ]
)

_HEAD = struct.Struct(">qiibIhiqqqhii")
_LOG_OVERHEAD = struct.calcsize(">qi")
_MAGIC_AT = struct.calcsize(">qii")
_CHECKED_FROM = struct.calcsize(">qiibI")
_CODEC, _APPEND_TIME, _TRANSACTIONAL, _CONTROL = 0x07, 0x08, 0x10, 0x20
_UNPACK: dict[int, Callable[[bytes], bytes]] = {
    1: gzip_decode,
    2: snappy_decode,
    3: lz4_decode,
    4: zstd_decode,
}


class _Head(NamedTuple):
    """What a batch says of itself, as _HEAD has it."""

    offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_delta: int
    first_ms: int
    largest_ms: int
    producer_id: int
    producer_epoch: int
    sequence: int
    records: int


class Records(Sequence[ConsumerRecord[bytes, bytes]]):
    """Consecutive records of one partition, in offset order.

    Args:
        topic: theirs.
        partition: theirs.
        text: holds them.
        places: (n,) of RECORD.
    """

    __slots__ = ("partition", "places", "text", "topic")

    def __init__(self, topic: str, partition: int, text: bytes, places: Places) -> None:
        self.topic, self.partition, self.text, self.places = topic, partition, text, places

    @overload
    def __getitem__(self, at: int) -> ConsumerRecord[bytes, bytes]: ...
    @overload
    def __getitem__(self, at: slice) -> "Records": ...
    def __getitem__(self, at: int | slice) -> "ConsumerRecord[bytes, bytes] | Records":
        if isinstance(at, slice):
            return Records(self.topic, self.partition, self.text, self.places[at])
        return self._record(*self.places[at].tolist())

    def __iter__(self) -> Iterator[ConsumerRecord[bytes, bytes]]:
        return (self._record(*fields) for fields in self.places.tolist())

    def __len__(self) -> int:
        return len(self.places)

    def at(self, rows: NDArray[np.bool_] | Ints) -> "Records":
        """Some of them, in the order given."""
        return Records(self.topic, self.partition, self.text, self.places[rows])

    def like_before(self) -> NDArray[np.bool_]:
        """(n,) whether each has the same headers as the one before."""
        found = np.zeros(len(self), np.bool_)
        _like_before(np.frombuffer(self.text, np.uint8), self.places, found)
        return found

    def values(self, between: int, *, padding: int = 0) -> tuple[bytearray, Ints]:
        """All values in one, each followed by the byte ``between``, and where the next one begins (n,).

        Args:
            between: 0 to 255.
            padding: bytes of zero behind the last.
        """
        ends = np.cumsum(np.maximum(self.places["value_size"], 0) + 1)
        joined = bytearray(padding + (int(ends[-1]) if len(ends) else 0))
        _join(np.frombuffer(self.text, np.uint8), self.places, between, np.frombuffer(joined, np.uint8))
        return joined, ends

    def _record(
        self, offset: int, timestamp: int, kind: int, key_at: int, key_size: int, value_at: int, value_size: int,
        headers_at: int, headers: int, end: int,
    ) -> ConsumerRecord[bytes, bytes]:  # fmt: skip
        text = self.text
        return ConsumerRecord(
            topic=self.topic,
            partition=self.partition,
            offset=offset,
            timestamp=timestamp,
            timestamp_type=kind,
            key=text[key_at : key_at + key_size] if key_size >= 0 else None,
            value=text[value_at : value_at + value_size] if value_size >= 0 else None,
            checksum=None,
            serialized_key_size=max(key_size, -1),
            serialized_value_size=max(value_size, -1),
            headers=tuple(_headers(text[headers_at:end], headers)),
        )


def read(
    data: bytes, *, topic: str, partition: int, from_offset: int, check_crcs: bool = True
) -> tuple[Records, int] | None:
    """The records of a fetched answer from an offset on, and the offset after its last whole batch.

    What comes before a corrupt batch is read; the next answer begins with that batch.

    Returns:
        None if aiokafka must read them: there are transactions, control records, or formats before v2.

    Raises:
        CorruptRecordException: the first batch is; names it and what is wrong.
    """
    bodies, parts, begins, next_offset, at, plain = [], [np.empty(0, RECORD)], [0], from_offset, 0, True
    try:
        for frame in _frames(data):
            if frame[_MAGIC_AT] != 2:
                return None
            head = _head(frame)
            if head.attributes & (_TRANSACTIONAL | _CONTROL):
                return None
            body, places = _unpacked(frame, head, check_crcs)
            bodies.append(body)
            parts.append(places)
            begins.append(at + _HEAD.size)
            at, next_offset = at + len(frame), head.offset + head.last_delta + 1
            plain &= not head.attributes & _CODEC
    except CorruptRecordException as error:
        if not bodies:
            raise CorruptRecordException(f"{topic}/{partition}, the batch at {from_offset}: {error.args[0]}") from error
    if not plain:  # else the records are read where they came
        data, begins = b"".join(bodies), [0, 0, *accumulate(map(len, bodies[:-1]))]
    for places, begin in zip(parts, begins, strict=True):
        for name in ("key_at", "value_at", "headers_at", "end"):
            places[name] += begin
    whole = np.concatenate(parts)
    return Records(topic, partition, data, whole[whole["offset"] >= from_offset]), next_offset


def warm() -> None:
    """Have all that reads compiled: a fresh installation's first records would wait seconds for it."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 10)
    for delta in range(2):
        builder.append(delta, 0, b"k", b"v", [("h", b"")])
    found = read(bytes(builder.build()), topic="", partition=0, from_offset=0)
    assert found is not None
    records, _ = found
    records.like_before()
    records.values(0)
    list(records)


def _frames(data: bytes) -> Iterator[memoryview]:
    """Each whole batch; the last may be cut off."""
    at = 0
    while at + _LOG_OVERHEAD <= len(data):
        end = at + _LOG_OVERHEAD + int.from_bytes(data[at + 8 : at + _LOG_OVERHEAD], signed=True)
        if end > len(data):
            return
        if end - at <= _MAGIC_AT:
            raise CorruptRecordException(f"it has {end - at} bytes, wanted more than {_MAGIC_AT}")
        yield memoryview(data)[at:end]
        at = end


def _head(frame: memoryview) -> _Head:
    if len(frame) < _HEAD.size:
        raise CorruptRecordException(f"it has {len(frame)} bytes, wanted at least {_HEAD.size}")
    return _Head._make(_HEAD.unpack_from(frame))


def _unpacked(frame: memoryview, head: _Head, check_crcs: bool) -> tuple[bytes | memoryview, Places]:
    """The body of a batch, and where in it the records are."""
    if check_crcs and (crc := crc32c(frame[_CHECKED_FROM:])) != head.crc:
        raise CorruptRecordException(f"its CRC is {crc:#x}, wanted {head.crc:#x}")
    codec = head.attributes & _CODEC
    if codec and codec not in _UNPACK:
        raise UnsupportedCodecError(f"the codec of a batch is {codec}, wanted one of {[0, *_UNPACK]}")
    body = _UNPACK[codec](frame[_HEAD.size :].tobytes()) if codec else frame[_HEAD.size :]
    if not 0 <= head.records <= len(body):
        raise CorruptRecordException(f"it has {head.records} records in {len(body)} bytes")
    places = np.empty(head.records, RECORD)
    places["timestamp_type"] = appended = int(bool(head.attributes & _APPEND_TIME))
    read_until = _index(np.frombuffer(body, np.uint8), head.offset, head.first_ms, places)
    if read_until != len(body):
        raise CorruptRecordException(f"its {head.records} records end at {read_until} of {len(body)} bytes")
    if appended:
        places["timestamp"] = head.largest_ms
    return body, places


def _headers(text: bytes, count: int) -> Iterator[tuple[str, bytes | None]]:
    """Of one record, whose headers ``_index`` has found whole."""
    places, at = np.frombuffer(text, np.uint8), 0
    for _ in range(count):
        at, size = _varint(places, at, len(text))
        name = text[at : at + size].decode(errors="backslashreplace")
        at, end, size = _sized(places, at + size, len(text))
        yield name, text[at:end] if size >= 0 else None
        at = end


@compiled
def _varint(text: Bytes, at: int, end: int) -> tuple[int, int]:
    """A number of zigzag varint: where it ends, or -1, and its value."""
    value, shift = np.uint64(0), np.uint64(0)
    while 0 <= at < end and shift < 64:
        byte = np.uint64(text[at])
        at += 1
        value |= (byte & np.uint64(127)) << shift
        if byte < 128:
            return at, int(np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)))
        shift += np.uint64(7)
    return -1, 0


@compiled
def _sized(text: Bytes, at: int, end: int) -> tuple[int, int, int]:
    """Bytes that follow their length: where they begin and end, or -1, and their length; below 0, there are none."""
    at, size = _varint(text, at, end)
    if at < 0 or size > end - at:
        return -1, -1, 0
    return at, at + max(size, 0), size


@compiled
def _index(text: Bytes, base_offset: int, first_ms: int, places: Places) -> int:
    """Find the records of a batch: where they end, or -1 if they are none.

    Args:
        text: its body.
        base_offset: its first record's.
        first_ms: the time that the records' are relative to.
        places: (n,) to be filled in.
    """
    at = 0
    for i in range(len(places)):
        at, size = _varint(text, at, len(text))
        if at < 0 or not 0 < size <= len(text) - at:
            return -1
        end = at + size
        at, time_delta = _varint(text, at + 1, end)  # after the attributes, of which there are none
        at, offset_delta = _varint(text, at, end)
        places[i].offset, places[i].timestamp = base_offset + offset_delta, first_ms + time_delta
        places[i].key_at, at, places[i].key_size = _sized(text, at, end)
        places[i].value_at, at, places[i].value_size = _sized(text, at, end)
        at, headers = _varint(text, at, end)
        if headers < 0:
            return -1
        places[i].headers_at, places[i].headers = at, headers
        for _ in range(headers):
            at, at, size = _sized(text, at, end)
            if size < 0:
                return -1
            _, at, size = _sized(text, at, end)
            if at < 0:
                return -1
        if at != end:
            return -1
        places[i].end = end
    return at


@compiled
def _like_before(text: Bytes, places: Places, found: NDArray[np.bool_]) -> None:
    for i in range(1, len(places)):
        at, size, before = places[i].headers_at, places[i].end - places[i].headers_at, places[i - 1].headers_at
        same = size == places[i - 1].end - before and places[i].headers == places[i - 1].headers
        for j in range(size if same else 0):
            if text[at + j] != text[before + j]:
                same = False
                break
        found[i] = same


@compiled
def _join(text: Bytes, places: Places, between: int, joined: Bytes) -> None:
    """Each value, and a byte behind it."""
    at = 0
    for i in range(len(places)):
        begin, size = places[i].value_at, max(places[i].value_size, 0)
        joined[at : at + size] = text[begin : begin + size]
        joined[at + size] = between
        at += size + 1

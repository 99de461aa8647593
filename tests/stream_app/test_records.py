"""Records read from bytes at once are those that aiokafka reads one by one."""

from collections.abc import Sequence
from itertools import accumulate, islice
from typing import Any, NamedTuple

import numpy as np
import pytest
from aiokafka.consumer.fetcher import READ_UNCOMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app import records
from stream_app.records import Records, read

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
TP = TopicPartition("t", 3)


class Message(NamedTuple):
    """What a producer sends."""

    gap: int = 0
    """Offsets before it that compaction has emptied."""
    timestamp: int = 0
    key: bytes | None = None
    value: bytes | None = b"v"
    headers: Sequence[tuple[str, bytes | None]] = ()


def batch(messages: Sequence[Message], *, codec: int = 0, base: int = 0, transactional: int = 0) -> bytes:
    """One record batch that begins at an offset."""
    builder = DefaultRecordBatchBuilder(2, codec, transactional, -1, -1, -1, 1 << 30)
    delta = -1
    for m in messages:
        delta += 1 + m.gap
        builder.append(delta, m.timestamp, m.key, m.value, list(m.headers))
    return rebased(bytes(builder.build()), base)


def rebased(frame: bytes, base: int) -> bytes:
    return base.to_bytes(8) + frame[8:]


def sealed(frame: bytes) -> bytes:
    """With a CRC that is right."""
    return frame[:17] + crc32c(frame[21:]).to_bytes(4) + frame[21:]


def theirs(data: bytes, from_offset: int) -> PartitionRecords:
    return PartitionRecords(TP, MemoryRecords(data), None, from_offset, None, None, True, READ_UNCOMMITTED)


def ours(data: bytes, from_offset: int = 0) -> tuple[Records, int]:
    found = read(data, topic=TP.topic, partition=TP.partition, from_offset=from_offset)
    assert found is not None
    return found


TEXTS = st.one_of(st.none(), st.binary(max_size=200), st.builds(bytes, st.integers(0, 20_000)))
MESSAGES = st.builds(
    Message,
    gap=st.integers(0, 3),
    timestamp=st.integers(0, 2**45),
    key=TEXTS,
    value=TEXTS,
    headers=st.lists(st.tuples(st.text(max_size=8), TEXTS), max_size=3),
)
BATCHES = st.lists(
    st.tuples(st.lists(MESSAGES, min_size=1, max_size=8), st.integers(0, 4), st.integers(0, 2**40)), max_size=4
)


@settings(deadline=None, derandomize=True)
@given(BATCHES, st.integers(0, 12), st.integers(0, 300))
def test_they_are_what_aiokafka_reads(batches: Any, skipped: int, cut_bytes: int) -> None:
    """Any codec, keys and values that are not there, headers, holes, a start within a batch, an end cut off."""
    data, base = b"", 0
    for messages, codec, skip in batches:
        base += skip
        data += batch(messages, codec=codec, base=base)
        base += sum(1 + m.gap for m in messages)
    data = data[: len(data) - cut_bytes] if cut_bytes < len(data) else data
    from_offset = skipped + (batches[0][2] if batches else 0)
    reference = theirs(data, from_offset)
    expected = list(reference)
    records, next_offset = ours(data, from_offset)
    assert list(records) == expected
    assert [records[i] for i in range(len(records))] == expected
    assert next_offset == reference.next_fetch_offset
    half = len(expected) // 2
    assert list(records[half:]) == expected[half:]
    assert list(records.at(np.arange(len(expected)) % 2 == 1)) == expected[1::2]
    alike = [i > 0 and expected[i].headers == expected[i - 1].headers for i in range(len(expected))]
    assert records.like_before().tolist() == alike
    joined, ends = records.values(10, padding=3)
    assert bytes(joined) == b"".join((r.value or b"") + b"\n" for r in expected) + bytes(3)
    assert ends.tolist() == list(accumulate(len(r.value or b"") + 1 for r in expected))


def test_the_time_may_be_the_brokers() -> None:
    frame = bytearray(batch([Message(timestamp=5), Message(timestamp=7)]))
    frame[22] |= 0x08
    records, _ = ours(sealed(bytes(frame)))
    assert [(r.timestamp, r.timestamp_type) for r in records] == [(7, 1), (7, 1)]
    assert list(records) == list(theirs(sealed(bytes(frame)), 0))


def test_an_empty_batch_is_passed_by() -> None:
    """Compaction leaves one where it removes the last record of a producer."""
    frame = batch([Message()] * 4)[:61]
    emptied = sealed(frame[:8] + (49).to_bytes(4) + frame[12:57] + bytes(4))
    records, next_offset = ours(emptied + batch([Message(value=b"next")], base=4))
    assert ([r.value for r in records], next_offset) == ([b"next"], 5)
    records, next_offset = ours(emptied)
    assert (len(records), next_offset) == (0, 4)


@pytest.mark.parametrize("mask", [0x10, 0x20])
def test_transactions_and_control_records_are_aiokafkas(mask: int) -> None:
    frame = bytearray(batch([Message()]))
    frame[22] |= mask
    assert read(batch([Message()]) + sealed(bytes(frame)), topic="t", partition=0, from_offset=0) is None


@pytest.mark.parametrize("magic", [0, 1])
def test_older_formats_are_aiokafkas(magic: int) -> None:
    builder = LegacyRecordBatchBuilder(magic, 0, 1 << 20)
    builder.append(0, timestamp=1, key=None, value=b"v")
    assert read(bytes(builder.build()), topic="t", partition=0, from_offset=0) is None


def test_a_broken_batch_is_refused_after_what_came_before_it() -> None:
    good, bad = batch([Message(), Message()]), bytearray(batch([Message()], base=2))
    bad[-2] ^= 1  # of the value
    records, next_offset = ours(good + bytes(bad) + batch([Message()], base=3))
    assert ([r.offset for r in records], next_offset) == ([0, 1], 2)
    with pytest.raises(CorruptRecordException, match=r"t/3, the batch at 2: its CRC is 0x\w+, wanted 0x\w+"):
        ours(bytes(bad), 2)
    unchecked = read(bytes(bad), topic="t", partition=3, from_offset=2, check_crcs=False)
    assert unchecked is not None
    assert [r.value for r in unchecked[0]] == [b"w"]


def test_sizes_that_cannot_be_are_refused() -> None:
    frame = batch([Message()])
    with pytest.raises(CorruptRecordException, match="it has 13 bytes, wanted more than 16"):
        ours(bytes(8) + (1).to_bytes(4) + b"x")
    with pytest.raises(CorruptRecordException, match="it has 20 bytes, wanted at least 61"):
        ours(frame[:8] + (8).to_bytes(4) + frame[12:20])
    with pytest.raises(CorruptRecordException, match="it has 4096 records in 8 bytes"):
        ours(sealed(frame[:57] + (4096).to_bytes(4) + frame[61:]))
    with pytest.raises(CorruptRecordException, match="its 2 records end at -1 of 8 bytes"):
        ours(sealed(frame[:57] + (2).to_bytes(4) + frame[61:]))
    with pytest.raises(UnsupportedCodecError, match="codec of a batch is 7, wanted one of"):
        ours(sealed(frame[:21] + b"\0\7" + frame[23:]))


@settings(deadline=None, derandomize=True)
@given(st.lists(MESSAGES, min_size=1, max_size=4), st.data())
def test_whatever_the_bytes_are_they_are_read_or_refused(messages: list[Message], draw: st.DataObject) -> None:
    frame = bytearray(batch(messages))
    for _ in range(draw.draw(st.integers(1, 6))):
        frame[draw.draw(st.integers(61, len(frame) - 1))] = draw.draw(st.integers(0, 255))
    try:
        expected = list(theirs(sealed(bytes(frame)), 0))
    except (CorruptRecordException, UnicodeDecodeError):  # it refuses names of headers that are no text, too
        expected = None
    try:
        records, _ = ours(sealed(bytes(frame)))
    except CorruptRecordException:
        return  # stricter in what a length may be
    assert expected is None or [r.value for r in records] == [r.value for r in expected]
    assert len(list(islice(records, 9))) == len(records)


def test_what_is_warm_compiles_nothing_more() -> None:
    def compiled() -> dict[str, int]:
        return {n: len(f.signatures) for n, f in vars(records).items() if hasattr(f, "signatures")}

    records.warm()
    before = compiled()
    assert len(before) >= 5
    assert 0 not in before.values()
    found, _ = ours(batch([Message(headers=[("h", None)]), Message(key=b"k", value=None)], codec=LZ4))
    found.values(10, padding=4)
    found.like_before()
    assert next(iter(found[1:])).key == b"k"
    assert compiled() == before

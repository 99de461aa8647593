"""Chunks are handed out fairly; the transport itself is tried against brokers."""

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from aiokafka.consumer.fetcher import READ_UNCOMMITTED
from aiokafka.errors import CorruptRecordException
from aiokafka.structs import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app import coalesce
from stream_app.coalesce import TP, Consumer, _Answer, _Bytes, _Fetched, cut, round_robin
from tests.stream_app.test_records import Message, batch, sealed

ENDLESS = 10**9


class Record(NamedTuple):
    number: int
    serialized_value_size: int


def records_of(*sizes: int) -> list[Record]:
    return [Record(i, size) for i, size in enumerate(sizes)]


def handed_out(fetched: dict[TP, list[Record]], most: int, most_bytes: int) -> Iterator[tuple[TP, list[Record]]]:
    return round_robin({tp: cut(records, most, most_bytes) for tp, records in fetched.items()})


FETCHES = st.dictionaries(
    st.builds(TP, st.sampled_from(["a", "b"]), st.integers(0, 3)),
    st.lists(st.integers(-1, 40), max_size=30).map(lambda sizes: records_of(*sizes)),
    max_size=5,
)


@settings(deadline=None, derandomize=True)
@given(FETCHES, st.integers(1, 12), st.integers(1, 100))
def test_every_record_comes_once_in_the_order_of_its_partition(
    fetched: dict[TP, list[Record]], most: int, most_bytes: int
) -> None:
    got: dict[TP, list[Record]] = {tp: [] for tp in fetched}
    for tp, records in handed_out(fetched, most, most_bytes):
        assert 0 < len(records) <= most
        assert len(records) == 1 or sum(max(r.serialized_value_size, 0) for r in records) <= most_bytes
        got[tp] += records
    assert got == fetched


@settings(deadline=None, derandomize=True)
@given(FETCHES, st.integers(1, 12))
def test_no_partition_starves(fetched: dict[TP, list[Record]], most: int) -> None:
    """Before a partition's next chunk, every other one that still has records gives one."""
    order = [tp for tp, _ in handed_out(fetched, most, ENDLESS)]
    for tp, records in fetched.items():
        turns = -(-len(records) // most)
        assert order.count(tp) == turns
        for other in fetched:
            for turn in range(min(turns, -(-len(fetched[other]) // most)) - 1):
                assert _place(order, tp, turn) < _place(order, other, turn + 1)


def _place(order: list[TP], tp: TP, turn: int) -> int:
    """Where the partition's chunk number ``turn`` stands."""
    return [i for i, t in enumerate(order) if t == tp][turn]


def test_chunks_are_as_large_as_they_may_be() -> None:
    fetched = {TP("t", 0): records_of(9, 9, 9, 9, 9), TP("t", 1): records_of(9, 9)}
    chunks = [(tp.partition, [r.number for r in records]) for tp, records in handed_out(fetched, 2, ENDLESS)]
    assert chunks == [(0, [0, 1]), (1, [0, 1]), (0, [2, 3]), (0, [4])]
    sizes = [[r.serialized_value_size for r in chunk] for chunk in cut(records_of(5, 5, 99, 4, 6, 1, -1, 0), 100, 10)]
    assert sizes == [[5, 5], [99], [4, 6], [1, -1, 0]]


def test_nothing_fetched_nothing_given() -> None:
    assert list(handed_out({}, 4, 4)) == []
    assert list(handed_out({TP("t", 0): []}, 4, 4)) == []


class Buffered(Consumer):
    """A consumer between full buffers and a broker that has nothing; it notes how long it was to wait for it."""

    should_stop = False
    flow_active = True

    def __init__(self, *full: TP, active: set[TP]) -> None:
        self.app = SimpleNamespace(in_recovery=False, consumer_generation_id=1)
        self._room = asyncio.Event()
        self._active_partitions, self._buffered_partitions, self._paused_partitions = active, set(full), set()
        self.waited: list[float] = []

    async def _wait_next_records(self, timeout: float) -> tuple[Any, set[TP]]:
        self.waited.append(timeout)
        return {}, self._active_partitions

    async def read(self) -> list[Any]:
        return [chunk async for chunk in self.getmany(1.0)]


def test_while_all_buffers_are_full_it_waits_for_room_and_not_a_moment_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalesce, "ROOM_S", 3600.0)

    async def work() -> None:
        consumer = Buffered(TP("t", 0), active=set())
        reading = asyncio.ensure_future(consumer.read())
        await asyncio.sleep(0.05)
        assert consumer.waited == []
        consumer.on_buffer_drop(TP("t", 0))
        await reading
        assert consumer._active_partitions == {TP("t", 0)}

    asyncio.run(asyncio.wait_for(work(), 30))


def test_buffers_that_a_rebalance_has_emptied_are_not_waited_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalesce, "ROOM_S", 0.01)
    consumer = Buffered(TP("t", 0), active=set())
    asyncio.run(asyncio.wait_for(consumer.read(), 30))
    assert len(consumer.waited) == 1


def test_other_partitions_do_not_keep_a_full_one_waiting() -> None:
    consumer = Buffered(TP("t", 0), active={TP("t", 1)})
    asyncio.run(asyncio.wait_for(consumer.read(), 30))
    assert consumer.waited == [coalesce.FULL_S]
    consumer.on_buffer_drop(TP("t", 0))
    asyncio.run(asyncio.wait_for(consumer.read(), 30))
    assert consumer.waited == [coalesce.FULL_S, 1.0]


class Position:
    """Of one partition, as aiokafka keeps it."""

    paused, position = False, 0

    def consumed_to(self, offset: int) -> None:
        self.position = offset


def fetched(data: bytes, position: Position) -> _Fetched:
    tp = TopicPartition("t", 0)
    answer = _Answer(tp, _Bytes(data), None, position.position, None, None, True, READ_UNCOMMITTED)
    return _Fetched(
        tp,
        assignment=SimpleNamespace(active=True, state_value=lambda _: position),
        partition_records=answer,
        backoff=0.1,
    )


def test_what_was_fetched_comes_in_pieces_and_the_position_follows() -> None:
    data = batch([Message(value=bytes([i])) for i in range(5)]) + batch([Message()], base=8)
    position = Position()
    result = fetched(data, position)
    pieces = []
    while result.has_more():
        pieces.append(([r.offset for r in result.getall(2)], position.position))
    assert pieces == [([0, 1], 2), ([2, 3], 4), ([4, 8], 9)]
    assert list(result.getall(2)) == []


def test_a_position_that_has_moved_gets_nothing() -> None:
    position = Position()
    result = fetched(batch([Message()] * 3), position)
    assert len(result.getall(1)) == 1
    position.position = 7
    assert len(result.getall(1)) == 0
    assert not result.has_more()


@pytest.mark.parametrize("mask", [0x00, 0x10])
def test_control_records_are_passed_by(mask: int) -> None:
    """What aiokafka must read comes as a list."""
    commit = bytearray(batch([Message(key=bytes(4), value=bytes(6))], base=2))
    commit[22] |= 0x20 | mask
    position = Position()
    records = fetched(batch([Message()] * 2) + sealed(bytes(commit)), position).getall(None)
    assert [r.offset for r in records] == [0, 1]
    assert isinstance(records, list)
    assert position.position == 3


def test_a_broken_answer_is_fetched_again() -> None:
    broken = bytearray(batch([Message()]))
    broken[-2] ^= 1
    position = Position()
    result = fetched(bytes(broken), position)
    with pytest.raises(CorruptRecordException):
        result.getall(None)
    assert (result.has_more(), position.position) == (False, 0)

"""Faust, twenty times faster: fetch -> [one message per chunk of a partition] -> an ordinary agent.

Faust spends about 200 microseconds on every message. This transport makes the unit that flows through it a
chunk of consecutive records of one topic-partition: the agent's value is the sequence of raw records, in offset
order. None of them is an object before the agent asks for it (stream_app/records.py). It knows nothing of this
project; offsets may live outside Kafka's committed ones, and what an agent gets may be made in the thread that fetches:

    class App(CoalescingApp):
        async def positions(self, assigned): return {tp: my_offset(tp) for tp in assigned}
        def prepared(self, tp, records): return my_decoder(records)

Chunks are handed out round robin over the partitions, so none starves. A message's offset is that of its
last record. Use ``acks=False`` on the topic: the gap between messages is no gap.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from types import FunctionType
from typing import Any, NamedTuple

import faust
import numpy as np
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher as aiokafka_fetcher
from aiokafka.record.memory_records import MemoryRecords
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from stream_app import records as batches

Records = Sequence[Any]
"""Of aiokafka.ConsumerRecord; ``batches.Records``, but for what aiokafka must read."""

LARGEST_CHUNK = 16_384
LARGEST_BYTES = 4 << 20
"""Of a chunk's values; the buffers hold ``stream_buffer_maxsize`` chunks a partition."""
FETCH_WAIT_S = 0.02
"""How long the broker may hold an empty answer back. The embedded one tells only then what has come meanwhile."""
FULL_S = 0.02
"""How long the other partitions are waited for while one's buffer is full: by then it may have room."""
ROOM_S = 0.5
"""How long room is waited for before Faust is asked again."""
TELL_S = 5.0
"""How long the group may take to answer a commit that only onlookers read."""


def cut(records: Records, most: int, most_bytes: int) -> list[Records]:
    """Consecutive chunks of at most so many records and bytes; a record that is larger is a chunk of its own."""
    if isinstance(records, batches.Records):
        sizes = records.places["value_size"]
    else:
        sizes = np.array([r.serialized_value_size for r in records], np.int64)
    ends = np.cumsum(np.maximum(sizes, 0))  # below 0: no value
    chunks, start, before = [], 0, 0
    while start < len(records):
        fits = int(np.searchsorted(ends, before + most_bytes, side="right"))
        end = min(start + most, max(start + 1, fits), len(records))
        chunks.append(records[start:end])
        start, before = end, int(ends[end - 1])
    return chunks


def round_robin(chunks: Mapping[TP, Sequence[Any]]) -> Iterator[tuple[TP, Any]]:
    """One chunk of each partition after the other."""
    waiting = {tp: deque(mine) for tp, mine in chunks.items()}
    while waiting:
        for tp, left in list(waiting.items()):
            if left:
                yield tp, left.popleft()
            else:
                del waiting[tp]


class Chunk(NamedTuple):
    """What is handed out at once."""

    last: Any
    """Its last record."""
    content: Any
    """As the app has prepared it."""


class _Bytes:
    """aiokafka's records in memory, and the bytes that they are read from."""

    def __init__(self, data: bytes) -> None:
        self.data, records = data, MemoryRecords(data)
        self.has_next, self.next_batch, self.size_in_bytes = records.has_next, records.next_batch, records.size_in_bytes


class _Answer(aiokafka_fetcher.PartitionRecords):  # type: ignore[misc]  # aiokafka's fetcher has no types
    """What was fetched of a partition, read at once wherever that is possible."""

    def __init__(self, tp: Any, records: _Bytes, *rest: Any) -> None:
        super().__init__(tp, records, *rest)
        self._data: bytes | None = records.data
        self._left: Records = ()
        self._end = 0

    def take(self, most: int | None) -> tuple[Records, bool]:
        """The next records, and whether there are more."""
        if self._data is not None:
            data, self._data = self._data, None
            self._left, self._end = self._read(data)
        taken = self._left[:most]
        self._left = self._left[len(taken) :]
        self.next_fetch_offset = taken[-1].offset + 1 if self._left else self._end
        return taken, bool(self._left)

    def _read(self, data: bytes) -> tuple[Records, int]:
        topic, partition = self._tp
        found = batches.read(
            data,
            topic=topic,
            partition=partition,
            from_offset=self.next_fetch_offset,
            check_crcs=self._check_crcs,
        )
        return found or (list(self), self.next_fetch_offset)


class _Fetched(aiokafka_fetcher.FetchResult):  # type: ignore[misc]
    _partition_records: _Answer | None

    def getall(self, max_records: int | None = None) -> Records:
        answer = self._partition_records
        if answer is None or not self.check_assignment(self._topic_partition):
            return []
        self._partition_records = None  # what cannot be read is fetched again
        taken, more = answer.take(max_records)
        self._assignment.state_value(self._topic_partition).consumed_to(answer.next_fetch_offset)
        self._partition_records = answer if more else None
        return taken


_NAMES = vars(aiokafka_fetcher) | {"MemoryRecords": _Bytes, "PartitionRecords": _Answer, "FetchResult": _Fetched}


def _with_ours(function: Any) -> Any:
    """The same function, to which three names mean our classes."""
    return FunctionType(function.__code__, _NAMES, function.__name__, function.__defaults__, function.__closure__)


class _Fetcher(aiokafka_fetcher.Fetcher):  # type: ignore[misc]
    """aiokafka's, to the letter, but for what it makes of the bytes that a broker answers. It has no setting for it."""

    _proc_fetch_request = _with_ours(aiokafka_fetcher.Fetcher._proc_fetch_request)
    fetched_records = _with_ours(aiokafka_fetcher.Fetcher.fetched_records)


class _Thread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        """Faust's own waits 1.5 s, and has no setting for it."""
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = int(1000 * FETCH_WAIT_S)
        return consumer

    async def on_start(self) -> None:
        await super().on_start()
        self._ensure_consumer()._fetcher.__class__ = _Fetcher

    async def _fetch_records(self, *args: Any, **kwargs: Any) -> dict[TP, list[Chunk]]:
        """Chunks, prepared."""
        fetched = await super()._fetch_records(*args, **kwargs)
        app: Any = self.app
        return {
            tp: [Chunk(chunk[-1], app.prepared(tp, chunk)) for chunk in cut(records, LARGEST_CHUNK, LARGEST_BYTES)]
            for tp, records in fetched.items()
        }


class Consumer(driver.Consumer):
    """Yields chunks; starts where the app says, after every rebalance."""

    app: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._room = asyncio.Event()
        self.ends: dict[TP, int] = {}
        """Of partitions, as they were when the newest chunk was handed out."""

    def on_buffer_drop(self, tp: TP) -> None:
        """The agent has caught up with what is buffered of a partition."""
        super().on_buffer_drop(tp)
        self._room.set()

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        if self._buffered_partitions:
            timeout = FULL_S
            if not self._get_active_partitions():
                await self._wait_for_room()
        fetched, active = await self._wait_next_records(timeout)
        if fetched is None or self.should_stop:
            return
        generation = self.app.consumer_generation_id
        if not self.flow_active:  # a rebalance is under way: what was fetched will be fetched again
            await self.perform_seek()
            return
        for tp, chunk in round_robin(fetched):
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            if active is None or tp in active or tp in self._buffered_partitions:
                self.ends[tp] = self.highwater(tp)
                self.app.monitor.track_tp_end_offset(tp, self.ends[tp])
                yield tp, self._message(tp, chunk)

    async def _wait_for_room(self) -> None:
        """While the buffers of all partitions are full. Faust would sleep a second, with the agent idle most of it."""
        self._room.clear()
        try:
            await asyncio.wait_for(self._room.wait(), ROOM_S)
        except TimeoutError:
            pass  # a slow agent; or a rebalance has emptied the buffers, which nobody tells

    def _message(self, tp: TP, chunk: Chunk) -> ConsumerMessage:
        message = self._to_message(tp, chunk.last)
        message.value = chunk.content
        return message

    async def perform_seek(self) -> None:
        """Runs after every rebalance, perhaps more than once; Kafka's own offsets never win."""
        await super().perform_seek()
        await self.seek_to(await self.app.positions(self.assignment()))

    async def seek_to(self, positions: Mapping[TP, int]) -> None:
        """The next records to arrive begin at these offsets; older ones may still be under way."""
        if positions:
            await self.seek_wait(positions)
            self._read_offset.update({tp: o - 1 if o else None for tp, o in positions.items()})

    async def tell(self, positions: Mapping[TP, int]) -> None:
        """Commit offsets that only onlookers read. Faust's own commit would crash the app where the group refuses.

        Raises:
            KafkaError: the group refuses, as after a rebalance.
            TimeoutError: its coordinator does not answer; aiokafka would ask for ever.
        """
        await self._thread.call_thread(self._tell, positions)

    async def _tell(self, positions: Mapping[TP, int]) -> None:
        consumer: Any = self._thread._ensure_consumer()
        offsets = {TopicPartition(tp.topic, tp.partition): o for tp, o in positions.items()}
        await asyncio.wait_for(consumer.commit(offsets), TELL_S)


class Transport(driver.Transport):
    Consumer = Consumer


class CoalescingApp(faust.App):
    """A Faust app whose agents receive chunks of records."""

    def _new_transport(self) -> Any:
        return Transport(self.conf.broker_consumer, self)

    async def positions(self, assigned: set[TP]) -> Mapping[TP, int]:
        """Where to start reading each assigned partition; those left out start at the committed offset."""
        return {}

    def prepared(self, tp: TP, records: Records) -> Any:
        """What the agent gets of a chunk. Runs in the thread that fetches, while the agent is still at earlier ones."""
        return records

"""Faust, twenty times faster: fetch -> [one message per chunk of a partition] -> an ordinary agent.

Faust spends about 200 microseconds on every message. This transport makes the unit that flows through it a
chunk of consecutive records of one topic-partition: the agent's value is the list of raw records, in offset
order. It knows nothing of this project; offsets may live outside Kafka's committed ones:

    class App(CoalescingApp):
        async def positions(self, assigned): return {tp: my_offset(tp) for tp in assigned}

Chunks are handed out round robin over the partitions, so none starves. A message's offset is that of its
last record. Use ``acks=False`` on the topic: the gap between messages is no gap.
"""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import faust
from aiokafka import TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

Records = Sequence[Any]
"""Of aiokafka.ConsumerRecord."""

LARGEST_CHUNK = 1024
LARGEST_BYTES = 1 << 20
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
    ends = list(accumulate(map(_size, records)))
    chunks, start, before = [], 0, 0
    while start < len(records):
        end = min(start + most, max(start + 1, bisect_right(ends, before + most_bytes, lo=start)))
        chunks.append(records[start:end])
        start, before = end, ends[end - 1]
    return chunks


def _size(record: Any) -> int:
    return max(int(record.serialized_value_size), 0)  # -1: no value


def round_robin(fetched: Mapping[TP, Records], most: int, most_bytes: int) -> Iterator[tuple[TP, Records]]:
    """Cut each partition's records into chunks; one chunk of each partition after the other."""
    chunks = {tp: deque(cut(records, most, most_bytes)) for tp, records in fetched.items()}
    while chunks:
        for tp, left in list(chunks.items()):
            if left:
                yield tp, left.popleft()
            else:
                del chunks[tp]


class _Thread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        """Faust's own waits 1.5 s, and has no setting for it."""
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = int(1000 * FETCH_WAIT_S)
        return consumer


class Consumer(driver.Consumer):
    """Yields chunks; starts where the app says, after every rebalance."""

    app: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._room = asyncio.Event()

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
        for tp, records in round_robin(fetched, LARGEST_CHUNK, LARGEST_BYTES):
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            if active is None or tp in active or tp in self._buffered_partitions:
                self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
                yield tp, self._chunk(tp, records)

    async def _wait_for_room(self) -> None:
        """While the buffers of all partitions are full. Faust would sleep a second, with the agent idle most of it."""
        self._room.clear()
        try:
            await asyncio.wait_for(self._room.wait(), ROOM_S)
        except TimeoutError:
            pass  # a slow agent; or a rebalance has emptied the buffers, which nobody tells

    def _chunk(self, tp: TP, records: Records) -> ConsumerMessage:
        message = self._to_message(tp, records[-1])
        message.value = records  # type: ignore[assignment]  # a list is what this transport is for
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
    """A Faust app whose agents receive lists of records."""

    def _new_transport(self) -> Any:
        return Transport(self.conf.broker_consumer, self)

    async def positions(self, assigned: set[TP]) -> Mapping[TP, int]:
        """Where to start reading each assigned partition; those left out start at the committed offset."""
        return {}

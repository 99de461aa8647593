"""A broker in memory, and clients of it as kafka-python and aiokafka have them, as far as the worker uses them.

Requests travel through the network by themselves: one that was sent takes effect though its sender is killed or frozen
meanwhile, and an answer that is lost leaves the sender not knowing. While the broker is out, nothing is answered.
"""

import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import kafka
from kafka.errors import KafkaConnectionError, KafkaTimeoutError

from simulation.loop import Loop, current, pause

ANSWER_S = 0.002
"""How long a request takes on average."""
UNKNOWN = 3  # UNKNOWN_TOPIC_OR_PARTITION
PATIENCE_S = 12.0
"""How long producers try to deliver."""


class Record(NamedTuple):
    """As consumers get it."""

    offset: int
    timestamp: int
    value: bytes
    key: bytes | None
    headers: Sequence[tuple[str, bytes]]

    @property
    def serialized_value_size(self) -> int:
        return len(self.value)


class Log:
    """One partition. What is deleted from its beginning stays in ``records`` for the oracle."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.begin = 0

    @property
    def end(self) -> int:
        return len(self.records)


class Topic:
    def __init__(self, id_: str, partitions: int) -> None:
        self.id = id_
        self.logs = [Log() for _ in range(partitions)]


class Broker:
    """Keeps the topics.

    Args:
        loop: has the clock.
        rng: decides how long each request takes, and which answers are lost.
        wall: seconds, for timestamps.
    """

    def __init__(self, loop: Loop, rng: random.Random, wall: Callable[[], float]) -> None:
        self.loop, self.rng, self._wall = loop, rng, wall
        self.topics: dict[str, Topic] = {}
        self.out_until_s = 0.0
        self.lost_answers = 0.0
        """Share of the produce requests whose answer is lost, or that are written twice."""
        self.watchers: dict[str, Callable[[int, Record], None]] = {}
        """Told of each record of a topic: its partition, and itself."""

    @property
    def out(self) -> bool:
        return self.loop.time() < self.out_until_s

    def create(self, name: str, partitions: int) -> None:
        self.topics[name] = Topic(f"{name}-{len(self.topics)}", partitions)

    def append(
        self, topic: str, partition: int, value: bytes, key: bytes | None = None, headers: Sequence[Any] = ()
    ) -> int:
        log = self.topics[topic].logs[partition]
        record = Record(log.end, int(self._wall() * 1000), value, key, headers)
        log.records.append(record)
        if watcher := self.watchers.get(topic):
            watcher(partition, record)
        return record.offset

    def delay_s(self) -> float:
        """Of one way of one request: mostly short, now and then long."""
        rng = self.rng
        return rng.random() * ANSWER_S if rng.random() < 0.95 else rng.random() * 0.1

    def ask(self) -> None:
        """One request and its answer, seen by a blocking client; while the broker is out it waits.

        Raises:
            KafkaTimeoutError: the broker was out for too long.
        """
        process = current()
        assert process is not None
        process.step()
        if self.rng.random() < 0.6:
            pause(self.delay_s())
        if self.out:
            if self.out_until_s - self.loop.time() > PATIENCE_S:
                pause(PATIENCE_S)
                raise KafkaTimeoutError("the broker does not answer")
            pause(self.out_until_s - self.loop.time() + self.delay_s())

    def deliver(self, write: Callable[[], int], done: Callable[[int | None], None], *, twice: bool) -> None:
        """Send a produce request; ``done`` is told where it was written, or None if that stays unknown.

        Args:
            write: takes effect at the broker.
            twice: whether the client, left without an answer, sends it again, and the broker takes it again.
        """
        loop, rng = self.loop, self.rng
        if self.out:
            wait_s = self.out_until_s - loop.time()
            if wait_s > PATIENCE_S:
                loop.call_outside(PATIENCE_S, done, None)
                return
            loop.call_outside(wait_s, lambda: self.deliver(write, done, twice=twice))
            return
        lost = rng.random() < self.lost_answers
        how = rng.randrange(3) if lost else -1
        if how == 0:  # never arrives
            loop.call_outside(PATIENCE_S * rng.random(), done, None)
        elif how == 1:  # arrives, soon or late; the answer does not
            loop.call_outside(self.delay_s() if rng.random() < 0.7 else PATIENCE_S * rng.random(), write)
            loop.call_outside(PATIENCE_S * rng.random(), done, None)
        elif how == 2 and twice:
            loop.call_outside(self.delay_s(), write)
            loop.call_outside(0.1 + self.delay_s(), self._land, write, done)
        else:
            loop.call_outside(self.delay_s(), self._land, write, done)

    def _land(self, write: Callable[[], int], done: Callable[[int | None], None]) -> None:
        at = write()
        self.loop.call_outside(self.delay_s(), done, at)


# --- kafka-python's clients ---------------------------------------------------------------------------------


class Consumer:
    """As ``kafka.KafkaConsumer``, without a group."""

    def __init__(self, broker: Broker, **config: Any) -> None:
        self._broker, self._most = broker, int(config.get("max_poll_records", 500))
        self._at: dict[kafka.TopicPartition, int] = {}
        self._marks: dict[kafka.TopicPartition, int] = {}
        self._paused: set[kafka.TopicPartition] = set()

    def assign(self, tps: Iterable[kafka.TopicPartition]) -> None:
        self._at = dict.fromkeys(tps, 0)
        self._marks, self._paused = {}, set()

    def seek(self, tp: kafka.TopicPartition, offset: int) -> None:
        self._at[tp] = offset

    def position(self, tp: kafka.TopicPartition) -> int:
        return self._at[tp]

    def pause(self, *tps: kafka.TopicPartition) -> None:
        self._paused |= set(tps)

    def highwater(self, tp: kafka.TopicPartition) -> int | None:
        return self._marks.get(tp)

    def _log(self, tp: kafka.TopicPartition) -> Log:
        return self._broker.topics[tp.topic].logs[tp.partition]

    def end_offsets(self, tps: Sequence[kafka.TopicPartition], timeout_ms: int = 0) -> dict[Any, int]:
        self._broker.ask()
        return {tp: self._log(tp).end for tp in tps}

    def beginning_offsets(self, tps: Sequence[kafka.TopicPartition], timeout_ms: int = 0) -> dict[Any, int]:
        self._broker.ask()
        return {tp: self._log(tp).begin for tp in tps}

    def poll(self, timeout_ms: int = 0, **_: Any) -> dict[kafka.TopicPartition, list[Record]]:
        broker = self._broker
        process = current()
        assert process is not None
        process.step()
        waiting = [tp for tp in self._at if tp not in self._paused]
        if broker.out or not any(self._log(tp).end > self._at[tp] for tp in waiting):
            pause(timeout_ms / 1000)
        else:
            pause(broker.delay_s())
        return {} if broker.out else {tp: found for tp in waiting if (found := self._fetched(tp))}

    def _fetched(self, tp: kafka.TopicPartition) -> list[Record]:
        log, at = self._log(tp), self._at[tp]
        if not log.begin <= at <= log.end:  # auto_offset_reset = earliest
            at = self._at[tp] = log.begin
        self._marks[tp] = log.end
        found = log.records[at : at + self._broker.rng.randint(1, self._most)]
        self._at[tp] = at + len(found)
        return found

    def close(self, **_: Any) -> None:
        """Nothing is held."""


class _Ack:
    """As the future of ``kafka.KafkaProducer.send``."""

    def __init__(self) -> None:
        self.at: int | None = None
        self.done = False

    def tell(self, at: int | None) -> None:
        self.at, self.done = at, True

    def get(self, timeout: float | None = None) -> Any:
        if self.at is None:
            raise KafkaTimeoutError("not acknowledged")
        return SimpleNamespace(offset=self.at)


class Producer:
    """As ``kafka.KafkaProducer``, which is idempotent: nothing is written twice by itself."""

    def __init__(self, broker: Broker, **_: Any) -> None:
        self._broker = broker
        self._acks: list[_Ack] = []

    def send(self, topic: str, value: bytes, key: bytes | None = None, partition: int = 0) -> _Ack:
        process = current()
        assert process is not None
        process.step()
        ack = _Ack()
        self._acks.append(ack)
        self._broker.deliver(lambda: self._broker.append(topic, partition, value, key), ack.tell, twice=False)
        return ack

    def flush(self, timeout: float | None = None) -> None:
        loop, deadline_s = self._broker.loop, self._broker.loop.time() + (timeout or 30.0)
        step_s = 0.002
        while not all(a.done for a in self._acks):
            if loop.time() >= deadline_s:
                raise KafkaTimeoutError("not flushed")
            pause(step_s)
            step_s = min(2 * step_s, 0.5)
        self._acks = []

    def close(self, timeout: float | None = None) -> None:
        """Nothing is held."""


class Admin:
    """As ``kafka.KafkaAdminClient``."""

    def __init__(self, broker: Broker, **_: Any) -> None:
        self._broker = broker

    def __enter__(self) -> "Admin":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def describe_topics(self, names: Iterable[str]) -> list[dict[str, Any]]:
        process = current()
        assert process is not None
        process.step()
        return [self._described(name) for name in names]

    def _described(self, name: str) -> dict[str, Any]:
        topic = self._broker.topics.get(name)
        if topic is None:
            return {"name": name, "error_code": UNKNOWN, "partitions": []}
        partitions = [{"partition_index": p} for p in range(len(topic.logs))]
        return {"name": name, "error_code": 0, "topic_id": topic.id, "partitions": partitions}

    def delete_records(self, offsets: Mapping[kafka.TopicPartition, int]) -> None:
        self._broker.ask()
        for tp, offset in offsets.items():
            log = self._broker.topics[tp.topic].logs[tp.partition]
            log.begin = max(log.begin, min(offset, log.end))

    def close(self) -> None:
        """Nothing is held."""


# --- aiokafka's -----------------------------------------------------------------------------------------------


class AsyncProducer:
    """As ``aiokafka.AIOKafkaProducer``, not idempotent: a partition's records keep their order, some come twice."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._waiting: dict[tuple[str, int], deque[Any]] = {}
        self._flying: set[tuple[str, int]] = set()

    async def start(self) -> None:
        process = current()
        assert process is not None
        process.step()
        if self._broker.out:
            raise KafkaConnectionError("the broker is out")

    async def send(self, topic: str, value: bytes, *, key: bytes | None = None, partition: int = 0) -> Any:
        process = current()
        assert process is not None
        process.step()
        ack = self._broker.loop.create_future()
        self._waiting.setdefault((topic, partition), deque()).append((process, value, key, ack))
        self._fly((topic, partition))
        return ack

    def _fly(self, where: tuple[str, int]) -> None:
        """Send what waits for a partition, if nothing is under way to it."""
        waiting = self._waiting[where]
        if where in self._flying or not waiting:
            return
        self._flying.add(where)
        batch = list(waiting)
        waiting.clear()
        process = batch[0][0]

        def write() -> int:
            first, *_ = [self._broker.append(*where, value, key) for _, value, key, _ in batch]
            return first

        def done(at: int | None) -> None:
            self._flying.discard(where)
            if process.alive:
                process.post(self._told, where, batch, at)

        self._broker.deliver(write, done, twice=True)

    def _told(self, where: tuple[str, int], batch: Sequence[Any], at: int | None) -> None:
        for i, (_, _, _, ack) in enumerate(batch):
            if ack.done():
                continue
            if at is None:
                ack.set_exception(KafkaTimeoutError("not acknowledged"))
                ack.exception()  # whoever waits for it will see it
            else:
                ack.set_result(SimpleNamespace(offset=at + i))
        self._fly(where)

    async def stop(self) -> None:
        """What is under way arrives by itself."""

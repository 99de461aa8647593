"""Examples go to Kafka, one by one or by the million: [produce] -> events topic.

    with EventProducer("127.0.0.1:9092", "flights.events") as producer:
        producer.send("a1", features={"distance": 1400.0, "carrier": "UA"}, time_s=1357034100)
        producer.send("a1", label=1, label_time_s=1357049220)
        producer.send_columns(ids, features={"distance": distances, "carrier": carriers}, time_s=times_s)

What is sent waits in memory, bounded, for one thread that hands it to kafka-python. If little waits, each example
goes at once, as JSON; if more comes than the broker acknowledges, what waits is packed into columnar records. Order
within a partition is kept; what was not acknowledged is named. Loads neither torch nor Faust nor numba.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import numpy as np
from kafka.codec import has_lz4
from kafka.errors import KafkaError
from numpy.typing import NDArray

from stream_app import kafka_clients
from stream_app.codecs import gather
from stream_app.errors import BrokerError, DeliveryError, ExampleError
from stream_app.events import CONTENT_TYPE, ContentType
from stream_app.packing import RECORD_ROWS, Record, Waiting, ids_of, records_of
from stream_app.partitions import partitions_of

log = logging.getLogger("stream_app.producer")

_IN_FLIGHT = 8
"""Records not yet acknowledged, per partition; what comes meanwhile waits, and is packed together."""
_NAMED = 1_000
"""Ids of what was lost that are kept until ``flush`` tells them."""
_CONNECT_S = 10.0
_HEADERS = [(CONTENT_TYPE, ContentType.BATCH.encode())]


class Lost(NamedTuple):
    """Examples that one record carried and the broker did not acknowledge."""

    ids: list[str]
    reason: str


class Progress(NamedTuple):
    """Examples so far."""

    accepted: int
    acknowledged: int
    lost: int
    waiting_bytes: int
    """Memory that holds what is neither acknowledged nor lost; about."""
    records: int
    """Kafka records made of them."""


class EventProducer:
    """Sends examples to one topic; any thread may call it. Rows are partitioned by ``key``, as Kafka's producers do.

    Args:
        bootstrap_servers: ``host:port``, several with commas.
        topic: an existing one; its number of partitions is read once.
        memory_bytes: what may wait; beyond it, sending blocks.
        block_s: how long it may block before it raises.
        delivery_s: how long an example may stay unacknowledged, retries included, before it counts as lost.
        on_lost: called in another thread for each record that was lost; must return soon, and not call back.
        compression: "lz4", "zstd", "snappy", "gzip", or None; default lz4.

    Raises:
        BrokerError: no broker, or no such topic.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        *,
        memory_bytes: int = 64 << 20,
        block_s: float = 60.0,
        delivery_s: float = 60.0,
        on_lost: Callable[[Lost], None] | None = None,
        compression: str | None = "lz4" if has_lz4() else "gzip",
    ) -> None:
        self._topic, self._memory_bytes, self._block_s, self._on_lost = topic, memory_bytes, block_s, on_lost
        self._delivery_s = delivery_s
        self._kafka, self._partitions = _connected(bootstrap_servers, topic, compression, delivery_s)
        self._queue: deque[Waiting] = deque()
        self._changed = threading.Condition()
        self._accepted = self._acknowledged = self._lost = self._bytes = self._records = self._in_flight = 0
        self._untold: list[str] = []
        self._untold_rows, self._untold_reason = 0, ""
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="event-producer", daemon=True)
        self._thread.start()

    def send(
        self,
        id: str,
        *,
        features: Mapping[str, Any] | None = None,
        time_s: float | None = None,
        label: int | str | float | None = None,
        label_time_s: float | None = None,
        weight: float | None = None,
        key: str | None = None,
    ) -> None:
        """Send one example: features, a label, or both.

        Args:
            id: joins a label to its features.
            features: name -> number, text or integer; None and NaN are missing.
            time_s: of the features, event time.
            label: one of the model's classes, or a number.
            label_time_s: of the label, event time.
            weight: how much it counts, from 1e-6 to 1e6.
            key: chooses the partition, of features and label alike; default: the id.

        Raises:
            ExampleError: no model could take it.
            DeliveryError: there was no room for ``block_s``, or the producer is closed.
        """
        example = gather.example(
            id,
            features=features,
            time_s=time_s,
            label=label,
            label_time_s=label_time_s,
            weight=weight,
            key=key,
        )
        self._enqueue(Waiting(example, None, example.size_bytes()))

    def send_columns(
        self,
        ids: Sequence[str],
        *,
        features: Mapping[str, Any] | None = None,
        time_s: Any = None,
        label: Any = None,
        label_time_s: Any = None,
        weight: Any = None,
        keys: Sequence[str] | None = None,
    ) -> None:
        """Send many examples, given as columns: arrays or lists of as many values as there are ids.

        Args:
            ids: as ``send``.
            features: name -> numbers (NaN: missing), or texts and integers (None: missing).
            time_s: numbers; NaN: the row has no features.
            label: numbers (NaN: none), or texts and integers (None: none).
            label_time_s: numbers.
            weight: numbers; NaN: 1.
            keys: as ``send``; default: the ids.

        Raises:
            ExampleError: a column is not what an example takes; nothing was sent.
            DeliveryError: as ``send``; what came before it was sent.
        """
        batch = gather.columns(
            ids, features=features, time_s=time_s, label=label, label_time_s=label_time_s, weight=weight
        )
        try:
            raw = [k.encode() for k in (batch.ids if keys is None else keys)]
        except (AttributeError, UnicodeEncodeError) as error:
            raise ExampleError(f"a key is no text: {error}") from error
        if len(raw) != len(batch.ids):
            raise ExampleError(f"there are {len(raw)} keys, wanted {len(batch.ids)}: one for each id")
        for partition, rows in self._grouped(raw):
            for i in range(0, len(rows), RECORD_ROWS):
                part = gather.taken(batch, rows[i : i + RECORD_ROWS])
                self._enqueue(Waiting(part, partition, gather.size_bytes(part)))

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until what was sent before is acknowledged or lost.

        Args:
            timeout_s: default: a little more than ``delivery_s``.

        Raises:
            DeliveryError: something was lost since the last call (it names what), or it takes too long.
        """
        wait_s = self._delivery_s + 5.0 if timeout_s is None else timeout_s
        with self._changed:
            wanted = self._accepted
            if not self._changed.wait_for(lambda: self._acknowledged + self._lost >= wanted, wait_s):
                left = wanted - self._acknowledged - self._lost
                raise DeliveryError(f"topic {self._topic!r}: {left} examples not acknowledged after {wait_s:g} s")
            ids, rows, reason = self._untold, self._untold_rows, self._untold_reason
            self._untold, self._untold_rows = [], 0
        if rows:
            named = ", ".join(map(repr, ids[:3])) + (", ..." if rows > 3 else "")
            raise DeliveryError(f"topic {self._topic!r}: {rows} examples were not acknowledged ({named}): {reason}")

    def close(self, timeout_s: float | None = None) -> None:
        """Flush, and end; without effect if it was called before.

        Raises:
            DeliveryError: as ``flush``.
        """
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
        try:
            self.flush(timeout_s)
        finally:
            with self._changed:
                self._queue.clear()
                self._in_flight = 0
                self._changed.notify_all()
            self._thread.join(5.0)
            self._kafka.close(timeout=5)

    @property
    def progress(self) -> Progress:
        """What has become of all that was sent."""
        with self._changed:
            return Progress(self._accepted, self._acknowledged, self._lost, self._bytes, self._records)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
            return
        try:
            self.close()
        except DeliveryError:
            pass  # what is already raised says more

    # --- the caller's threads -----------------------------------------------------------------------------

    def _enqueue(self, waiting: Waiting) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._closing or self._bytes < self._memory_bytes, self._block_s):
                raise DeliveryError(
                    f"topic {self._topic!r}: {self._bytes} bytes wait, wanted room within {self._block_s:g} s "
                    f"(memory_bytes={self._memory_bytes}): does the broker answer?"
                )
            if self._closing:
                raise DeliveryError(f"topic {self._topic!r}: the producer is closed, wanted an open one")
            self._queue.append(waiting)
            self._bytes += waiting.size_bytes
            self._accepted += len(ids_of(waiting))
            if len(self._queue) == 1:
                self._changed.notify_all()

    def _grouped(self, keys: Sequence[bytes]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Partitions, and the rows of each, in order."""
        places = partitions_of(keys, len(self._partitions))
        for place in np.unique(places).tolist():
            yield self._partitions[place], np.flatnonzero(places == place)

    # --- our thread ---------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._may_go)
                if self._closing and not self._queue:
                    return
                taken = [
                    self._queue.popleft() for _ in range(min(len(self._queue), RECORD_ROWS * len(self._partitions)))
                ]
            try:
                for record in [*records_of(taken, self._partitions)]:
                    self._hand_over(record)
            except Exception as error:  # or whoever waits would wait for ever
                ids = [i for w in taken for i in ids_of(w)]
                with self._changed:
                    self._in_flight += 1
                self._settle(Record(0, None, b"", ids, sum(w.size_bytes for w in taken), False), error)

    def _may_go(self) -> bool:
        if not self._queue:
            return self._closing
        return self._in_flight < _IN_FLIGHT * len(self._partitions)

    def _hand_over(self, record: Record) -> None:
        with self._changed:
            self._in_flight += 1
            self._records += 1
        try:
            future = self._kafka.send(
                self._topic,
                record.value,
                record.key,
                headers=_HEADERS if record.packed else None,
                partition=record.partition,
            )
        except Exception as error:  # whatever it is, these examples will not arrive
            self._settle(record, error)
            return
        future.add_callback(lambda _: self._settle(record, None))
        future.add_errback(lambda error: self._settle(record, error))

    def _settle(self, record: Record, error: Exception | None) -> None:
        """A record is acknowledged, or lost."""
        with self._changed:
            self._in_flight -= 1
            self._bytes -= record.size_bytes
            if error is None:
                self._acknowledged += len(record.ids)
            else:
                self._lost += len(record.ids)
                self._untold += record.ids[: max(0, _NAMED - len(self._untold))]
                self._untold_rows += len(record.ids)
                self._untold_reason = str(error) or repr(error)
            self._changed.notify_all()
        if error is not None and self._on_lost is not None:
            try:
                self._on_lost(Lost(record.ids, str(error) or repr(error)))
            except Exception:  # theirs; ours goes on
                log.exception("on_lost failed")


def _connected(bootstrap_servers: str, topic: str, compression: str | None, delivery_s: float) -> tuple[Any, list[int]]:
    """kafka-python's producer, and the topic's partitions."""
    with _named(bootstrap_servers):
        kafka = kafka_clients.producer(
            bootstrap_servers,
            compression_type=compression,
            batch_size=256 * 1024,
            linger_ms=0,
            max_block_ms=int(1000 * _CONNECT_S),
            bootstrap_timeout_ms=int(1000 * _CONNECT_S),
            delivery_timeout_ms=int(1000 * delivery_s),
            request_timeout_ms=int(1000 * min(30.0, delivery_s)),
            metrics_enabled=False,
        )
    try:
        return kafka, sorted(kafka.partitions_for(topic))
    except KafkaError as error:
        kafka.close(timeout=0)
        raise BrokerError(f"topic {topic!r} is not there ({error!r}), wanted an existing one") from error


@contextmanager
def _named(bootstrap_servers: str) -> Iterator[None]:
    try:
        yield
    except KafkaError as error:
        raise BrokerError(f"{bootstrap_servers} did not answer: {error!r}, wanted a Kafka broker") from error

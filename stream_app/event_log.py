"""A server's producer of events: key and value -> [bounded queue -> broker] -> acknowledged.

One for an event loop. It partitions as every producer does, by the key (murmur2, as Kafka's own), and is not
idempotent, since the embedded broker cannot be; a record that comes twice has the id of the first and is ignored.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import aiokafka
from aiokafka.errors import KafkaError

from stream_app.errors import ServingError

WAITING = 20_000
"""Records that may wait for the broker; more are refused."""
ACKNOWLEDGED_S = 10.0
"""How long the broker may take."""
AGAIN_S = 2.0
"""After a broker could not be reached, calls are refused for so long before it is tried again."""
_log = logging.getLogger(__name__)


class EventLog:
    """Appends to one events topic; connects when it is first needed.

    Args:
        bootstrap_servers: of the broker.
        topic: of the events; it must exist.
        waiting: records that may wait for the broker.
        acknowledged_s: how long it may take.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        *,
        waiting: int = WAITING,
        acknowledged_s: float = ACKNOWLEDGED_S,
    ) -> None:
        self._bootstrap_servers, self._topic = bootstrap_servers, topic
        self._most, self._acknowledged_s = waiting, acknowledged_s
        self._waiting = 0
        self._producer: Any = None
        self._connecting = asyncio.Lock()
        self._again_s = 0.0

    async def append(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Returns once the broker has all of them.

        Args:
            records: key and value of each.

        Raises:
            ServingError: RESOURCE_EXHAUSTED: too many wait; UNAVAILABLE: the broker did not acknowledge all in time,
                though some may be there.
        """
        if self._waiting + len(records) > self._most:
            text = f"{self._waiting} events wait for the broker already, wanted at most {self._most}; try again later"
            raise ServingError("RESOURCE_EXHAUSTED", text)
        self._waiting += len(records)
        try:
            async with asyncio.timeout(self._acknowledged_s):
                producer = await self._connected()
                sent = [await producer.send(self._topic, value, key=key) for key, value in records]
                await asyncio.gather(*sent)
        except (KafkaError, TimeoutError) as error:
            text = f"the broker has not acknowledged all of {len(records)} events: {error!r}"
            raise ServingError("UNAVAILABLE", f"{text}; try again, an id counts once") from error
        finally:
            self._waiting -= len(records)

    async def _connected(self) -> Any:
        async with self._connecting:
            if self._producer is None:
                if time.monotonic() < self._again_s:
                    raise TimeoutError("the broker could not be reached a moment ago")
                self._producer = await self._started()
        return self._producer

    async def _started(self) -> Any:
        producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=self._bootstrap_servers.split(","),
            acks="all",
            linger_ms=1,
            request_timeout_ms=int(1000 * self._acknowledged_s),
        )
        try:
            await producer.start()
        except BaseException:  # the call's own end, too
            self._again_s = time.monotonic() + AGAIN_S
            await producer.stop()
            raise
        return producer

    async def close(self) -> None:
        """Deliver what waits, and disconnect."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            try:
                async with asyncio.timeout(self._acknowledged_s):
                    await producer.stop()
            except (KafkaError, TimeoutError) as error:
                _log.warning("%s: %r while the producer ended", self._topic, error)

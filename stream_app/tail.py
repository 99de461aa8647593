"""The newest records of a topic's one partition, for little: broker -> [Tail] -> offset, value.

kafka-python spends 1 to 2 ms of two threads on each answer, most of which say that there is nothing new; who asks
fifty times a second, as servers must of a broker that tells only when it is asked, has better uses for them. Here an
empty answer costs some 50 us. What is out of the ordinary is not handled here: ``TailError``, and kafka-python does it.

Fetch, version 4: https://kafka.apache.org/protocol#The_Messages_Fetch
"""

import socket
import struct

from kafka.record.memory_records import MemoryRecords

from stream_app.errors import BrokerError

_FETCH, _VERSION = 1, 4
_BEYOND_WAIT_S = 0.5
"""How much later than it may be an answer is waited for."""
_HEAD = struct.Struct(">i")
_ANSWER = struct.Struct(">ii")
_PARTITION = struct.Struct(">ihqqi")


class TailError(BrokerError):
    """The broker did not simply answer."""


class Tail:
    """Reads partition 0 of a topic; of one thread.

    Args:
        host: of the partition's leader.
        port: too.
        topic: its name.
        wait_s: how long the broker may hold an answer back until there is something to tell.
        most_bytes: of one answer, but for a record that is larger.

    Raises:
        TailError: nobody listens there.
    """

    def __init__(self, host: str, port: int, topic: str, *, wait_s: float, most_bytes: int) -> None:
        name, client = topic.encode(), b"stream-app"
        self._before = struct.pack(
            f">hhih{len(client)}siiiibih{len(name)}sii",
            *(_FETCH, _VERSION, 0, len(client), client),
            *(-1, int(1000 * wait_s), 1, most_bytes, 0),
            *(1, len(name), name, 1, 0),
        )
        self._most_bytes, self._name_bytes = most_bytes, len(name)
        try:
            self._socket = socket.create_connection((host, port), timeout=wait_s + _BEYOND_WAIT_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise TailError(f"broker {host}:{port}: {error}, wanted a connection") from error

    def read(self, offset: int) -> list[tuple[int, bytes]]:
        """Offset and value of what stands at ``offset`` and behind it; nothing if nothing came while it waited.

        Raises:
            TailError: the broker says something else; this is of no more use then.
        """
        request = self._before + struct.pack(">qi", offset, self._most_bytes)
        try:
            self._socket.sendall(_HEAD.pack(len(request)) + request)
            (size,) = _HEAD.unpack(self._received(_HEAD.size))
            answer = self._received(size)
        except OSError as error:
            raise TailError(f"broker: {error}, wanted an answer") from error
        try:
            return [record for record in _records(answer, self._name_bytes) if record[0] >= offset]
        except (struct.error, ValueError, AssertionError) as error:
            raise TailError(f"broker: an answer of {size} bytes that cannot be read ({error})") from error

    def _received(self, size: int) -> bytearray:
        found = bytearray(size)
        view, at = memoryview(found), 0
        while at < size:
            count = self._socket.recv_into(view[at:])
            if not count:
                raise OSError("the connection was closed")
            at += count
        return found

    def close(self) -> None:
        self._socket.close()


def _records(answer: bytearray, name_bytes: int) -> list[tuple[int, bytes]]:
    """Of an answer about one topic's one partition."""
    _, _ = _ANSWER.unpack_from(answer)  # correlation, throttling
    at = _ANSWER.size
    topics, length = struct.unpack_from(">ih", answer, at)
    at += 6 + length
    partitions, _, error, _, _, aborted = struct.unpack_from(">iihqqi", answer, at)
    if (topics, length, partitions, error) != (1, name_bytes, 1, 0):
        raise ValueError(f"error {error} of {partitions} partitions of {topics} topics")
    at += 30 + 16 * max(aborted, 0)
    (size,) = struct.unpack_from(">i", answer, at)
    if size <= 0:
        return []
    found, batches = [], MemoryRecords(bytes(answer[at + 4 : at + 4 + size]))
    while batches.has_next():
        batch = batches.next_batch()
        if not batch.validate_crc():
            raise ValueError("a checksum that does not fit")
        if not batch.is_control_batch:
            found += [(record.offset, record.value) for record in batch]
    return found

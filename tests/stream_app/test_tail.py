"""What a broker says that is out of the ordinary is refused, so that kafka-python sees to it."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from kafka.record.memory_records import MemoryRecordsBuilder

from stream_app.tail import Tail, TailError


@contextmanager
def saying(answer: bytes | None) -> Iterator[Tail]:
    """A tail of topic "t" at a broker that has only this to say to every request; nothing if None."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                while connection.recv(4096):
                    if answer is None:
                        return
                    connection.sendall(struct.pack(">i", len(answer)) + answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        host, port = server.getsockname()
        with closing(Tail(host, port, "t", wait_s=0.01, most_bytes=1_000)) as tail:
            yield tail
        thread.join(5.0)


def answer(records: bytes, error: int = 0, topic: bytes = b"t") -> bytes:
    head = struct.pack(f">iiih{len(topic)}s", 0, 0, 1, len(topic), topic)
    return head + struct.pack(">iihqqii", 1, 0, error, 9, 9, -1, len(records)) + records


def batch(*values: bytes) -> bytes:
    made = MemoryRecordsBuilder(magic=2, compression_type=0, batch_size=1 << 20)
    for value in values:
        made.append(timestamp=0, key=None, value=value)
    made.close()
    return bytes(made.buffer())


def test_records_are_read_from_the_offset_on() -> None:
    with saying(answer(batch(b"a", b"b", b"c"))) as tail:
        assert tail.read(0) == [(0, b"a"), (1, b"b"), (2, b"c")]
        assert tail.read(1) == [(1, b"b"), (2, b"c")]
    with saying(answer(b"")) as tail:
        assert tail.read(0) == []


def test_half_a_batch_is_left_for_the_next_time() -> None:
    whole = batch(b"a", b"b")
    with saying(answer(whole + whole[:20])) as tail:
        assert [value for _, value in tail.read(0)] == [b"a", b"b"]


def test_what_is_out_of_the_ordinary_is_refused() -> None:
    torn = bytearray(batch(b"abc"))
    torn[-3] ^= 1
    for said, text in {
        answer(b"", error=1): "error 1 of 1 partitions of 1 topics",
        answer(b"", topic=b"else"): "error 0",
        answer(bytes(torn)): "a checksum that does not fit",
        b"\0": "an answer of 1 bytes that cannot be read",
        None: "the connection was closed, wanted an answer",
    }.items():
        with saying(said) as tail, pytest.raises(TailError, match=text):
            tail.read(0)


def test_a_broker_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
    with pytest.raises(TailError, match="wanted a connection"):
        Tail(host, port, "t", wait_s=0.01, most_bytes=1_000)

"""Partitions are those of Kafka's own producers."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2

from stream_app.partitions import partitions_of


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(1, 100))
@example([b"", b"\0", b"a\0\0\0", b"\0" * 8, b"x" * 512], 7)
def test_each_key_goes_where_kafka_sends_it(keys: list[bytes], count: int) -> None:
    assert partitions_of(keys, count).tolist() == [(murmur2(k) & 0x7FFFFFFF) % count for k in keys]


@pytest.mark.parametrize("count", [1, 5])
def test_many_keys_at_once(count: int) -> None:
    keys = [f"2013-03-27T0929-EWR-EV{i}".encode() for i in range(10_000)]
    assert partitions_of(keys, count).tolist() == [(murmur2(k) & 0x7FFFFFFF) % count for k in keys]

"""Chunks are handed out fairly; the transport itself is tried against brokers."""

from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.coalesce import TP, round_robin

FETCHES = st.dictionaries(
    st.builds(TP, st.sampled_from(["a", "b"]), st.integers(0, 3)), st.lists(st.integers(), max_size=30), max_size=5
)


@settings(deadline=None, derandomize=True)
@given(FETCHES, st.integers(1, 12))
def test_every_record_comes_once_in_the_order_of_its_partition(fetched: dict[TP, list[int]], chunk: int) -> None:
    got: dict[TP, list[int]] = {tp: [] for tp in fetched}
    for tp, records in round_robin(fetched, chunk):
        assert 0 < len(records) <= chunk
        got[tp] += records
    assert got == fetched


@settings(deadline=None, derandomize=True)
@given(FETCHES, st.integers(1, 12))
def test_no_partition_starves(fetched: dict[TP, list[int]], chunk: int) -> None:
    """Before a partition's next chunk, every other one that still has records gives one."""
    order = [tp for tp, _ in round_robin(fetched, chunk)]
    for tp, records in fetched.items():
        turns = -(-len(records) // chunk)
        assert order.count(tp) == turns
        for other in fetched:
            for turn in range(min(turns, -(-len(fetched[other]) // chunk)) - 1):
                assert _place(order, tp, turn) < _place(order, other, turn + 1)


def _place(order: list[TP], tp: TP, turn: int) -> int:
    """Where the partition's chunk number ``turn`` stands."""
    return [i for i, t in enumerate(order) if t == tp][turn]


def test_chunks_are_as_large_as_they_may_be() -> None:
    a, b = TP("t", 0), TP("t", 1)
    chunks = [(tp.partition, list(records)) for tp, records in round_robin({a: range(5), b: range(2)}, 2)]
    assert chunks == [(0, [0, 1]), (1, [0, 1]), (0, [2, 3]), (0, [4])]


def test_nothing_fetched_nothing_given() -> None:
    assert list(round_robin({}, 4)) == []
    assert list(round_robin({TP("t", 0): []}, 4)) == []

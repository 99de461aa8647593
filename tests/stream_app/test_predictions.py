"""Predictions on the wire, and where a successor must begin to read them."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.columns import ROW_BITS, split
from stream_app.predictions import LARGEST_RECORD_BYTES, Block, Trail, decode_block, encode_blocks


def block_of(start: int, rows: int, *, rates: int = 2, scores: int = 3, seed: int = 0, batches: bool = False) -> Block:
    """Of records of one row each, or of one record."""
    rng = np.random.default_rng((seed, start))
    positions = np.arange(start, start + 2 * rows, 2, dtype=np.int64) << ROW_BITS
    if batches:
        positions = (start << ROW_BITS) + np.arange(rows)
    return Block(
        positions=positions,
        rates=rng.random((rows, rates), dtype=np.float32),
        scores=rng.random((rows, scores), dtype=np.float32),
        nochange=np.where(rng.random(rows) < 0.3, np.nan, 1.0).astype(np.float32),
        prior=rng.random((rows, scores), dtype=np.float32),
    )


def joined(blocks: list[Block]) -> Block:
    return Block(*(np.concatenate(column) for column in zip(*blocks, strict=True)))


def assert_same(got: Block, wanted: Block) -> None:
    for name, a, b in zip(Block._fields, got, wanted, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), name
        assert a.tobytes() == b.tobytes(), name


@pytest.mark.parametrize("batches", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 100])
@pytest.mark.parametrize(("rates", "scores"), [(0, 1), (2, 3), (18, 1)])
def test_what_is_encoded_is_decoded_to_the_bit(rows: int, rates: int, scores: int, batches: bool) -> None:
    block = block_of(5, rows, rates=rates, scores=scores, batches=batches)
    (value,) = encode_blocks([block], "v1")
    got, version = decode_block(value)
    assert version == "v1"
    assert_same(got, block)


def test_blocks_of_one_fetch_travel_together() -> None:
    blocks = [block_of(0, 3), block_of(10, 1), block_of(20, 2)]
    (value,) = encode_blocks(blocks, "v1")
    assert_same(decode_block(value)[0], joined(blocks))


def test_nothing_said_is_nothing_sent() -> None:
    assert encode_blocks([], "v1") == []
    assert encode_blocks([block_of(0, 0)], "v1") == []


@pytest.mark.parametrize(("rows", "scores"), [(40_000, 3), (3_000, 100), (60, 1_000)])
def test_large_blocks_are_split_below_what_a_broker_takes(rows: int, scores: int) -> None:
    block = block_of(0, rows, scores=scores)
    values = encode_blocks([block], "v1")
    assert len(values) > 1
    assert max(map(len, values)) <= LARGEST_RECORD_BYTES + 200
    assert min(map(len, values[:-1])) > LARGEST_RECORD_BYTES / 2, "no more pieces than needed"
    assert_same(joined([decode_block(v)[0] for v in values]), block)


def test_rows_are_given_with_their_positions() -> None:
    block = block_of(7, 3)
    rows = list(block.rows())
    assert [split(position) for position, _ in rows] == [(7, 0), (9, 0), (11, 0)]
    for i, (_, said) in enumerate(rows):
        assert said.rates.tolist() == block.rates[i].tolist()
        assert said.scores.tolist() == block.scores[i].tolist()
        assert said.prior.tolist() == block.prior[i].tolist()
        assert said.nochange == block.nochange[i] or (math.isnan(said.nochange) and math.isnan(block.nochange[i]))


def test_some_rows_can_be_taken() -> None:
    block = block_of(0, 4)
    assert_same(block.take(np.array([1, 3])), Block(*(c[[1, 3]] for c in block)))


def test_garbage_is_a_value_error() -> None:
    (value,) = encode_blocks([block_of(0, 3)], "v1")
    short = msgspec.msgpack.decode(value)
    short[2] = short[2][:-4]  # rates of a row and a half too few
    odd = [*msgspec.msgpack.decode(value)[:6], b"1234"]  # three offsets, one row
    bad = [msgspec.msgpack.encode(v) for v in (["v", b"123"], short, odd)]
    for garbage in (b"", b"\xff", value[:-1], *bad):
        with pytest.raises(ValueError, match=r"\w"):
            decode_block(garbage)


# The trail ---------------------------------------------------------------------------------------------


def test_a_trail_starts_at_the_first_record_that_speaks_of_what_is_remembered() -> None:
    trail = Trail()
    for at, last_event in ((0, 9), (1, 19), (2, 29)):
        trail.add(at, last_event)
    assert [trail.start(e) for e in (0, 9, 10, 19, 29)] == [0, 0, 1, 1, 2]
    assert trail.start(30) == 3 == trail.next_offset


def test_a_trail_without_records_starts_at_its_end() -> None:
    assert Trail(7).start(0) == 7


def test_a_trail_goes_on_after_what_a_reader_found() -> None:
    trail, found = Trail(2), Trail(2)
    trail.add(2, 19)
    found.add(3, 29)
    found.add(5, 39)
    found.next_offset = 8
    trail.extend(found)
    assert (trail.start(15), trail.start(25), trail.start(40)) == (2, 3, 8)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 50), max_size=12), st.lists(st.integers(0, 55), max_size=8))
def test_no_record_that_speaks_of_a_remembered_event_is_left_behind(last_events: list[int], asked: list[int]) -> None:
    """Whatever order records came in: after a crash, older events may be spoken of again."""
    trail, starts = Trail(), []
    for at, last_event in enumerate(last_events):
        trail.add(at, last_event)
    for replay_from in sorted(asked):
        start = trail.start(replay_from)
        starts.append(start)
        assert all(last < replay_from for last in last_events[:start])
    assert starts == sorted(starts)

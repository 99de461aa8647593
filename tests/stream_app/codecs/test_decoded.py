"""Chunks that were decoded are split and joined as if their records had come so."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.codecs.decoded import Decoded, joined
from stream_app.codecs.mixed import Codec
from stream_app.events import ContentType
from tests.stream_app.codecs.test_jsons import SPECS, assert_same
from tests.stream_app.codecs.test_mixed import Sent, as_batch, example, sent

CODEC = Codec(SPECS[0])
ROWS = [example("a"), example("b"), {"id": "late", "label": 7}]
RECORDS = [
    (json.dumps(ROWS[0]).encode(), ""),
    (b"no JSON", ""),
    (as_batch(ROWS), ContentType.BATCH),
    (b"no message", ContentType.BATCH),
]
LOGS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(RECORDS)), min_size=1, max_size=8)


def assert_alike(found: Decoded | None, records: list[Sent]) -> None:
    if not records:
        assert found is None
        return
    wanted = CODEC.read(records)
    assert found is not None
    assert (found.offsets.tolist(), found.bad, found.last_offset) == (
        wanted.offsets.tolist(),
        wanted.bad,
        records[-1].offset,
    )
    assert_same(found.columns, wanted.columns)


@settings(deadline=None)
@given(LOGS, st.integers(0, 40), st.integers(1, 8))
def test_they_are_split_before_an_offset_and_joined_again(
    log: list[tuple[int, tuple[bytes, str]]], offset: int, size: int
) -> None:
    records, at = [], 0
    for gap, (value, kind) in log:
        at += 1 + gap
        records.append(sent(at, value, kind))
    parts = [CODEC.read(records[i : i + size]) for i in range(0, len(records), size)]
    whole = joined(parts)
    assert_alike(whole, records)
    assert whole.many == (log[-1][1][1] == ContentType.BATCH)
    before, after = whole.split(offset)
    assert_alike(before, [r for r in records if r.offset < offset])
    assert_alike(after, [r for r in records if r.offset >= offset])

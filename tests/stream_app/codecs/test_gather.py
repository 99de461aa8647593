"""Examples packed say what they say one by one."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.codecs.batch import pack
from stream_app.codecs.gather import Example, example, gathered, taken
from stream_app.codecs.mixed import Codec
from stream_app.events import ContentType
from tests.stream_app.codecs.test_jsons import SPECS, assert_same
from tests.stream_app.codecs.test_mixed import sent

CODECS = [Codec(spec) for spec in SPECS]
TEXTS = st.text(st.characters(codec="utf-8"), max_size=3)
VALUES = st.none() | st.floats(allow_infinity=False) | st.integers(-(2**63), 2**63 - 1) | TEXTS
FEATURES = st.dictionaries(st.sampled_from(["a", "b b", "c", "id", "é", "unknown"]), VALUES)
LABELS = st.sampled_from([0, 1, 7, "late", "7", 0.5, -1.0, "nothing"])


@st.composite
def examples(draw: st.DrawFn) -> Example:
    said: dict[str, Any] = {"features": None, "time_s": None, "label": None, "label_time_s": None}
    kind = draw(st.integers(1, 3))
    if kind & 1:
        said |= {"features": draw(FEATURES), "time_s": draw(st.floats(-1.0, 1.0))}
    if kind & 2:
        said |= {"label": draw(LABELS), "label_time_s": draw(st.floats(-1.0, 1.0))}
    weight = draw(st.none() | st.floats(1e-6, 1e6))
    return example(draw(TEXTS.filter(bool)), key=None, weight=weight, **said)


@settings(deadline=None, max_examples=200)
@given(st.lists(examples(), min_size=1, max_size=6), st.sampled_from([0, 1, 2]))
def test_packed_or_one_by_one_is_the_same(rows: list[Example], which: int) -> None:
    codec = CODECS[which]
    single, single_bad = codec.decode([sent(i, e.json()) for i, e in enumerate(rows)])
    for batch in (gathered(rows), taken(gathered(rows), np.arange(len(rows)))):
        packed, packed_bad = codec.decode([sent(0, pack(batch), ContentType.BATCH)])
        assert_same(packed._replace(offsets=packed.rows.astype(np.int64), rows=single.rows), single)
        assert [b.row for b in packed_bad] == [b.offset for b in single_bad]


@settings(deadline=None)
@given(st.lists(examples(), min_size=1, max_size=6), st.data())
def test_some_rows_of_a_batch_are_a_batch(rows: list[Example], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=6))
    found = taken(gathered(rows), np.array(chosen, np.int64))
    whole = gathered(rows)
    assert [found.row(i) for i in range(len(chosen))] == [whole.row(i) for i in chosen]

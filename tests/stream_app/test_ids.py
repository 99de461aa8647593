"""Ids that are no texts say what texts would."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.ids import Ids, blank, ids_of, joined

TEXTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=8)


@settings(deadline=None, derandomize=True)
@given(TEXTS, TEXTS, st.data())
def test_they_read_as_the_texts_do(first: list[str], second: list[str], draw: st.DataObject) -> None:
    texts, ids = first + second, joined([ids_of(first), ids_of(second)])
    assert ids == texts
    assert list(ids) == texts == [ids[i] for i in range(len(ids))]
    assert ids.characters().tolist() == [len(t) for t in texts]
    assert ids.crcs().tolist() == [zlib.crc32(t.encode()) for t in texts]
    rows = draw.draw(st.lists(st.integers(0, len(texts) - 1), max_size=5)) if texts else []
    chosen = ids[np.array(rows, np.int64)]
    assert chosen == [texts[i] for i in rows]
    assert len(joined([chosen]).text) == sum(len(texts[i].encode()) for i in rows)
    assert ids[1:] == texts[1:]
    assert ids != [*texts, "x"]


def test_some_are_put_in_the_places_of_others() -> None:
    ids = blank(3)
    assert ids == ["", "", ""]
    ids.set(np.array([2, 0]), ids_of(["zwei", "é"]))
    assert ids == ["é", "", "zwei"]
    assert repr(ids) == "Ids(['é', '', 'zwei'])"


@pytest.mark.parametrize(
    ("length", "wanted"),
    [
        (0, "a3817f04ba25a8e66df67214c7550293"),
        (1, "da87c1d86b99af44347659119b22fc45"),
        (2, "8177228da4a45dc7fca38bdef60affe4"),
        (15, "5493e99933b0a8117e08ec0f97cfc3d9"),
    ],
)
def test_hashes_are_those_of_the_reference_implementation(length: int, wanted: str) -> None:
    """github.com/veorq/SipHash, vectors.h: the key is 00 01 ... 0f, the text 00 01 ..."""
    key = np.frombuffer(bytes(range(16)), "<u8").astype(np.uint64)
    ids = Ids(np.arange(length, dtype=np.uint8), np.array([[0, length]]))
    assert ids.hashes(key).astype("<u8").tobytes().hex() == wanted


def test_hashes_depend_on_the_key_and_on_nothing_around() -> None:
    ids, keys = ids_of(["a", "b", "a", "ab"]), np.arange(4, dtype=np.uint64).reshape(2, 2)
    first = ids.hashes(keys[0])
    assert (first[0] == first[2]).all()
    assert len(np.unique(first)) == 6
    assert (first != ids.hashes(keys[1])).all()

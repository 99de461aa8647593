"""Hashes of joined texts, made of the parts' hashes, are zlib's."""

import zlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.features import LARGEST, SEPARATOR, FeatureEncoder
from models.hashes import TABLE, HashedEncoder, joined, text_hash
from tests.models.test_features import NUMBERS, SPEC, VALUES

TEXTS = st.none() | st.text(max_size=40) | st.integers(-(2**63), 2**63 - 1) | st.just("é" * 5_000)


def arrays_of(rows: list[tuple[object, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes and lengths (B, C)."""
    found = np.array([[text_hash(v) for v in row] for row in rows], np.int64).reshape(len(rows), -1, 2)
    return found[..., 0].astype(np.uint32), found[..., 1].astype(np.int32)


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=5), st.permutations([0, 1, 2]))
def test_joined_is_what_zlib_says_of_the_joined_text(rows: list[tuple[object, ...]], order: list[int]) -> None:
    hashes, lengths = arrays_of(rows)
    separator = zlib.crc32(SEPARATOR.encode())
    for columns in (order, order[:2], order[:1]):
        texts = (SEPARATOR.join("" if row[c] is None else str(row[c]) for c in columns) for row in rows)
        each = zip(hashes, lengths, strict=True)
        found = [joined(row, sizes, np.array(columns), separator, TABLE) for row, sizes in each]
        assert found == [zlib.crc32(text.encode()) for text in texts]


@settings(deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS, VALUES, VALUES), min_size=1, max_size=12))
def test_hashed_rows_are_raw_rows(rows: list[tuple[object, ...]]) -> None:
    encoder = FeatureEncoder(SPEC)
    raw = encoder.raw(rows)  # type: ignore[arg-type]
    numeric = np.array([row[:2] for row in rows], np.float64)
    hashes, lengths = arrays_of([row[2:] for row in rows])
    found = HashedEncoder(SPEC).raw(np.clip(numeric, -LARGEST, LARGEST).astype(np.float32), hashes, lengths)
    for name in raw._fields:
        np.testing.assert_array_equal(getattr(found, name), getattr(raw, name))

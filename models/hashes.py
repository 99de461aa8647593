"""Texts as CRC-32s: category -> [hash] -> row of an embedding, slot of a rate.

CRC-32 is linear: that of joined texts follows from those of the parts and their lengths. So a text can be hashed
where it is read, and no Python object is needed for it. ``zlib.crc32`` is the reference.

    B rows   N numeric features   C categorical features   J of them make a key
"""

import zlib

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled, compiled_exactly
from models.features import SEPARATOR, Floats, Ints, Raw
from models.spec import ModelSpec

Hashes = NDArray[np.uint32]
Lengths = NDArray[np.int32]

_POLYNOMIAL = 0xEDB88320


def text_hash(value: object) -> tuple[int, int]:
    """CRC-32 and length of a category as text; (0, -1) of None."""
    if value is None:
        return 0, -1
    raw = str(value).encode()
    return zlib.crc32(raw), len(raw)


def _table() -> Hashes:
    """Remainder of each byte (256,)."""
    table = np.zeros(256, np.uint32)
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_POLYNOMIAL if crc & 1 else 0)
        table[byte] = crc
    return table


TABLE = _table()


@compiled
def _times(a: np.uint32, b: np.uint32) -> np.uint32:
    """Product of two polynomials modulo CRC-32's, bits reflected (zlib's multmodp)."""
    product, left, right = np.uint32(0), np.uint32(a), np.uint32(b)
    for _ in range(32):
        if left & np.uint32(0x80000000):
            product ^= right
        left <<= np.uint32(1)
        right = (right >> np.uint32(1)) ^ (np.uint32(_POLYNOMIAL) if right & np.uint32(1) else np.uint32(0))
    return np.uint32(product)


@compiled
def _after(crc: np.uint32, length: int, table: Hashes) -> np.uint32:
    """What a text's CRC becomes in that of the text with ``length`` bytes after it."""
    shifted = np.uint32(crc)
    for _ in range(length & 15):
        shifted = table[shifted & np.uint32(0xFF)] ^ (shifted >> np.uint32(8))
    if length < 16:
        return shifted
    power = np.uint32(1 << 31)  # x^0
    for _ in range(16):
        power = table[power & np.uint32(0xFF)] ^ (power >> np.uint32(8))
    length >>= 4
    while length:
        if length & 1:
            shifted = _times(power, shifted)
        power = _times(power, power)
        length >>= 1
    return np.uint32(shifted)


@compiled_exactly
def joined(hashes: Hashes, lengths: Lengths, columns: Ints, separator: int, table: Hashes) -> np.uint32:
    """CRC-32 of a row's chosen texts, joined by a byte.

    Args:
        hashes: (C,) of the texts.
        lengths: (C,) bytes; -1, missing, counts as an empty text.
        columns: (J,) which, in this order; at least one.
        separator: CRC-32 of the byte between them.
        table: as ``TABLE``.
    """
    crc = hashes[columns[0]]
    for j in range(1, len(columns)):
        crc = _after(crc, 1, table) ^ np.uint32(separator)
        crc = _after(crc, max(lengths[columns[j]], 0), table) ^ hashes[columns[j]]
    return np.uint32(crc)


class HashedEncoder:
    """What ``FeatureEncoder.raw`` makes of rows, made of their categories' hashes.

    Args:
        spec: the model's features.
    """

    def __init__(self, spec: ModelSpec) -> None:
        names, keys = list(spec.features.categorical), spec.features.rates.keys
        self._rows = np.array([max(c.size - 1, 1) for c in spec.features.categorical.values()], np.int64)
        self._columns = np.array([names.index(n) for key in keys for n in key], np.int64)
        self._ends = np.cumsum([0, *map(len, keys)], dtype=np.int64)
        self._slots = max(spec.features.rates.slots - 1, 1)
        self._separator = zlib.crc32(SEPARATOR.encode())

    def raw(self, numeric: Floats, hashes: Hashes, lengths: Lengths) -> Raw:
        """The columns of B rows.

        Args:
            numeric: (B, N) within what float32 holds; NaN is missing.
            hashes: (B, C) as ``text_hash`` gives them.
            lengths: (B, C) of the texts, in bytes; -1 is missing.
        """
        categories = np.empty(hashes.shape, np.int64)
        keys = np.empty((len(hashes), len(self._ends) - 1), np.int64)
        _code(
            hashes, lengths, self._rows, self._columns, self._ends, self._slots, self._separator, TABLE,
            categories, keys,
        )  # fmt: skip
        return Raw(numeric, categories, keys)


@compiled_exactly
def _code(
    hashes: Hashes, lengths: Lengths, rows: Ints, columns: Ints, ends: Ints, slots: int, separator: int,
    table: Hashes, categories: Ints, keys: Ints,
) -> None:  # fmt: skip
    for b in range(len(hashes)):
        for c in range(hashes.shape[1]):
            categories[b, c] = 0 if lengths[b, c] < 0 else 1 + np.int64(hashes[b, c]) % rows[c]
        for k in range(len(ends) - 1):
            key = columns[ends[k] : ends[k + 1]]
            if len(key):
                keys[b, k] = 1 + np.int64(joined(hashes[b], lengths[b], key, separator, table)) % slots
            else:
                keys[b, k] = 0

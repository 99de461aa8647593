"""Texts as CRC-32s: category -> [hash] -> row of an embedding, slot of a rate.

CRC-32 is linear: that of joined texts follows from those of the parts and their lengths. So a text can be hashed
where it is read, and no Python object is needed for it. ``zlib.crc32`` is the reference.

    B rows   N numeric features   C categorical features   J of them make a key
"""

import zlib

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled
from models.features import SEPARATOR, Floats, Raw
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


@compiled
def joined(hashes: Hashes, lengths: Lengths, columns: NDArray[np.int64], separator: int, table: Hashes) -> Hashes:
    """CRC-32 (B,) of each row's chosen texts, joined by a byte.

    Args:
        hashes: (B, C) of the texts.
        lengths: (B, C) bytes; -1, missing, counts as an empty text.
        columns: (J,) which, in this order.
        separator: CRC-32 of the byte between them.
        table: as ``TABLE``.
    """
    found = np.empty(len(hashes), np.uint32)
    for b in range(len(hashes)):
        crc = hashes[b, columns[0]]
        for c in columns[1:]:
            crc = _after(crc, 1, table) ^ np.uint32(separator)
            crc = _after(crc, max(lengths[b, c], 0), table) ^ hashes[b, c]
        found[b] = crc
    return found


class HashedEncoder:
    """What ``FeatureEncoder.raw`` makes of rows, made of their categories' hashes.

    Args:
        spec: the model's features.
    """

    def __init__(self, spec: ModelSpec) -> None:
        names = list(spec.features.categorical)
        self._rows = np.array([max(c.size - 1, 1) for c in spec.features.categorical.values()], np.int64)
        self._keys = [np.array([names.index(n) for n in key], np.int64) for key in spec.features.rates.keys]
        self._slots = max(spec.features.rates.slots - 1, 1)
        self._separator = zlib.crc32(SEPARATOR.encode())

    def raw(self, numeric: Floats, hashes: Hashes, lengths: Lengths) -> Raw:
        """The columns of B rows.

        Args:
            numeric: (B, N) within what float32 holds; NaN is missing.
            hashes: (B, C) as ``text_hash`` gives them.
            lengths: (B, C) of the texts, in bytes; -1 is missing.
        """
        categories = np.where(lengths < 0, 0, 1 + hashes.astype(np.int64) % self._rows)
        keys = np.zeros((len(hashes), len(self._keys)), np.int64)
        for k, columns in enumerate(self._keys):
            if len(columns):
                crc = joined(hashes, lengths, columns, self._separator, TABLE)
                keys[:, k] = 1 + crc.astype(np.int64) % self._slots
        return Raw(numeric, categories, keys)

"""Which partition a key belongs to, as Kafka's own producers have it, for many keys at once.

Murmur2, as in Java's ``org.apache.kafka.common.utils.Utils.murmur2``.

    B keys   W words of four bytes
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_M = np.uint32(0x5BD1E995)
_SEED = 0x9747B28C
_CHUNK = 4_096


def partitions_of(keys: Sequence[bytes], count: int) -> NDArray[np.int64]:
    """The partition (B,), from 0 to ``count - 1``, of each key."""
    if count == 1 or not keys:
        return np.zeros(len(keys), np.int64)
    parts = [_murmur2(keys[i : i + _CHUNK]) for i in range(0, len(keys), _CHUNK)]
    return (np.concatenate(parts).astype(np.int64) & 0x7FFFFFFF) % count


def _murmur2(keys: Sequence[bytes]) -> NDArray[np.uint32]:
    lengths = np.fromiter(map(len, keys), np.int64, len(keys))
    width = 4 * (int(lengths.max()) // 4 + 1)  # at least one zero after each key
    padded = np.array(keys, f"S{width}").view(np.uint8).reshape(len(keys), width)
    words = padded.view("<u4")  # (B, W)
    h = (_SEED ^ lengths).astype(np.uint32)
    whole = lengths // 4
    for w in range(int(whole.max())):
        k = words[:, w] * _M
        k = (k ^ (k >> np.uint32(24))) * _M
        h = np.where(w < whole, (h * _M) ^ k, h)
    last = words[np.arange(len(keys)), whole]
    h = np.where(lengths % 4 > 0, (h ^ last) * _M, h)
    h = (h ^ (h >> np.uint32(13))) * _M
    return np.asarray(h ^ (h >> np.uint32(15)), np.uint32)

"""Chance that can be stored: one 64-bit word -> [splitmix64] -> numbers. Steele, Lea & Flood 2014."""

import numpy as np

from models.compiled import compiled
from models.experts.arrays import U64


def seeded(seed: int, stream: int) -> U64:
    """A word (1,), independent for every ``stream`` of a seed."""
    return np.array([(seed * 0x9E3779B97F4A7C15 + (stream + 1) * 0xD1B54A32D192ED03) % 2**64], dtype=np.uint64)


@compiled
def uniform(word: U64) -> float:
    """Next number in [0, 1)."""
    word[0] += np.uint64(0x9E3779B97F4A7C15)
    z = word[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return float(z >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@compiled
def below(word: U64, n: int) -> int:
    """Next whole number in [0, n)."""
    return int(uniform(word) * n)

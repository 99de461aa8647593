"""The published generator, seen from plain integers."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.experts.chance import below, seeded, uniform

MASK = 2**64 - 1


def splitmix64(word: int) -> tuple[int, int]:
    """Steele, Lea & Flood 2014: the word after, and its mixed bits."""
    word = (word + 0x9E3779B97F4A7C15) & MASK
    z = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return word, z ^ (z >> 31)


@given(start=st.integers(0, MASK))
@settings(deadline=None)  # the first call compiles
def test_numbers_are_splitmix64(start: int) -> None:
    word = np.array([start], np.uint64)
    for _ in range(3):
        start, bits = splitmix64(start)
        assert uniform(word) == (bits >> 11) / 2**53
        assert int(word[0]) == start


@given(seed=st.integers(0, 2**40), n=st.integers(1, 1000))
@settings(deadline=None)
def test_whole_numbers_are_in_range(seed: int, n: int) -> None:
    word = seeded(seed, 3)
    assert all(0 <= below(word, n) < n for _ in range(20))


def test_streams_of_a_seed_are_apart() -> None:
    words = np.array([seeded(seed, stream)[0] for seed in range(20) for stream in range(20)])
    assert len(np.unique(words)) == 400


def test_numbers_are_spread_evenly() -> None:
    word = seeded(0, 0)
    found = np.bincount([below(word, 10) for _ in range(10_000)], minlength=10)
    assert found.min() > 900
    assert found.max() < 1100

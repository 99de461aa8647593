"""Decimal digits become the nearest double, compiled: scanner -> [number] -> column.

Clinger's exact case first, else Eisel and Lemire's algorithm (D. Lemire, Number Parsing at a Gigabyte per Second,
arXiv 2101.11408, section 5). What neither decides, and what a usual number is not, is left to the caller.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled_exactly

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]

WIDEST = 64
"""Powers of ten from -WIDEST to WIDEST are known."""
_DIGITS = 18
"""More would not fit into 64 bits for certain."""


def _fives() -> Words:
    """(2 * WIDEST + 1, 2): the 128 leading bits of 5^q, high word first; rounded up where q is negative."""
    rows = []
    for q in range(-WIDEST, WIDEST + 1):
        if q < 0:
            bits = (5**-q - 1).bit_length()
            power = 2 ** (bits + 127 if q >= -27 else 2 * bits + 128) // 5**-q + 1
        else:
            power = 5**q << 128
        power >>= power.bit_length() - 128
        rows.append((power >> 64, power & (1 << 64) - 1))
    return np.array(rows, np.uint64)


FIVES = _fives()
TENS = np.array([10.0**q for q in range(23)])
"""Exact as doubles."""


@compiled_exactly
def _product(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    """High and low word of a * b."""
    low32, by32 = np.uint64(0xFFFFFFFF), np.uint64(32)
    a0, a1, b0, b1 = a & low32, a >> by32, b & low32, b >> by32
    first = a0 * b0
    second = a1 * b0 + (first >> by32)
    third = a0 * b1 + (second & low32)
    return a1 * b1 + (second >> by32) + (third >> by32), (third << by32) | (first & low32)


@compiled_exactly
def nearest_bits(digits: np.uint64, exponent: int, fives: Words) -> np.uint64:
    """Bits of the double nearest to ``digits * 10^exponent``; 0 where it is not a normal number.

    Args:
        digits: not 0.
        exponent: from -WIDEST to WIDEST.
        fives: as ``FIVES``.
    """
    one, zeros, w = np.uint64(1), 0, np.uint64(digits)
    for shift in (32, 16, 8, 4, 2, 1):
        if w >> np.uint64(64 - shift) == np.uint64(0):
            w <<= np.uint64(shift)
            zeros += shift
    high, low = _product(w, fives[exponent + WIDEST, 0])
    if high & np.uint64(0x1FF) == np.uint64(0x1FF):
        more, _ = _product(w, fives[exponent + WIDEST, 1])
        low += more
        if more > low:
            high += one
    upper = high >> np.uint64(63)
    cut = upper + np.uint64(9)
    mantissa = high >> cut
    power = ((217706 * exponent) >> 16) + 63 + np.int64(upper) - zeros + 1023
    if power <= 0 or power >= 0x7FE:
        return np.uint64(0)
    if low <= one and -4 <= exponent <= 23 and mantissa & np.uint64(3) == one and (mantissa << cut) == high:
        mantissa &= ~one  # exactly between two: to the even one
    mantissa = (mantissa + (mantissa & one)) >> one
    if mantissa >= np.uint64(1 << 53):
        mantissa = np.uint64(1 << 52)
        power += 1
    return (mantissa & ~np.uint64(1 << 52)) | (np.uint64(power) << np.uint64(52))


@compiled_exactly
def number(text: Bytes, at: int, fives: Words, tens: NDArray[np.float64], word: Words) -> tuple[int, float]:
    """The JSON number that begins at ``at``: where it ends, or -1 if it is none of the usual ones, and its value.

    Args:
        text: followed by at least one byte that belongs to no number.
        at: where to begin.
        fives: as ``FIVES``.
        tens: as ``TENS``.
        word: room for one word.
    """
    negative = text[at] == 45  # -
    at += negative
    first, digits = at, np.uint64(0)
    count: Any = 0
    while 48 <= text[at] <= 57:
        digits = digits * np.uint64(10) + np.uint64(text[at] - 48)
        count += digits > np.uint64(0)  # zeros that lead are no digits
        at += 1
    if at == first or (text[first] == 48 and at > first + 1):
        return -1, 0.0
    if digits == np.uint64(0) and text[at] != 46 and text[at] != 101 and text[at] != 69:
        negative = False  # the integer -0 is 0
    exponent = 0
    if text[at] == 46:  # .
        at += 1
        begin = at
        while 48 <= text[at] <= 57:
            digits = digits * np.uint64(10) + np.uint64(text[at] - 48)
            count += digits > np.uint64(0)
            at += 1
        if begin == at:
            return -1, 0.0
        exponent = begin - at
    if count > _DIGITS:
        return -1, 0.0
    if text[at] == 101 or text[at] == 69:  # e, E
        at += 1
        down = text[at] == 45
        at += down or text[at] == 43
        begin, power = at, 0
        while 48 <= text[at] <= 57 and at - begin < 4:
            power = power * 10 + int(text[at] - 48)
            at += 1
        if begin == at or 48 <= text[at] <= 57:
            return -1, 0.0
        exponent += -power if down else power
    value = _value(digits, exponent, fives, tens, word)
    if value < 0.0:
        return -1, 0.0
    return at, -value if negative else value


@compiled_exactly
def _value(digits: np.uint64, exponent: int, fives: Words, tens: NDArray[np.float64], word: Words) -> float:
    """digits * 10^exponent; -1 where it is not known."""
    if digits == np.uint64(0):
        return 0.0
    if digits <= np.uint64(1 << 53) and -22 <= exponent <= 22:
        if exponent < 0:
            return float(np.float64(digits) / tens[-exponent])
        return float(np.float64(digits) * tens[exponent])
    if not -WIDEST <= exponent <= WIDEST:
        return -1.0
    bits = nearest_bits(digits, exponent, fives)
    if bits == np.uint64(0):
        return -1.0
    word[0] = bits
    return float(word.view(np.float64)[0])

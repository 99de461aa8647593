"""Ids as bytes, without an object each: decode -> [ids] -> join, ledger. A text is made where someone reads it.

B ids
"""

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled
from models.hashes import TABLE, Hashes

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]
Words = NDArray[np.uint64]


class Ids(Sequence[str]):
    """B texts, somewhere in some bytes.

    Args:
        text: UTF-8, where they stand.
        places: (B, 2) from and to.
    """

    __slots__ = ("places", "text")

    def __init__(self, text: Bytes, places: Places) -> None:
        self.text, self.places = text, places

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice | Places | NDArray[np.bool_]) -> "Ids": ...
    def __getitem__(self, at: int | slice | Places | NDArray[np.bool_]) -> "str | Ids":
        if not isinstance(at, int | np.integer):
            return Ids(self.text, self.places[at])
        begin, end = self.places[at].tolist()
        return self.text[begin:end].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        whole = self.text.tobytes()
        if whole.isascii():
            text = whole.decode()
            return iter([text[begin:end] for begin, end in self.places.tolist()])
        return (whole[begin:end].decode() for begin, end in self.places.tolist())

    def __len__(self) -> int:
        return len(self.places)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # they change

    def __repr__(self) -> str:
        return f"Ids({list(self)!r})"

    def set(self, rows: Places | slice, others: "Ids") -> None:
        """Put others in the places of some."""
        self.places = self.places.copy()
        self.places[rows] = others.places + len(self.text)
        self.text = np.concatenate([self.text, others.text])

    def sizes(self) -> Places:
        """(B,) how many bytes each has."""
        return self.places[:, 1] - self.places[:, 0]

    def characters(self) -> Places:
        """(B,) how many each has."""
        found = np.empty(len(self), np.int64)
        _characters(self.text, self.places, found)
        return found

    def crcs(self) -> Hashes:
        """(B,) CRC-32 of each."""
        found = np.empty(len(self), np.uint32)
        _crcs(self.text, self.places, TABLE, found)
        return found

    def hashes(self, key: Words) -> Words:
        """(B, 2) SipHash-2-4 of 128 bits: who does not know the key (2,) finds no two ids of the same."""
        found = np.empty((len(self), 2), np.uint64)
        _hashes(self.text, self.places, key, found)
        return found


def ids_of(texts: Sequence[str]) -> Ids:
    """Of texts."""
    raw = [t.encode() for t in texts]
    ends = np.cumsum([0, *map(len, raw)], dtype=np.int64)
    return Ids(np.frombuffer(b"".join(raw), np.uint8), np.stack([ends[:-1], ends[1:]], axis=1))


def blank(count: int) -> Ids:
    """So many empty ones."""
    return Ids(np.empty(0, np.uint8), np.zeros((count, 2), np.int64))


def joined(parts: Sequence[Ids]) -> Ids:
    """One after another, in bytes of their own: what else stood there is let go."""
    places = np.empty((sum(map(len, parts)), 2), np.int64)
    text = np.empty(sum(int((p.places[:, 1] - p.places[:, 0]).sum()) for p in parts), np.uint8)
    row = at = 0
    for part in parts:
        at = _copy(part.text, part.places, text, at, places[row : row + len(part)])
        row += len(part)
    return Ids(text, places)


@compiled
def _copy(text: Bytes, places: Places, to: Bytes, at: int, found: Places) -> int:
    for i in range(len(places)):
        found[i, 0] = at
        for j in range(places[i, 0], places[i, 1]):
            to[at] = text[j]
            at += 1
        found[i, 1] = at
    return at


@compiled
def _characters(text: Bytes, places: Places, found: Places) -> None:
    for i in range(len(places)):
        count = 0
        for j in range(places[i, 0], places[i, 1]):
            count += (text[j] & 0xC0) != 0x80  # begins one
        found[i] = count


@compiled
def _crcs(text: Bytes, places: Places, table: Hashes, found: Hashes) -> None:
    for i in range(len(places)):
        crc = np.uint32(0xFFFFFFFF)
        for j in range(places[i, 0], places[i, 1]):
            crc = table[(crc ^ text[j]) & np.uint32(0xFF)] ^ (crc >> np.uint32(8))
        found[i] = ~crc


@compiled
def _left(word: np.uint64, bits: int) -> np.uint64:
    return np.uint64((word << np.uint64(bits)) | (word >> np.uint64(64 - bits)))


@compiled
def _round(a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64) -> Any:
    a += b
    c += d
    b = _left(b, 13) ^ a
    d = _left(d, 16) ^ c
    a = _left(a, 32) + d
    c += b
    d = _left(d, 21) ^ a
    b = _left(b, 17) ^ c
    return a, b, _left(c, 32), d


@compiled
def _hashes(text: Bytes, places: Places, key: Words, found: Words) -> None:
    """SipHash (Aumasson and Bernstein 2012), with the finish for 128 bits of its reference implementation."""
    for i in range(len(places)):
        a, b = key[0] ^ np.uint64(0x736F6D6570736575), key[1] ^ np.uint64(0x646F72616E646F6D ^ 0xEE)
        c, d = key[0] ^ np.uint64(0x6C7967656E657261), key[1] ^ np.uint64(0x7465646279746573)
        at, end = places[i]
        word, bits = np.uint64(0), 0
        length = np.uint64(end - at)
        while at < end:
            word |= np.uint64(text[at]) << np.uint64(bits)
            bits += 8
            at += 1
            if bits == 64:
                d ^= word
                a, b, c, d = _round(a, b, c, d)
                a, b, c, d = _round(a, b, c, d)
                a ^= word
                word, bits = np.uint64(0), 0
        word |= length << np.uint64(56)
        d ^= word
        a, b, c, d = _round(a, b, c, d)
        a, b, c, d = _round(a, b, c, d)
        a ^= word
        c ^= np.uint64(0xEE)
        for _ in range(4):
            a, b, c, d = _round(a, b, c, d)
        found[i, 0] = a ^ b ^ c ^ d
        b ^= np.uint64(0xDD)
        for _ in range(4):
            a, b, c, d = _round(a, b, c, d)
        found[i, 1] = a ^ b ^ c ^ d

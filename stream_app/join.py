"""A late label meets its prediction: predict -> [join] -> score, learn. Pure; one join per partition.

Rules 1-5 of the protocol. The clock is the running maximum of the rows' own times. An id is remembered
(waiting for its label, waiting for its features, or done) until the clock passes its last row by the
wait. The first features and the first label count; later rows of a remembered id are ignored.

    B rows taken at once   P pairs that they complete

Rows are taken one after another, whatever B: a compiled loop over one table of what is remembered. An id's place in
the table is its slot, found by a keyed hash of 128 bits: that two ids have the same is less likely than that memory
fails, and nobody can look for such two. The due times lie in a binary heap; an id heard from again is due again, so a
due time counts only if the id's newest row says so, too.
"""

from os import urandom
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled
from stream_app.columns import Columns

NEVER_S = float("-inf")
NO_ROW = -1

Ints = NDArray[np.int64]
Times = NDArray[np.float64]
Records = NDArray[Any]
Words = NDArray[np.uint64]

_ENTRY = np.dtype(
    [
        ("first_hash", np.uint64),  # both halves of the id's
        ("second_hash", np.uint64),
        ("first_at", np.int64),  # offset of its first record
        ("clock_s", np.float64),  # just before that record
        ("last_s", np.float64),
        ("time_s", np.float64),  # NaN: no features yet
        ("label_time_s", np.float64),  # NaN: no label yet
        ("target", np.float64),
        ("weight", np.float64),  # NaN: none was said
        ("row", np.int64),
        ("there", np.bool_),
        ("done", np.bool_),
    ]
)
_DUE = np.dtype([("at_s", np.float64), ("slot", np.int64)])
_COUNTS = ("dues", "pairs", "ids", "dropped", "expired", "orphans", "ignored", "offset")
"""What a call counts; ``dues``, ``ids`` and ``offset``, of the newest record, live on."""


class Joined(NamedTuple):
    """Pairs that belong together, in the order in which they became complete."""

    at: Ints
    """(P,) which of the B rows completed it."""
    rows: Ints
    """(P,) what was made of its features, as it was given."""
    target: Times
    """(P,)"""
    label_time_s: Times
    """(P,)"""
    weight: Times
    """(P,) the label's; if it has none, the features'; else 1."""
    dropped: Ints
    """Rows that nobody will ask for: their label never came, or they are later features of an id."""

    def take(self, pairs: slice) -> "Joined":
        """Some of the pairs; nothing is dropped with them."""
        at, rows, target, label_time_s, weight, dropped = self
        return Joined(at[pairs], rows[pairs], target[pairs], label_time_s[pairs], weight[pairs], dropped[:0])


class LabelJoin:
    """Joins the records of one partition.

    Args:
        wait_s: how far, in event time, features and label may lie apart.
        clock_s: where the clock stands before the first record.
    """

    def __init__(self, wait_s: float, clock_s: float = NEVER_S) -> None:
        self.wait_s = wait_s
        self.expired = 0
        """Examples that never got a label."""
        self.orphans = 0
        """Labels that never got their features."""
        self.ignored = 0
        """Later rows of a remembered id, and labels too far from their features."""
        self._clocks_s = np.full(2, clock_s)  # now, and before the newest record
        self._counts = np.zeros(len(_COUNTS), np.int64)
        self._counts[_COUNTS.index("offset")] = -1
        self._key = np.frombuffer(urandom(16), np.uint64)  # no result depends on it
        self._table = np.zeros(0, _ENTRY)
        self._places = np.empty(0, np.int64)  # a hash's place, or the next, has its slot; -1: free
        self._free = np.empty(0, np.int64)  # slots; those left are the first
        self._dues = np.zeros(0, _DUE)

    @property
    def clock_s(self) -> float:
        return float(self._clocks_s[0])

    def take(self, columns: Columns, rows: Ints) -> Joined:
        """Take the next B rows.

        Args:
            columns: offsets must not fall from call to call.
            rows: (B,) a number for what was made of each row's features, not below 0; NO_ROW where it has none.
        """
        b = len(columns.ids)
        self._make_room(b)
        dues = int(self._counts[0])
        pairs, dropped = np.empty(b, _PAIR), np.empty(dues + 2 * b, np.int64)
        _take(
            self._table, self._places, self._free, self._dues, self._clocks_s, self._counts, self.wait_s,
            columns.ids.hashes(self._key), columns.offsets, rows,
            columns.time_s, columns.label_time_s, columns.target, columns.weight, pairs, dropped,
        )  # fmt: skip
        count = dict(zip(_COUNTS, self._counts.tolist(), strict=True))
        for name in ("expired", "orphans", "ignored"):
            setattr(self, name, getattr(self, name) + count[name])
        found = pairs[: count["pairs"]]
        return Joined(
            at=found["at"].copy(),
            rows=found["row"].copy(),
            target=found["target"].copy(),
            label_time_s=found["label_time_s"].copy(),
            weight=found["weight"].copy(),
            dropped=dropped[: count["dropped"]],
        )

    def _make_room(self, more: int) -> None:
        """For so many further ids."""
        dues, size = int(self._counts[0]), len(self._table)
        if dues + more > len(self._dues):
            self._dues = np.resize(self._dues, 2 * (dues + more))
        if len(self) + more > size:
            grown = max(2 * (len(self) + more), 64)
            left = self._free[: size - len(self)]
            self._table = np.concatenate([self._table, np.zeros(grown - size, _ENTRY)])
            self._free = np.concatenate([left, np.arange(size, grown), np.zeros(len(self), np.int64)])
            self._places = np.full(1 << (2 * grown).bit_length(), -1, np.int64)
            _place_again(self._table, self._places)

    def replay_from(self, next_offset: int) -> tuple[int, float]:
        """The first record of the oldest remembered id, and the clock before it; ``next_offset`` if none."""
        there = np.flatnonzero(self._table["there"])
        if not len(there):
            return next_offset, self.clock_s
        oldest = self._table[there[self._table["first_at"][there].argmin()]]
        return int(oldest["first_at"]), float(oldest["clock_s"])

    def rows(self) -> Ints:
        """What was made of the features that wait for their label."""
        entries = self._table[self._table["there"] & ~self._table["done"] & ~np.isnan(self._table["time_s"])]
        return np.asarray(entries["row"], np.int64)

    def __len__(self) -> int:
        return int(self._counts[_COUNTS.index("ids")])


_PAIR = np.dtype(
    [
        ("at", np.int64),
        ("row", np.int64),
        ("target", np.float64),
        ("label_time_s", np.float64),
        ("weight", np.float64),
    ]
)


@compiled
def _push(dues: Records, n: int, at_s: float, slot: int) -> None:
    """Add one to a heap of n."""
    i = n
    while i > 0 and dues[(i - 1) // 2].at_s > at_s:
        dues[i] = dues[(i - 1) // 2]
        i = (i - 1) // 2
    dues[i].at_s, dues[i].slot = at_s, slot


@compiled
def _pop(dues: Records, n: int) -> None:
    """Take the first off a heap of n."""
    at_s, slot = dues[n - 1].at_s, dues[n - 1].slot
    i, size = 0, n - 1
    while 2 * i + 1 < size:
        child = 2 * i + 1
        if child + 1 < size and dues[child + 1].at_s < dues[child].at_s:
            child += 1
        if dues[child].at_s >= at_s:
            break
        dues[i] = dues[child]
        i = child
    dues[i].at_s, dues[i].slot = at_s, slot


@compiled
def _place_again(table: Records, places: Ints) -> None:
    """Find places for all that is remembered."""
    for s in range(len(table)):
        if table[s].there:
            place = _place_of(table, places, table[s].first_hash, table[s].second_hash)
            places[place] = s


@compiled
def _place_of(table: Records, places: Ints, first_hash: np.uint64, second_hash: np.uint64) -> int:
    """Where an id is, or may be put."""
    mask = len(places) - 1
    place = np.int64(first_hash & np.uint64(mask))
    while places[place] >= 0:
        s = places[place]
        if table[s].first_hash == first_hash and table[s].second_hash == second_hash:
            break
        place = (place + 1) & mask
    return int(place)


@compiled
def _remove(table: Records, places: Ints, slot: int) -> None:
    """Free its place; who had to go further because of it comes nearer (Knuth, 6.4 R)."""
    mask = len(places) - 1
    place = _place_of(table, places, table[slot].first_hash, table[slot].second_hash)
    at = (place + 1) & mask
    while places[at] >= 0:
        home = np.int64(table[places[at]].first_hash & np.uint64(mask))
        if ((at - home) & mask) >= ((at - place) & mask):
            places[place] = places[at]
            place = at
        at = (at + 1) & mask
    places[place] = -1


@compiled
def _take(
    table: Records, places: Ints, free: Ints, dues: Records, clocks_s: Times, counts: Ints, wait_s: float,
    hashes: Words, offsets: Ints, rows: Ints, time_s: Times, label_time_s: Times, target: Times, weight: Times,
    pairs: Records, dropped: Ints,
) -> None:  # fmt: skip
    n, found, drops, expired, orphans, ignored = counts[0], 0, 0, 0, 0, 0
    left = len(table) - counts[2]
    clock_s = clocks_s[0]
    for b in range(len(hashes)):
        if offsets[b] != counts[7]:
            counts[7], clocks_s[1] = offsets[b], clock_s
        if np.isnan(time_s[b]):
            now_s = label_time_s[b]
        elif np.isnan(label_time_s[b]):
            now_s = time_s[b]
        else:
            now_s = max(time_s[b], label_time_s[b])
        clock_s = max(clock_s, now_s)
        while n > 0 and dues[0].at_s < clock_s:
            s = dues[0].slot
            _pop(dues, n)
            n -= 1
            if not table[s].there or table[s].last_s + wait_s >= clock_s:
                continue  # forgotten before, or heard from since
            _remove(table, places, s)
            table[s].there = False
            free[left] = s
            left += 1
            if not table[s].done:
                if np.isnan(table[s].time_s):
                    orphans += 1
                else:
                    expired += 1
                    dropped[drops] = table[s].row
                    drops += 1
        place = _place_of(table, places, hashes[b, 0], hashes[b, 1])
        s = places[place]
        if s < 0:
            left -= 1
            s = free[left]
            places[place] = s
            table[s].first_hash, table[s].second_hash = hashes[b, 0], hashes[b, 1]
            table[s].first_at, table[s].clock_s, table[s].last_s = offsets[b], clocks_s[1], -np.inf
            table[s].time_s = table[s].label_time_s = table[s].target = table[s].weight = np.nan
            table[s].there, table[s].done = True, False
        if now_s > table[s].last_s:
            table[s].last_s = now_s
            _push(dues, n, now_s + wait_s, s)
            n += 1
        news = False
        if not np.isnan(time_s[b]):
            if np.isnan(table[s].time_s):
                table[s].row, table[s].time_s, news = rows[b], time_s[b], True
                if np.isnan(table[s].weight):
                    table[s].weight = weight[b]
            else:
                dropped[drops] = rows[b]
                drops += 1
        if not np.isnan(label_time_s[b]) and np.isnan(table[s].label_time_s):
            table[s].target, table[s].label_time_s, news = target[b], label_time_s[b], True
            if not np.isnan(weight[b]):
                table[s].weight = weight[b]
        if not news:
            ignored += 1
            continue
        if np.isnan(table[s].time_s) or np.isnan(table[s].label_time_s):
            continue
        table[s].done = True
        if abs(table[s].label_time_s - table[s].time_s) > wait_s:
            ignored += 1
            dropped[drops] = table[s].row
            drops += 1
            continue
        pairs[found].at, pairs[found].row = b, table[s].row
        pairs[found].target, pairs[found].label_time_s = table[s].target, table[s].label_time_s
        pairs[found].weight = 1.0 if np.isnan(table[s].weight) else table[s].weight
        found += 1
    clocks_s[0] = clock_s
    counts[0], counts[1], counts[2], counts[3] = n, found, len(table) - left, drops
    counts[4], counts[5], counts[6] = expired, orphans, ignored

"""A late label meets its prediction: predict -> [join] -> score, learn. Pure; one join per partition.

Rules 1-5 of the protocol. The clock is the running maximum of the records' own times. An id is remembered
(waiting for its label, waiting for its features, or done) until the clock passes its last record by the
wait. The first features and the first label count; later records of a remembered id are ignored.
"""

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Generic, NamedTuple, TypeVar

from stream_app.decode import Event

Row = TypeVar("Row")

NEVER_S = float("-inf")


class Pair(NamedTuple, Generic[Row]):
    """Features and label that belong together."""

    id: str
    row: Row
    target: float
    label_time_s: float
    weight: float = 1.0
    """The label's; if it has none, the features'."""


class _Entry(Generic[Row]):
    """One remembered id."""

    __slots__ = ("clock_s", "done", "first_at", "label_time_s", "last_s", "row", "target", "time_s", "weight")

    def __init__(self, first_at: int, clock_s: float) -> None:
        self.first_at = first_at
        self.clock_s = clock_s
        """The clock just before its first record."""
        self.last_s = NEVER_S
        self.row: Row | None = None
        self.time_s: float | None = None
        self.target: float | None = None
        self.label_time_s: float | None = None
        self.weight: float | None = None
        self.done = False


class LabelJoin(Generic[Row]):
    """Joins the records of one partition.

    Args:
        wait_s: how far, in event time, features and label may lie apart.
        clock_s: where the clock stands before the first record.
    """

    def __init__(self, wait_s: float, clock_s: float = NEVER_S) -> None:
        self.wait_s = wait_s
        self.clock_s = clock_s
        self.expired = 0
        """Examples that never got a label."""
        self.orphans = 0
        """Labels that never got their features."""
        self.ignored = 0
        """Later records of a remembered id, and labels too far from their features."""
        self._entries: dict[str, _Entry[Row]] = {}
        self._expiry: list[tuple[float, str]] = []
        self._oldest: deque[tuple[int, str]] = deque()

    def take(self, event: Event, row: Row | None) -> Pair[Row] | None:
        """Take the next record; returns the pair it completes, if any.

        Args:
            event: offsets must rise from call to call.
            row: what was made of its features, if it has any.
        """
        before_s = self.clock_s
        times = (event.time_s, event.label_time_s)
        now_s = max(t for t in times if t is not None)
        self.clock_s = max(before_s, now_s)
        self._forget()
        entry = self._entries.get(event.id)
        if entry is None:
            entry = self._entries[event.id] = _Entry(event.offset, before_s)
            self._oldest.append((event.offset, event.id))
        if now_s > entry.last_s:
            entry.last_s = now_s
            heappush(self._expiry, (now_s + self.wait_s, event.id))
        return self._complete(event, entry, row)

    def _complete(self, event: Event, entry: _Entry[Row], row: Row | None) -> Pair[Row] | None:
        news = False
        if row is not None and entry.time_s is None:
            entry.row, entry.time_s, news = row, event.time_s, True
            if entry.weight is None:
                entry.weight = event.weight
        if event.target is not None and entry.label_time_s is None:
            entry.target, entry.label_time_s, news = event.target, event.label_time_s, True
            if event.weight is not None:
                entry.weight = event.weight
        if not news:
            self.ignored += 1
            return None
        if entry.time_s is None or entry.label_time_s is None:
            return None
        entry.done = True
        found, entry.row = entry.row, None
        if abs(entry.label_time_s - entry.time_s) > self.wait_s:
            self.ignored += 1
            return None
        assert found is not None
        assert entry.target is not None
        weight = 1.0 if entry.weight is None else entry.weight
        return Pair(event.id, found, entry.target, entry.label_time_s, weight)

    def _forget(self) -> None:
        """Forget the ids whose last record lies more than the wait behind the clock."""
        while self._expiry and self._expiry[0][0] < self.clock_s:
            _, id_ = heappop(self._expiry)
            entry = self._entries.get(id_)
            if entry is None or entry.last_s + self.wait_s >= self.clock_s:
                continue  # forgotten before, or heard from since
            if not entry.done:
                self.expired += entry.time_s is not None
                self.orphans += entry.time_s is None
            del self._entries[id_]

    def replay_from(self, next_offset: int) -> tuple[int, float]:
        """The first record of the oldest remembered id, and the clock before it; ``next_offset`` if none."""
        while self._oldest:
            offset, id_ = self._oldest[0]
            entry = self._entries.get(id_)
            if entry is not None and entry.first_at == offset:
                return offset, entry.clock_s
            self._oldest.popleft()
        return next_offset, self.clock_s

    def rows(self) -> Iterator[Row]:
        """Of the examples that wait for their label."""
        return (e.row for e in self._entries.values() if e.row is not None)

    def waiting(self) -> int:
        """How many examples wait for their label."""
        return sum(1 for _ in self.rows())

    def __len__(self) -> int:
        return len(self._entries)

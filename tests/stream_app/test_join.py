"""Rules 1 to 5 of the protocol, each by example and all against a slow model."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.columns import Columns, empty
from stream_app.ids import ids_of
from stream_app.join import NEVER_S, NO_ROW, LabelJoin

WAIT_S = 10.0


class Event(NamedTuple):
    """One row."""

    offset: int
    id: str
    time_s: float | None
    target: float | None
    label_time_s: float | None
    weight: float | None = None


class Pair(NamedTuple):
    id: str
    row: int
    target: float
    label_time_s: float
    weight: float = 1.0


Stream = list[Event]


def columns_of(events: Sequence[Event]) -> Columns:
    found = empty(len(events), numeric=0, categorical=0)._replace(ids=ids_of([e.id for e in events]))
    for name in ("time_s", "target", "label_time_s", "weight"):
        values = [getattr(e, name) for e in events]
        getattr(found, name)[:] = [np.nan if v is None else v for v in values]
    found.offsets[:] = [e.offset for e in events]
    return found


def events_of(columns: Columns) -> Stream:
    names = ("time_s", "target", "label_time_s", "weight")
    numbers = zip(*(getattr(columns, name).tolist() for name in names), strict=True)
    rows = zip(columns.offsets.tolist(), columns.ids, numbers, strict=True)
    return [Event(o, i, *(None if np.isnan(v) else v for v in values)) for o, i, values in rows]


def features(offset: int, id_: str, time_s: float) -> Event:
    return Event(offset, id_, time_s, None, None)


def label(offset: int, id_: str, time_s: float, target: float = 1.0) -> Event:
    return Event(offset, id_, None, target, time_s)


def both(offset: int, id_: str, time_s: float, label_time_s: float) -> Event:
    return Event(offset, id_, time_s, 1.0, label_time_s)


def taken(join: LabelJoin, events: Sequence[Event]) -> list[Pair]:
    """The pairs; a row is known by the offset of its features."""
    rows = np.array([NO_ROW if e.time_s is None else e.offset for e in events], np.int64)
    pairs = join.take(columns_of(events), rows)
    columns = (pairs.rows, pairs.target, pairs.label_time_s, pairs.weight)
    return [
        Pair(events[i].id, *values)
        for i, *values in zip(pairs.at.tolist(), *(c.tolist() for c in columns), strict=True)
    ]


def run(*events: Event) -> tuple[LabelJoin, list[Pair]]:
    join = LabelJoin(WAIT_S)
    return join, taken(join, events)


# Rule 1 --------------------------------------------------------------------------------------------


def test_the_clock_is_the_running_maximum_of_the_records_own_times() -> None:
    join = LabelJoin(WAIT_S)
    assert join.clock_s == NEVER_S
    clocks = []
    for event in (features(0, "a", 5.0), label(1, "b", 3.0), both(2, "c", 6.0, 9.0), both(3, "d", 8.0, 1.0)):
        taken(join, [event])
        clocks.append(join.clock_s)
    assert clocks == [5.0, 5.0, 9.0, 9.0]


# Rule 2 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clock_s", "remembered"), [(10.0, True), (10.5, False)])
def test_an_id_is_remembered_until_the_clock_passes_it_by_the_wait(clock_s: float, remembered: bool) -> None:
    join, pairs = run(features(0, "a", 0.0), features(1, "b", clock_s), label(2, "a", 9.0))
    assert bool(pairs) == remembered
    assert join.expired == (not remembered)


def test_a_later_record_of_an_id_prolongs_its_memory() -> None:
    join, pairs = run(features(0, "a", 0.0), features(1, "a", 8.0), features(2, "b", 17.0), label(3, "a", 10.0))
    assert pairs == [Pair("a", 0, 1.0, 10.0)]
    assert join.ignored == 1


def test_an_earlier_time_in_a_later_record_does_not_shorten_it() -> None:
    _, pairs = run(features(0, "a", 8.0), features(1, "a", 0.0), features(2, "b", 17.0), label(3, "a", 9.0))
    assert len(pairs) == 1


def test_a_done_id_is_remembered_too() -> None:
    join, pairs = run(both(0, "a", 0.0, 1.0), both(1, "a", 11.0, 11.0), both(2, "a", 21.5, 21.5))
    assert [p.row for p in pairs] == [0, 2]
    assert (join.ignored, join.expired, join.orphans, len(join)) == (1, 0, 0, 1)


def test_what_expires_is_counted_by_what_was_missing() -> None:
    join, _ = run(features(0, "a", 0.0), label(1, "b", 0.0), both(2, "c", 0.0, 0.0), features(3, "d", 11.0))
    assert (join.expired, join.orphans, len(join)) == (1, 1, 1)


# Rule 3 --------------------------------------------------------------------------------------------


def test_the_pair_is_complete_at_its_second_record_whichever_that_is() -> None:
    join = LabelJoin(WAIT_S)
    assert taken(join, [label(0, "a", 3.0)]) == []
    assert taken(join, [features(1, "a", 1.0)]) == [Pair("a", 1, 1.0, 3.0)]
    assert taken(join, [both(2, "b", 4.0, 5.0)]) == [Pair("b", 2, 1.0, 5.0)]


def test_the_first_features_and_the_first_label_count() -> None:
    join, pairs = run(features(0, "a", 0.0), features(1, "a", 1.0), label(2, "a", 2.0, 0.0), label(3, "a", 3.0, 1.0))
    assert pairs == [Pair("a", 0, 0.0, 2.0)]
    assert join.ignored == 2


def test_features_that_come_with_a_second_label_still_count() -> None:
    _, pairs = run(label(0, "a", 0.0, 0.0), both(1, "a", 1.0, 2.0))
    assert pairs == [Pair("a", 1, 0.0, 0.0)]


@pytest.mark.parametrize(
    ("of_features", "of_label", "wanted"), [(None, None, 1.0), (2.0, None, 2.0), (None, 3.0, 3.0), (2.0, 3.0, 3.0)]
)
def test_the_labels_weight_counts_before_the_features(
    of_features: float | None, of_label: float | None, wanted: float
) -> None:
    pair = features(0, "a", 0.0)._replace(weight=of_features), label(1, "a", 0.0)._replace(weight=of_label)
    late = features(2, "a", 0.0)._replace(weight=9.0), label(3, "a", 0.0)._replace(weight=9.0)
    assert [p.weight for p in run(*pair, *late)[1]] == [wanted]
    assert [p.weight for p in run(*(e._replace(offset=1 - e.offset) for e in reversed(pair)))[1]] == [wanted]


@pytest.mark.parametrize(("label_time_s", "learned"), [(10.0, True), (10.5, False), (-10.0, True), (-10.5, False)])
def test_times_may_differ_by_the_wait_at_most(label_time_s: float, learned: bool) -> None:
    join, pairs = run(both(0, "a", 0.0, label_time_s))
    assert bool(pairs) == learned
    assert join.ignored == (not learned)
    assert taken(join, [label(1, "a", 0.0)]) == []


# Rule 4 --------------------------------------------------------------------------------------------


def test_replay_begins_at_the_oldest_remembered_id_with_the_clock_before_it() -> None:
    join = LabelJoin(WAIT_S)
    assert join.replay_from(7) == (7, NEVER_S)
    taken(join, [features(0, "a", 5.0), both(1, "b", 6.0, 6.0), features(2, "c", 14.0)])
    assert join.replay_from(3) == (0, NEVER_S)
    taken(join, [features(3, "d", 16.0)])
    assert join.replay_from(4) == (1, 5.0)
    taken(join, [features(4, "e", 17.0)])
    assert join.replay_from(5) == (2, 6.0)


def test_an_id_that_is_forgotten_and_comes_again_counts_from_its_new_first_record() -> None:
    join, _ = run(features(0, "a", 0.0), features(1, "b", 5.0), features(2, "a", 11.0))
    assert join.replay_from(3) == (1, 0.0)
    taken(join, [features(3, "c", 15.5)])
    assert join.replay_from(4) == (2, 5.0)


# All of them against a slow model -------------------------------------------------------------------


class Seen(NamedTuple):
    """One record of a remembered id."""

    event: Event
    clock_s: float
    """Before it."""


class SlowJoin:
    """Keeps every record, and looks at all of them each time."""

    def __init__(self, clock_s: float = NEVER_S) -> None:
        self.clock_s = clock_s
        self.ids: dict[str, list[Seen]] = {}

    def take(self, event: Event) -> Pair | None:
        before_s = self.clock_s
        self.clock_s = max(self.clock_s, _last_s(event))
        for id_ in [i for i, seen in self.ids.items() if max(_last_s(s.event) for s in seen) + WAIT_S < self.clock_s]:
            del self.ids[id_]
        was_complete = self._complete(event.id) is not None
        self.ids.setdefault(event.id, []).append(Seen(event, before_s))
        pair = self._complete(event.id)
        if pair is None or was_complete:
            return None
        first, second = pair
        assert first.time_s is not None
        assert second.label_time_s is not None
        assert second.target is not None
        if abs(first.time_s - second.label_time_s) > WAIT_S:
            return None
        weight = next((w for w in (second.weight, first.weight) if w is not None), 1.0)
        return Pair(event.id, first.offset, second.target, second.label_time_s, weight)

    def _complete(self, id_: str) -> tuple[Event, Event] | None:
        events = [s.event for s in self.ids.get(id_, ())]
        first = next((e for e in events if e.time_s is not None), None)
        second = next((e for e in events if e.target is not None), None)
        return (first, second) if first and second else None

    def replay_from(self, next_offset: int) -> tuple[int, float]:
        firsts = [(seen[0].event.offset, seen[0].clock_s) for seen in self.ids.values()]
        return min(firsts, default=(next_offset, self.clock_s))

    def waiting(self) -> int:
        return sum(
            self._complete(i) is None and any(s.event.time_s is not None for s in seen) for i, seen in self.ids.items()
        )


def _last_s(event: Event) -> float:
    return max(t for t in (event.time_s, event.label_time_s) if t is not None)


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """Few ids, so that they come again and again; times that wander forward, often back, sometimes far ahead."""
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from("abcdef"),
                st.sampled_from("flb"),
                st.sampled_from([-12.0, -5.0, -1.0, 0.0, 0.5, 1.0, 2.0, 4.0, 10.0, 11.0]),
                st.sampled_from([-11.0, -3.0, 0.0, 3.0, 11.0]),
                st.sampled_from([None, 0.5, 2.0]),
            ),
            max_size=40,
        )
    )
    events, now_s = [], 0.0
    for i, (id_, kind, step_s, apart_s, weight) in enumerate(steps):
        now_s += step_s
        offset = 3 * i  # offsets rise, with gaps
        make = {"f": features(offset, id_, now_s), "l": label(offset, id_, now_s, float(i % 2))}
        events.append(make.get(kind, both(offset, id_, now_s, now_s + apart_s))._replace(weight=weight))
    return events


def remembered(join: LabelJoin, ids: Iterable[str]) -> dict[str, str]:
    """Everything a join knows of each of these ids that can still matter."""
    fields = [name for name in join._table.dtype.names or () if not name.endswith(("there", "row", "hash"))]
    table = join._table[join._table["there"]]
    slots = {pair: i for i, pair in enumerate(table[["first_hash", "second_hash"]].tolist())}
    names = sorted(set(ids))
    found = {i: slots.get(tuple(pair)) for i, pair in zip(names, ids_of(names).hashes(join._key).tolist(), strict=True)}
    return {i: repr([table[name][slot] for name in fields]) for i, slot in found.items() if slot is not None}


@settings(deadline=None, derandomize=True, max_examples=150)
@given(streams(), st.lists(st.integers(1, 9), min_size=1, max_size=40))
def test_it_agrees_with_the_slow_model(events: Stream, sizes: list[int]) -> None:
    join, slow, held = LabelJoin(WAIT_S), SlowJoin(), set[int]()
    at, turn = 0, 0
    while at < len(events):
        part = events[at : at + sizes[turn % len(sizes)]]
        at, turn = at + len(part), turn + 1
        rows = np.array([NO_ROW if e.time_s is None else e.offset for e in part], np.int64)
        found = join.take(columns_of(part), rows)
        wanted = [p for p in map(slow.take, part) if p]
        values = zip(found.rows.tolist(), found.target.tolist(), found.weight.tolist(), strict=True)
        assert list(values) == [(p.row, p.target, p.weight) for p in wanted]
        held = held | set(rows[rows != NO_ROW].tolist())
        gone = [*found.rows.tolist(), *found.dropped.tolist()]
        assert len(set(gone)) == len(gone)
        assert held.issuperset(gone)
        held -= set(gone)
        assert join.clock_s == slow.clock_s
        assert remembered(join, slow.ids).keys() == slow.ids.keys()
        assert len(join) == len(slow.ids)
        assert len(held) == slow.waiting()
        assert join.replay_from(part[-1].offset + 1) == slow.replay_from(part[-1].offset + 1)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(streams(), st.data())
def test_a_join_rebuilt_from_replay_from_is_the_one_that_never_stopped(events: Stream, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(events)))
    next_offset = 3 * cut
    steady = LabelJoin(WAIT_S)
    taken(steady, events[:cut])
    start, clock_s = steady.replay_from(next_offset)
    rebuilt = LabelJoin(WAIT_S, clock_s)
    taken(rebuilt, [e for e in events if start <= e.offset < next_offset])
    assert rebuilt.clock_s == steady.clock_s
    ids = [e.id for e in events]
    assert remembered(rebuilt, ids) == remembered(steady, ids)
    for event in events[cut:]:
        assert taken(rebuilt, [event]) == taken(steady, [event])
        assert rebuilt.replay_from(event.offset + 3) == steady.replay_from(event.offset + 3)
    assert remembered(rebuilt, ids) == remembered(steady, ids)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(streams())
def test_replay_never_has_to_go_back_further_than_before(events: Stream) -> None:
    join, last = LabelJoin(WAIT_S), 0
    for event in events:
        taken(join, [event])
        start, _ = join.replay_from(event.offset + 3)
        assert last <= start <= event.offset + 3
        last = start


def test_rows_of_one_record_share_the_clock_before_it() -> None:
    join = LabelJoin(WAIT_S)
    taken(join, [features(0, "a", 5.0), features(1, "b", 6.0), features(1, "c", 7.0)])
    taken(join, [features(1, "d", 8.0)])  # of the same record, in a step of its own
    known = remembered(join, "abcd")
    assert [f"np.float64({clock_s})" in known[i] for i, clock_s in zip("bcd", [5.0] * 3, strict=True)] == [True] * 3
    assert f"np.float64({NEVER_S})" in known["a"]


def test_nothing_of_what_is_forgotten_stays_behind() -> None:
    join = LabelJoin(WAIT_S)
    for i in range(500):
        taken(join, [features(i, f"id{i}", float(i))])
    assert len(join) == 11
    assert int(join._counts[0]) <= 12
    assert np.count_nonzero(join._places >= 0) == 11
    assert len(join._table) == 64
    used = set(join._places[join._places >= 0].tolist())
    assert used.isdisjoint(join._free[: 64 - 11].tolist())
    assert len(set(join._free[: 64 - 11].tolist())) == 64 - 11


def test_ids_are_found_however_many_come_and_go() -> None:
    """Places of the forgotten are filled by those that had to stand further on."""
    rng = np.random.default_rng(1)
    join, slow = LabelJoin(WAIT_S), SlowJoin()
    for step in range(60):
        ids = rng.integers(0, 4_000, 100).tolist()
        make = [features, label]
        events = [make[i % 2](100 * step + n, f"id{i >> 1}", step + n / 100) for n, i in enumerate(ids)]
        wanted = [(p.row, p.target) for p in map(slow.take, events) if p]
        assert [(p.row, p.target) for p in taken(join, events)] == wanted
        assert remembered(join, slow.ids).keys() == slow.ids.keys()
        assert len(join) == len(slow.ids)

"""Rows that wait: each at a place of its own until it is given back."""

import numpy as np

from stream_app.waiting import Rows, Waiting


def rows_of(n: int, first: float) -> Rows:
    value = first + np.arange(n, dtype=np.float32)
    column = np.repeat(value[:, None], 2, axis=1)
    ints = column.astype(np.int64)
    return Rows(column, ints, column + 0.25, column + 0.5, column + 0.75, value, column)


def put(waiting: Waiting, n: int, first: float) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    places = waiting.reserve(n)
    waiting.put(places, **rows_of(n, first)._asdict())
    return places


def test_a_row_is_found_again_by_its_place_however_many_came_since() -> None:
    waiting = Waiting()
    early = put(waiting, 3, 0.0)
    for i in range(20):
        put(waiting, 50, 1000.0 * (i + 1))
    found = waiting.rows(early[[2, 0]])
    for column, wanted in zip(found, rows_of(3, 0.0), strict=True):
        assert column.tolist() == wanted[[2, 0]].tolist()
    assert len(waiting) == 1003


def test_places_are_used_again_when_they_are_given_back() -> None:
    waiting = Waiting()
    for i in range(100):
        waiting.give_back(put(waiting, 40, float(i)))
    assert len(waiting) == 0
    assert max(put(waiting, 40, 0.0)) < 128


def test_what_is_given_is_a_copy() -> None:
    waiting = Waiting()
    places = put(waiting, 2, 1.0)
    waiting.rows(places).own[:] = 9.0
    assert waiting.rows(places).own.tolist() == rows_of(2, 1.0).own.tolist()


def test_nothing_waits_at_first() -> None:
    waiting = Waiting()
    assert (len(waiting), waiting.places().tolist(), waiting.reserve(0).tolist()) == (0, [], [])

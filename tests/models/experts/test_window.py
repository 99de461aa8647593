"""The newest rows stand in a ring, and come back from rest as they were."""

import numpy as np

from models.experts.window import CHUNK, REACH, Window, tame
from tests.models.experts.made import assert_same, rows_of


def filled(window: Window, n: int) -> None:
    for i in range(n):
        rows = rows_of(np.full((1, 2), i), np.array([i]), classes=1, codes=np.array([[i % 3]]))
        window.write(rows)
        window.count += 1


def test_row_number_i_stands_at_i_modulo_room() -> None:
    window, room = Window(10, 2, 1), 10 + CHUNK
    filled(window, room + 5)
    rows = np.arange(5, room + 5)
    np.testing.assert_array_equal(window.y[rows % room], rows)
    np.testing.assert_array_equal(window.z[rows % room, 1], rows)
    np.testing.assert_array_equal(window.codes[rows % room, 0], rows % 3)


def test_only_what_was_written_is_in_the_state() -> None:
    window, room = Window(10, 2, 1), 10 + CHUNK
    filled(window, 7)
    assert window.state()["z"].shape == (7, 2)
    filled(window, room)
    assert window.state()["z"].shape == (room, 2)


def test_a_loaded_window_is_the_same_before_and_after_it_has_wrapped() -> None:
    for n in (0, 7, 3 * CHUNK):
        window, again = Window(10, 2, 1), Window(10, 2, 1)
        filled(window, n)
        again.load(window.state())
        assert_same(again.state(), window.state())
        filled(window, 4)
        filled(again, 4)
        assert_same(again.state(), window.state())


def test_new_columns_were_0_and_new_categories_their_first_code() -> None:
    window = Window(10, 2, 1)
    filled(window, 4)
    window.grow(3, np.array([0, 7], np.int64))
    np.testing.assert_array_equal(window.z[:4], [[i, i, 0] for i in range(4)])
    np.testing.assert_array_equal(window.codes[:4], [[0, 7], [1, 7], [2, 7], [0, 7]])


def test_forgotten_codes_are_replaced() -> None:
    window = Window(10, 2, 1)
    filled(window, 4)
    window.forget(np.array([1, 2], np.int64), 5)
    np.testing.assert_array_equal(window.codes[:4, 0], [0, 5, 5, 0])


def test_columns_are_tamed_to_numbers_within_reach() -> None:
    z = np.array([[np.nan, np.inf, -np.inf], [1e30, -3.5, 0.0]], np.float32)
    tame(z)
    np.testing.assert_array_equal(z, [[0, REACH, -REACH], [REACH, -3.5, 0]])

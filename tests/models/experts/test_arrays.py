"""What widens keeps its numbers where they are."""

import numpy as np

from models.experts.arrays import widened


def test_the_old_numbers_stay_in_the_first_corner() -> None:
    found = widened(np.array([[1, 2], [3, 4]], np.int32), (3, 3), -1)
    np.testing.assert_array_equal(found, [[1, 2, -1], [3, 4, -1], [-1, -1, -1]])
    assert found.dtype == np.int32


def test_the_same_shape_is_the_same_array() -> None:
    array = np.ones((2, 2))
    assert widened(array, (2, 2)) is array

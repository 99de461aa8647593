"""Counts of two who scored apart add up; the window has the newest rows of both."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.merging import Fork
from stream_app.tally import BLOCK_ROWS, BLOCKS, State, Tally, merged

COUNTS = st.integers(0, 3 * BLOCKS * BLOCK_ROWS // 2)


def told(state: State | None, rows: int, of: int) -> State:
    """``rows`` more, each counted in cell ``of``."""
    tally = Tally(3, 3, 1)
    if state is not None:
        tally.load(state)
    at = np.full((1, rows), of)
    tally.add(at, at, np.zeros((1, rows), np.int64), np.ones((1, rows)))
    return tally.state()


@settings(deadline=None, max_examples=60)
@given(COUNTS, COUNTS, COUNTS)
def test_all_rows_count_once_and_the_window_has_the_newest(before: int, theirs: int, mine: int) -> None:
    base = told(None, before, 0)
    both = Tally(3, 3, 1)
    both.load(merged(Fork(base, told(base, theirs, 1), told(base, mine, 2), theirs, mine)))
    rows, counts, sums = both.total()
    assert (rows, counts.tolist(), sums.tolist()) == (before + theirs + mine, [before, theirs, mine], [rows])
    full = BLOCKS * BLOCK_ROWS
    _, window, (total,) = both.window()
    assert window.sum() == total
    assert total <= full + 2 * BLOCK_ROWS + min(theirs, mine, full)
    assert total >= min(rows, full - 3 * BLOCK_ROWS)
    for of, come in enumerate((before, theirs, mine)):
        assert window[of] <= come


def test_whoever_comes_second_goes_on_as_if_nothing_had_been_between() -> None:
    base = told(None, 3_000, 0)
    alone = told(base, 2_500, 2)
    assert all(np.array_equal(a, alone[k]) for k, a in merged(Fork(base, base, alone, 0, 2_500)).items())
    assert all(np.array_equal(a, alone[k]) for k, a in merged(Fork(base, alone, base, 2_500, 0)).items())

"""Calls that wait at the same moment share one run of the model: rows -> [wait a turn of the loop] -> scores.

A run costs nearly the same for one row and for ten. Nobody waits for company: what has come when the loop's turn
ends is scored, so an idle server adds a turn of its loop (some ten microseconds), and a busy one saves most of a run
per call. docs/serving.md has the measurement.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stream_app.live import LiveModel, Scores
from stream_app.serving.scoring import Values

ROWS_AT_ONCE = 64
"""Rows in one run; after it, other work of the loop gets its turn."""


class _Asked(NamedTuple):
    """One call's rows."""

    live: LiveModel
    rows: Sequence[Values]
    times_s: Sequence[float]
    answer: "asyncio.Future[Scores]"


class Together:
    """For one event loop."""

    def __init__(self) -> None:
        self._waiting: list[_Asked] = []

    def score(self, live: LiveModel, rows: Sequence[Values], times_s: Sequence[float]) -> "asyncio.Future[Scores]":
        """(B, K) of B rows, checked; ``times_s`` NaN for the default. Not computed once the future is cancelled."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Scores] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._run)
        self._waiting.append(_Asked(live, rows, times_s, answer))
        return answer

    def _run(self) -> None:
        """Score those at the front that ask the same model, up to ROWS_AT_ONCE; the rest at the next turn."""
        self._waiting = [asked for asked in self._waiting if not asked.answer.done()]
        chosen, rows = 0, 0
        for asked in self._waiting:
            if asked.live is not self._waiting[0].live or (chosen and rows + len(asked.rows) > ROWS_AT_ONCE):
                break
            chosen, rows = chosen + 1, rows + len(asked.rows)
        ready, self._waiting = self._waiting[:chosen], self._waiting[chosen:]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._run)
        if ready:
            _answer(ready)


def _answer(ready: Sequence[_Asked]) -> None:
    live = ready[0].live
    try:
        raw = live.encoder.raw([row for asked in ready for row in asked.rows])
        scores = live.score(raw, np.array([time_s for asked in ready for time_s in asked.times_s]))
    except Exception as error:
        for asked in ready:
            asked.answer.set_exception(error)
        return
    start = 0
    for asked in ready:
        end = start + len(asked.rows)
        asked.answer.set_result(scores[start:end])
        start = end

"""Who answers a call while a version is tried beside the live one: call -> [choose] -> live model or challenger.

A shadow is asked in a thread of its own after the call has been answered, and only while few calls wait for it: it
may slow nobody down. What it says is compared and never returned.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from stream_app.following import Arms
from stream_app.live import LiveModel, Scores
from stream_app.modellog import Challenger

WAITING = 32
"""Calls that may wait for a shadow; more are not compared."""
_log = logging.getLogger(__name__)

Role = Literal["champion", "canary"]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What this server has seen of a challenger."""

    id: str = ""
    rows: int = 0
    """That it was asked."""
    failed: int = 0
    """Calls."""
    dropped: int = 0
    """Calls that were not compared, since too many waited."""
    differing: int = 0
    """Rows for which it would have said another label."""
    difference: float = 0.0
    """Sum of the rows' mean absolute differences of scores."""


class Chosen(NamedTuple):
    """Who answers."""

    live: LiveModel
    role: Role
    instead: LiveModel
    """Who answers if that fails."""
    shadow: LiveModel | None
    """Who is asked, too."""


class Traffic:
    """Chooses, compares and counts; for one event loop.

    Args:
        chance: gives a number from 0 to 1.
    """

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._thread: ThreadPoolExecutor | None = None
        self.waiting = 0
        """Calls that wait for a shadow."""
        self.seen = Seen()
        """Of the challenger that was out last."""

    def choose(self, live: LiveModel, arms: Arms, key: str, values_of: Callable[[str], Iterable[object]]) -> Chosen:
        """Who answers a call.

        Args:
            key: whose call it is; "" if nobody says.
            values_of: the values that its rows have of a feature.
        """
        trial, challenger = arms.trial, arms.challenger
        if trial is None or challenger is None:
            return Chosen(live, "champion", live, None)
        if self.seen.id != trial.envelope.id:
            self.seen = Seen(id=trial.envelope.id)
        if not self._takes_part(trial, key, values_of):
            return Chosen(live, "champion", live, None)
        if trial.mode == "canary":
            return Chosen(challenger, "canary", live, None)
        return Chosen(live, "champion", live, challenger)

    def _takes_part(self, trial: Challenger, key: str, values_of: Callable[[str], Iterable[object]]) -> bool:
        """Rows of several keys come with the canary only if it may have all of them: no key gets another answerer."""
        if trial.key:
            texts = {as_text(value) for value in values_of(trial.key)}
            return all(share(trial.envelope.id, text) < trial.percent for text in texts)
        if key:
            return share(trial.envelope.id, key) < trial.percent
        return 100.0 * self._chance() < trial.percent

    def note(self, chosen: Chosen, said: Scores, ask: Callable[[LiveModel], Scores]) -> None:
        """Count what a canary has answered, or let a shadow say the same; returns at once.

        Args:
            said: (B, K) what was answered.
            ask: the same of another model.
        """
        if chosen.role == "canary":
            self._count(rows=self.seen.rows + len(said))
        elif chosen.shadow is not None:
            self._compare(chosen.shadow, said, ask)

    def failed(self, error: Exception) -> None:
        """The challenger could not answer."""
        if not self.seen.failed:
            _log.error("version %s, which is tried, failed: %r", self.seen.id, error)
        self._count(failed=self.seen.failed + 1)

    def _compare(self, shadow: LiveModel, said: Scores, ask: Callable[[LiveModel], Scores]) -> None:
        if self.waiting >= WAITING:
            self._count(dropped=self.seen.dropped + 1)
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        self.waiting += 1
        asked = asyncio.get_running_loop().run_in_executor(self._thread, ask, shadow)
        asked.add_done_callback(lambda done: self._compared(shadow, said, done))

    def _compared(self, shadow: LiveModel, said: Scores, done: "asyncio.Future[Scores]") -> None:
        self.waiting -= 1
        if done.cancelled() or shadow.envelope.id != self.seen.id:
            return
        if (error := done.exception()) is not None:
            self.failed(error if isinstance(error, Exception) else RuntimeError(repr(error)))
            return
        other = done.result()
        self._count(
            rows=self.seen.rows + len(said),
            differing=self.seen.differing + _differing(shadow.spec.task, said, other),
            difference=self.seen.difference + float(np.abs(said.astype(np.float64) - other).mean(axis=1).sum()),
        )

    def _count(self, **changes: float) -> None:
        self.seen = msgspec.structs.replace(self.seen, **changes)

    def close(self) -> None:
        """Leave what waits."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)


def share(salt: str, text: str) -> float:
    """Where a key lies, from 0 to 100: the same for every server, another for every challenger."""
    digest = blake2b(f"{salt}\x1f{text}".encode(), digest_size=8).digest()
    return 100.0 * int.from_bytes(digest, "big") / 2**64


def as_text(value: object) -> str:
    """One text for a value, however a protocol writes it: 3.0 is the integer 3, NaN is missing."""
    if isinstance(value, float):
        return "" if value != value else str(int(value)) if value.is_integer() else repr(value)
    return "" if value is None else str(value)


def _differing(task: str, said: Scores, other: Scores) -> int:
    """Rows whose most probable class is another one; of numbers none."""
    if task == "regression":
        return 0
    if task == "binary":
        return int(((said >= 0.5) != (other >= 0.5)).sum())
    return int((said.argmax(axis=1) != other.argmax(axis=1)).sum())

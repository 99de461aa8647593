"""Where every protocol takes the live model from: follower -> [Source] -> whoever answers or watches."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from stream_app.errors import ServingError
from stream_app.following import Arms, LiveFollower
from stream_app.live import LiveModel
from stream_app.serving.limits import Limits
from stream_app.serving.traffic import Chosen, Seen, Traffic

QUIET_S, QUIET_AT_MOST_S = 0.05, 1.0
"""While it drains: without a call for the first it stops, after the second in any case."""

ENDING = "this server is ending, ask another"


class Standing(NamedTuple):
    """What people should know beside the live model."""

    pinned: bool
    alarm: str
    """What was refused; empty if all is well."""
    arms: Arms
    seen: Seen
    """Of what is tried."""


class Source:
    """The live model, its changes, and whether the server is ending; for one event loop.

    Args:
        follower: gives the live model.
        limits: how many may watch.
    """

    def __init__(self, follower: LiveFollower, limits: Limits) -> None:
        self._follower, self._limits = follower, limits
        self._changed = asyncio.Event()  # replaced at every change
        self._watchers = self._asked = 0
        self._streams: set[asyncio.Task[Any]] = set()
        self.traffic = Traffic()
        """Who answers while something is tried beside the live model."""
        self.draining = False
        """The server is ending: calls are refused."""
        self.leaving = False
        """The server is going to end: it is no longer ready, and answers yet."""

    @property
    def ready(self) -> bool:
        """Whether a version is live, and the server is not going to end."""
        return self._follower.live is not None and not self.leaving

    def live(self) -> LiveModel:
        """What answers now; take it once per call.

        Raises:
            ServingError: UNAVAILABLE: no version is live yet, or the server is ending.
        """
        return self.arms()[0]

    def chosen(self, key: str, values_of: Callable[[str], Iterable[object]]) -> Chosen:
        """What answers this call: the live model, or what is tried beside it. As ``live``.

        Args:
            key: whose call it is; "" if nobody says.
            values_of: the values that its rows have of a feature.
        """
        live, arms = self.arms()
        return self.traffic.choose(live, arms, key, values_of)

    def arms(self) -> tuple[LiveModel, Arms]:
        """As ``live``, and what is tried beside it."""
        self._asked += 1
        if self.draining:
            raise ServingError("UNAVAILABLE", ENDING)
        arms = self._follower.arms
        if arms.live is None:
            text = f"no version of the model is live yet, waiting for {self._follower.waiting_for}"
            raise ServingError("UNAVAILABLE", text)
        return arms.live, arms

    def standing(self) -> Standing:
        """What people should know beside the live model."""
        return Standing(self._follower.pinned, self._follower.alarm, self._follower.arms, self.traffic.seen)

    def log_age_s(self) -> float:
        """Time since the broker last answered."""
        return self._follower.log_age_s(time.monotonic())

    async def watch(self) -> AsyncIterator[LiveModel]:
        """The live model (waiting for the first, if need be), then every change, until the server drains.

        Raises:
            ServingError: RESOURCE_EXHAUSTED: as many watch already as may.
        """
        if self._watchers >= self._limits.watchers:
            text = f"{self._watchers} streams watch already, which is the limit; try another server"
            raise ServingError("RESOURCE_EXHAUSTED", text)
        self._watchers += 1
        try:
            async for live in self._changes():
                yield live
        finally:
            self._watchers -= 1

    async def _changes(self) -> AsyncIterator[LiveModel]:
        seen: tuple[int, str] | None = None
        while not self.draining:
            changed = self._changed  # taken before looking: a change in between is not missed
            live = self._follower.live
            if live is not None and (live.envelope.number, live.variant) != seen:
                seen = (live.envelope.number, live.variant)
                yield live
            else:
                await changed.wait()

    @contextmanager
    def ending_ends(self) -> Iterator[None]:
        """Around a stream that would go on for ever: once the server drains, it ends.

        Raises:
            ServingError: UNAVAILABLE: the server is ending.
        """
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not self.draining:
                raise
            raise ServingError("UNAVAILABLE", ENDING) from None
        finally:
            self._streams.discard(task)

    def tell(self) -> None:
        """Wake the watchers: the live model has changed."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def drain(self) -> None:
        """End the watchers' streams, which would go on for ever, and refuse calls until none comes any more.

        What gRPC has accepted and not handed over yet when the server stops, it cuts off with CANCELLED, which no
        client tries again.
        """
        self.draining = True
        self.tell()
        for task in self._streams:
            task.cancel()
        seen, deadline_s = -1, time.monotonic() + QUIET_AT_MOST_S
        while seen != self._asked and time.monotonic() < deadline_s:
            seen = self._asked
            await asyncio.sleep(QUIET_S)

"""What an operator sees of one model at one moment: monitor -> [status] -> metrics, dashboard."""

from collections import deque
from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from stream_app.events import Decision
from stream_app.lag import Lag
from stream_app.modellog import Envelope, Route, Variant

PACE_WINDOW_S = 10.0
"""Rates are means over so long."""


class ProcessStatus(NamedTuple):
    """One of the processes that a supervisor keeps."""

    name: str
    state: Literal["running", "waiting", "ended", "refused"]
    """waiting: to be started, or to be started again after a crash; refused: it ended for good, see its log."""
    pid: int | None
    restarts: int


class Mark(NamedTuple):
    """How far learning had come when a version was made."""

    made_s: float
    """The version's ``created_s``."""
    events: int
    records: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """One look at the models log, the decisions and the ends of the events topic."""

    name: str
    task: str
    at_s: float
    """When it was taken; wall clock, as all times here."""
    head: Envelope | None = None
    """The newest version."""
    variants: tuple[Variant, ...] = ()
    """Compressed forms of the head."""
    int8: Variant | None = None
    """The newest int8 variant, of whichever version; a head a second gets one only now and then."""
    route: Route | None = None
    """What servers answer with, if not with the head alone: a pin, a canary, a shadow."""
    counts: Mapping[str, float] = {}
    """stream_app.learn.COUNTS; a promotion, which learns some events once more, lowers none of them."""
    events_per_s: float = 0.0
    """Events (records with features) that became part of a version."""
    records_per_s: float = 0.0
    began: Mark | None = None
    """The first version that had seen events."""
    grew: Mark | None = None
    """The last version that had seen more of them than any before."""
    lag: Lag | None = None
    """None before it was first known, and while ``problem`` says why it is not."""
    max_lag_events: int = 0
    """The most that this monitor has seen."""
    decisions: tuple[Decision, ...] = ()
    """The newest 50, the newest last."""
    decision_counts: Mapping[str, int] = {}
    versions: int = 0
    """Versions that the models log made the head, as far back as it goes."""
    broker_silence_s: float = 0.0
    """Since the broker last answered the monitor."""
    problem: str = ""
    """Why something here is not known or is old; empty if all is well."""

    @property
    def staleness_s(self) -> float | None:
        """Age of the head; None while there is none."""
        return None if self.head is None else max(self.at_s - self.head.created_s, 0.0)

    @property
    def metrics(self) -> Mapping[str, float]:
        """The head's; empty while there is none."""
        return {} if self.head is None else self.head.metrics

    @property
    def routed(self) -> str:
        """What the route says, in words; empty if servers follow the head."""
        if self.route is None:
            return ""
        if self.route.pinned is not None:
            return f"version {self.route.pinned.number} is pinned"
        out = self.route.challenger
        return f"version {out.envelope.number} is out as {out.mode}, {out.percent:g} % of calls" if out else ""

    def events(self) -> int:
        return int(self.counts.get("events", 0))

    def labels(self) -> int:
        return int(self.counts.get("learned", 0))


class Pace:
    """How fast a count grows, as a mean over the newest PACE_WINDOW_S seconds.

    Differences of ``made_s`` are taken from the writer's clock alone, ages from the reader's: the
    clocks of two hosts are never compared.
    """

    def __init__(self, window_s: float = PACE_WINDOW_S) -> None:
        self._window_s = window_s
        self._points: deque[tuple[float, float]] = deque()  # (made_s, count)
        self._heard_s = 0.0

    def add(self, count: float, made_s: float, heard_s: float) -> None:
        """Note that the count was so much at ``made_s``, and that this was learned at ``heard_s``."""
        if self._points and made_s <= self._points[-1][0]:
            return
        if self._points and count < self._points[-1][1]:
            self._points.clear()  # a promotion or a rollback: some of it comes again
        self._points.append((made_s, count))
        self._heard_s = heard_s
        while len(self._points) > 2 and self._points[1][0] <= made_s - self._window_s:
            self._points.popleft()

    def per_s(self, now_s: float) -> float:
        """Growth per second; it fades when nothing comes any more. ``now_s``: the reader's clock."""
        if len(self._points) < 2:
            return 0.0
        (first_s, first), (last_s, last) = self._points[0], self._points[-1]
        silent_s = max(now_s - self._heard_s, 0.0)
        if silent_s > self._window_s:
            return 0.0
        quiet_s = silent_s if silent_s > (last_s - first_s) / (len(self._points) - 1) else 0.0
        return max(last - first, 0.0) / (last_s - first_s + quiet_s)

"""How often a version pays: what the last ones cost -> [cadence] -> when the next one is due. Pure; no clock.

A version is due as soon as making versions takes no more than a share of the time, but neither sooner than ``least_s``
after the one before (each costs its servers, too) nor later than ``every_s``, whatever it costs. In a backlog
a version is late whenever it comes: then it waits for ``every_s``, and who learns has the time.
"""

import math

WEIGHT = 0.2
"""Of the newest cost in the average: one that was slow by chance moves it little."""


class Cadence:
    """When one worker's next version is due. Times are of any one clock.

    Args:
        every_s: longest time between the beginnings of two versions, if there is something new.
        least_s: shortest, unless ``every_s`` is shorter.
        share: of the time, that versions may cost.
    """

    def __init__(self, *, every_s: float, least_s: float, share: float) -> None:
        self._every_s, self._least_s, self._wanted = every_s, least_s, share
        self._begun_s = -math.inf
        self._cost_s = 0.0
        self._shown = 0.0

    def begin(self, now_s: float) -> None:
        """A version is begun."""
        last_s, self._begun_s = self._begun_s, now_s
        if math.isfinite(last_s) and now_s > last_s:
            self._shown = self._cost_s / (now_s - last_s)

    def cost(self, cost_s: float) -> None:
        """What a version cost: time for which nothing else was done for it."""
        self._cost_s += (cost_s - self._cost_s) * (WEIGHT if self._cost_s else 1.0)

    def postpone(self, until_s: float) -> None:
        """Not before ``until_s``."""
        self._begun_s = until_s - self.period_s

    @property
    def period_s(self) -> float:
        """Between the beginnings of two versions, as far as is known now."""
        return min(self._every_s, max(self._least_s, self._cost_s / self._wanted))

    @property
    def due_s(self) -> float:
        """When the next version may begin; long ago before the first."""
        return self._begun_s + self.period_s

    def backlog_due_s(self, now_s: float, *, learned: int, left: int) -> float:
        """When it is due if it comes too late anyway: what is left takes longer than ``every_s`` to learn.

        Args:
            now_s: the time.
            learned: records since the last beginning.
            left: records that wait.
        """
        behind = left * (now_s - self._begun_s) > learned * self._every_s
        return self._begun_s + self._every_s if behind else self.due_s

    @property
    def share(self) -> float:
        """Of the time between the last two beginnings, what versions cost; 0 before the second."""
        return self._shown

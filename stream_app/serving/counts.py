"""What becomes of calls, counted where they end: call -> [Counts] -> metrics, whatever the protocol."""

from bisect import bisect_left

LATENCIES_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)
"""Upper bounds of the histogram's buckets; one more has what took longer."""


class Series:
    """Calls of one method."""

    __slots__ = ("buckets", "codes", "streamed", "total_s")

    def __init__(self) -> None:
        self.codes: dict[str, int] = {"OK": 0}
        """Status -> calls that ended with it."""
        self.buckets = [0] * (len(LATENCIES_S) + 1)
        """Calls that took no longer than each of LATENCIES_S and longer than the one before; not of streams."""
        self.total_s = 0.0
        """Of these calls together."""
        self.streamed = 0
        """Answers given on streams."""

    def ended(self, code: str, took_s: float | None) -> None:
        """A call has ended; ``took_s`` is None for a stream, which takes as long as its caller likes."""
        self.codes[code] = self.codes.get(code, 0) + 1
        if took_s is not None:
            self.buckets[bisect_left(LATENCIES_S, took_s)] += 1
            self.total_s += took_s


class Counts:
    """All methods of one server."""

    def __init__(self) -> None:
        self.methods: dict[str, Series] = {}

    def of(self, method: str) -> Series:
        """The calls of ``/package.Service/Method``."""
        return self.methods.setdefault(method, Series())

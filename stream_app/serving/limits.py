"""How much one server takes on, whatever protocol asks."""

import msgspec

from stream_app.errors import ServingError
from stream_app.serving.permissions import needed


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one server takes on."""

    rows: int = 4096
    """Per request; more is INVALID_ARGUMENT."""
    explained_rows: int = 64
    """Per Predict with ``explain``; more is INVALID_ARGUMENT. One takes as long as some thirty others."""
    message_bytes: int = 4 << 20
    """Per request; more is RESOURCE_EXHAUSTED."""
    calls: int = 256
    """In flight at once; more is RESOURCE_EXHAUSTED."""
    watchers: int = 64
    """Of these, WatchModel streams."""
    transfer_s: float = 30.0
    """Over HTTP, for a request's body to arrive, and for an answer, or a line of one, to leave."""
    notice_s: float = 0.2
    """Between NOT_SERVING and refusing new calls, for balancers to look elsewhere."""
    grace_s: float = 5.0
    """For calls in flight to finish after that."""


class Room:
    """The calls in flight, of all protocols together.

    Args:
        calls: how many there may be.
    """

    def __init__(self, calls: int) -> None:
        self._calls = calls
        self.taken = 0

    def call(self, method: str) -> "Place":
        """For calls of a method: ``with`` it, there is one more meanwhile.

        What needs no permission takes no room: a full server is no sick one.
        """
        return Place(self, 1 if needed(method) else 0)

    def take(self, calls: int) -> None:
        """Raises ServingError: RESOURCE_EXHAUSTED: as many are in flight as may be."""
        if calls and self.taken >= self._calls:
            text = f"{self.taken} calls are in flight, which is the limit; try again, or another server"
            raise ServingError("RESOURCE_EXHAUSTED", text)
        self.taken += calls


class Place:
    """Room for a call, taken and given back; made once, for any number of calls at once."""

    __slots__ = ("_calls", "_room")

    def __init__(self, room: Room, calls: int) -> None:
        self._room, self._calls = room, calls

    def __enter__(self) -> None:
        self._room.take(self._calls)

    def __exit__(self, *_: object) -> None:
        self._room.taken -= self._calls

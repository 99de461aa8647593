"""How much one server takes on, whatever protocol asks."""

import msgspec


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

"""Which server is asked, and how often: call -> [Turns] -> one attempt after the other, within the deadline.

Tried again is only what was not answered: UNAVAILABLE, and a server that says nothing for its share of the deadline
(its machine may be gone, or the process stopped). A call that was made after all is harmless twice: ids see to that.
Whoever answered last is asked first the next time, so that versions do not go back and forth between servers.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import msgspec

from stream_app.errors import ServingError

DEADLINE_S = 5.0
_ANSWER_BYTES = 64 << 20
"""4096 rows of a thousand classes."""
_RECONNECT_MS = 2_000
"""A server that comes back is found within seconds; gRPC's own limit makes calls fail for two minutes more."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 1.0
"""Between two rounds over all servers; doubled after each, less up to half by chance."""

OPTIONS = (("grpc.max_receive_message_length", _ANSWER_BYTES), ("grpc.max_reconnect_backoff_ms", _RECONNECT_MS))


class TLS(msgspec.Struct, frozen=True, kw_only=True):
    """How servers are known, and this client to them; PEM files. By default the system's authorities vouch for them."""

    ca: Path | None = None
    """Who signed the servers' certificates."""
    certificate: Path | None = None
    """This client's own, and its ``key``, for servers that want one."""
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Raises OSError: a file cannot be read."""
        files = (self.ca, self.key, self.certificate)
        return grpc.ssl_channel_credentials(*(path.read_bytes() if path else None for path in files))


def targets_of(target: str | Sequence[str]) -> tuple[str, ...]:
    """Raises ServingError: INVALID_ARGUMENT: there is none."""
    found = (target,) if isinstance(target, str) else tuple(target)
    if not found:
        raise ServingError("INVALID_ARGUMENT", "there is no server's address, wanted at least one")
    return found


def metadata_of(token: str | None) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),) if token else ()


class Turns:
    """Attempts of calls over ``servers`` servers.

    Args:
        now_s: monotonic.
        rng: how long waits are.
    """

    def __init__(
        self, servers: int, now_s: Callable[[], float] = time.monotonic, rng: random.Random | None = None
    ) -> None:
        self._servers, self._now_s, self._rng = servers, now_s, rng or random.Random()
        self.at = 0
        """Who is asked first."""

    def attempts(self, within_s: float) -> "Attempts":
        return Attempts(self, self._servers, within_s, self._now_s, self._rng)


class Attempts:
    """Those of one call."""

    def __init__(
        self, turns: Turns, servers: int, within_s: float, now_s: Callable[[], float], rng: random.Random
    ) -> None:
        self._turns, self._servers, self._now_s, self._rng = turns, servers, now_s, rng
        self._until_s = now_s() + within_s
        self._tried = 0
        self.at = turns.at

    @property
    def left_s(self) -> float:
        """Until the deadline; not below 0."""
        return max(self._until_s - self._now_s(), 0.0)

    @property
    def attempt_s(self) -> float:
        """How long this attempt may take: those servers that were not asked in this round share what is left."""
        return self.left_s / (self._servers - self._tried % self._servers)

    def wait_s(self, error: ServingError) -> float:
        """How long to wait before the next attempt, which is at the next server.

        Raises:
            ServingError: ``error`` itself, where no other attempt helps or is in time.
        """
        silent = error.status == "DEADLINE_EXCEEDED" and self.left_s > 0.0
        if error.status != "UNAVAILABLE" and not silent:
            raise error
        self._tried += 1
        self.at = (self.at + 1) % self._servers
        rounds, begun = divmod(self._tried, self._servers)
        longest_s = min(FIRST_WAIT_S * 2 ** (rounds - 1), LONGEST_WAIT_S)
        wait_s = 0.0 if begun else longest_s * self._rng.uniform(0.5, 1.0)
        if wait_s >= self.left_s:
            raise error
        return wait_s

    def answered(self) -> None:
        """The next call asks this server first."""
        self._turns.at = self.at


@contextmanager
def serving_errors() -> Iterator[None]:
    """gRPC's errors as ours."""
    try:
        yield
    except grpc.RpcError as error:
        failed: Any = error
        if failed.code() is grpc.StatusCode.CANCELLED:  # not by us: a server that ends cuts off what it has not begun
            raise ServingError("UNAVAILABLE", "the server ended before it began with the call") from error
        raise ServingError(failed.code().name, str(failed.details())) from error

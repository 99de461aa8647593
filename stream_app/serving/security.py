"""Who may do what, whatever the protocol: method, credentials -> [Guard] -> go on, or ServingError."""

import ipaddress
import logging
import time
from collections.abc import Callable
from contextvars import ContextVar

import msgspec

from stream_app.errors import ServingError
from stream_app.serving.permissions import Permission, needed
from stream_app.serving.tokens import Token, TokenFile

_SCHEME = "bearer "

_log = logging.getLogger(__name__)
CALLER: ContextVar[str] = ContextVar("caller", default="whoever may call without a token")
"""Name of the token by which the call under way was let in."""


class Security(msgspec.Struct, frozen=True, kw_only=True):
    """How callers are known, and what is shown to them; by default neither."""

    tokens: str | None = None
    """File of those who may call, as in ``serving.tokens``."""
    certificate: str | None = None
    """PEM file of the server's certificate and what signed it."""
    key: str | None = None
    """PEM file of its key."""
    client_ca: str | None = None
    """PEM file of what signs callers' certificates; they must have one then."""


class Guard:
    """Decides about every call to one address.

    With tokens, every method that needs a permission wants a token that has it. Without, whoever reaches the address
    may do everything if that takes being on this machine or having a client certificate, else only ask for predictions.

    Args:
        listen: the address; it says who may reach it.
        tokens: those who may call.
        certified: TLS lets only those in who have a certificate of the operator's.
        now_s: wall clock.
    """

    def __init__(
        self,
        listen: str,
        tokens: TokenFile | None = None,
        *,
        certified: bool = False,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._tokens, self._now_s = tokens, now_s
        self.guarded = tokens is not None or certified
        """Whether callers must show something."""
        self._trusting = tokens is None and (certified or is_loopback(listen))

    def free(self, method: str) -> bool:
        """Whether nobody is refused: then ``check`` need not be asked."""
        wanted = needed(method)
        return not wanted or self._trusting or (self._tokens is None and wanted == ("predict",))

    def check(self, method: str, authorization: str | None) -> None:
        """Pass, or say why not.

        Args:
            method: ``/package.Service/Method``.
            authorization: the header, ``Bearer SECRET``.

        Raises:
            ServingError: UNAUTHENTICATED: no token, an unknown or an expired one; PERMISSION_DENIED: not for this.
        """
        if self.free(method):
            return
        wanted, name = needed(method), method.rpartition("/")[2]
        if self._tokens is None:
            text = f"{name} needs {_all(wanted)}: refused where there are no tokens, but on a loopback address"
            raise ServingError("PERMISSION_DENIED", text)
        token = self._known(self._tokens, authorization)
        if any(p not in token.permissions for p in wanted):
            text = f"{name} needs {_all(wanted)}, token {token.name!r} has {_all(token.permissions)}"
            raise ServingError("PERMISSION_DENIED", text)
        CALLER.set(token.name)
        if "admin" in wanted:
            _log.info("%s by %s", method, token.name)

    def _known(self, tokens: TokenFile, authorization: str | None) -> Token:
        if authorization is None or not authorization.lower().startswith(_SCHEME):
            raise ServingError("UNAUTHENTICATED", "there is no token, wanted 'authorization: Bearer TOKEN'")
        token = tokens.find(authorization[len(_SCHEME) :].strip())
        if token is None:
            raise ServingError("UNAUTHENTICATED", "the token is unknown")
        if token.expires is not None and token.expires.timestamp() <= self._now_s():
            raise ServingError("UNAUTHENTICATED", f"token {token.name!r} expired at {token.expires.isoformat()}")
        return token


def _all(permissions: tuple[Permission, ...]) -> str:
    return " and ".join(permissions)


def is_loopback(listen: str) -> bool:
    """Whether only this machine reaches ``host:port``."""
    host = listen.rpartition(":")[0].strip("[]")
    if host == "localhost" or listen.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False

"""The guard: who may do what, by address, certificate and token."""

import hashlib
import logging
from pathlib import Path

import pytest

from stream_app.errors import ServingError
from stream_app.serving.security import Guard, is_loopback
from stream_app.serving.tokens import TokenFile

OURS = "/stream_app.v1.StreamModel"
PREDICT, UNLISTED = f"{OURS}/Predict", f"{OURS}/NobodySaid"
HEALTH = "/grpc.health.v1.Health/Check"
NEW_YEAR_S = 1_893_456_000.0
"""2030-01-01, UTC"""


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFile:
    def entry(name: str, permissions: str, more: str = "") -> str:
        digest = hashlib.sha256(name.encode()).hexdigest()
        return f'[[tokens]]\nname = "{name}"\nsha256 = "{digest}"\npermissions = [{permissions}]\n{more}\n'

    path = tmp_path / "tokens.toml"
    path.write_text(
        entry("reader", '"predict"', "expires = 2030-01-01T00:00:00Z") + entry("operator", '"predict", "admin"')
    )
    return TokenFile(path)


def status(guard: Guard, method: str, authorization: str | None = None) -> str:
    try:
        guard.check(method, authorization)
    except ServingError as error:
        return error.status
    return "OK"


@pytest.mark.parametrize(
    ("listen", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.8.0.1:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("unix:/a/b", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("localhost.evil.example:1", False),
        (":1", False),
    ],
)
def test_which_addresses_only_this_machine_reaches(listen: str, loopback: bool) -> None:
    assert is_loopback(listen) is loopback


@pytest.mark.parametrize(("listen", "certified"), [("127.0.0.1:1", False), ("0.0.0.0:1", True)])
def test_whoever_is_on_this_machine_or_certified_may_do_all(listen: str, certified: bool) -> None:
    guard = Guard(listen, certified=certified)
    for method in (HEALTH, PREDICT, UNLISTED):
        assert guard.free(method)
        assert status(guard, method) == "OK"


def test_elsewhere_others_may_only_ask() -> None:
    guard = Guard("0.0.0.0:1")
    assert [status(guard, method) for method in (HEALTH, PREDICT)] == ["OK", "OK"]
    with pytest.raises(ServingError, match="NobodySaid needs admin: refused where there are no tokens") as caught:
        guard.check(UNLISTED, "Bearer anything")
    assert caught.value.status == "PERMISSION_DENIED"


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "0.0.0.0:1"])
@pytest.mark.parametrize("certified", [False, True])
def test_with_tokens_all_but_health_needs_one(tokens: TokenFile, listen: str, certified: bool) -> None:
    guard = Guard(listen, tokens, certified=certified, now_s=lambda: NEW_YEAR_S - 1.0)
    assert status(guard, HEALTH) == "OK"
    assert not guard.free(PREDICT)
    for wrong in (None, "", "reader", "Basic reader", "Bearer", "Bearer ", "Bearer nobody"):
        assert status(guard, PREDICT, wrong) == "UNAUTHENTICATED"
    for right in ("Bearer reader", "bearer  reader ", "Bearer operator"):
        assert status(guard, PREDICT, right) == "OK"
    assert status(guard, UNLISTED, "Bearer operator") == "OK"
    with pytest.raises(ServingError, match="NobodySaid needs admin, token 'reader' has predict") as caught:
        guard.check(UNLISTED, "Bearer reader")
    assert caught.value.status == "PERMISSION_DENIED"


def test_a_token_expires(tokens: TokenFile) -> None:
    guard = Guard("127.0.0.1:1", tokens, now_s=lambda: NEW_YEAR_S)
    with pytest.raises(ServingError, match=r"token 'reader' expired at 2030-01-01T00:00:00\+00:00") as caught:
        guard.check(PREDICT, "Bearer reader")
    assert caught.value.status == "UNAUTHENTICATED"
    assert status(guard, PREDICT, "Bearer operator") == "OK"


def test_what_an_admin_does_is_logged(tokens: TokenFile, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Guard("127.0.0.1:1", tokens).check(UNLISTED, "Bearer operator")
    assert f"{UNLISTED} by operator" in caplog.text

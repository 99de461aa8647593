"""Only what was not answered is tried again, at the next server, within the deadline."""

import random

import pytest

from stream_app.dialling import FIRST_WAIT_S, LONGEST_WAIT_S, TLS, Turns, metadata_of, targets_of
from stream_app.errors import ServingError

GONE = ServingError("UNAVAILABLE", "gone")
SILENT = ServingError("DEADLINE_EXCEEDED", "silent")


class Clock:
    """Stands still but for waits."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def turns_of(servers: int) -> tuple[Turns, Clock]:
    clock = Clock()
    return Turns(servers, clock, random.Random(0)), clock


def test_the_next_server_is_asked_at_once_and_all_again_after_a_wait() -> None:
    turns, _ = turns_of(2)
    attempts = turns.attempts(5.0)
    assert attempts.at == 0
    assert attempts.wait_s(GONE) == 0.0
    assert attempts.at == 1
    assert FIRST_WAIT_S / 2 <= attempts.wait_s(GONE) <= FIRST_WAIT_S
    assert attempts.at == 0


def test_who_answered_is_asked_first_the_next_time() -> None:
    turns, _ = turns_of(3)
    attempts = turns.attempts(5.0)
    attempts.wait_s(GONE)
    attempts.answered()
    assert turns.attempts(5.0).at == 1


def test_waits_grow_to_a_limit_and_end_with_the_deadline() -> None:
    turns, clock = turns_of(1)
    attempts, waits = turns.attempts(10.0), list[float]()

    def give_up() -> None:
        while True:
            waits.append(attempts.wait_s(GONE))
            clock.now_s += waits[-1]

    with pytest.raises(ServingError, match="gone"):
        give_up()
    assert all(FIRST_WAIT_S / 2 <= wait_s <= LONGEST_WAIT_S for wait_s in waits)
    assert waits[-1] > waits[0]
    assert 100.0 < clock.now_s < 110.0
    clock.now_s = 111.0
    assert attempts.left_s == 0.0


def test_a_silent_server_has_its_share_of_the_deadline() -> None:
    turns, clock = turns_of(3)
    attempts = turns.attempts(3.0)
    asked = []
    for _ in range(2):
        assert attempts.attempt_s == pytest.approx(1.0)
        clock.now_s += attempts.attempt_s
        asked.append(attempts.at)
        assert attempts.wait_s(SILENT) == 0.0
    assert asked == [0, 1]
    clock.now_s += attempts.attempt_s
    with pytest.raises(ServingError, match="silent"):
        attempts.wait_s(SILENT)
    assert turns_of(1)[0].attempts(3.0).attempt_s == pytest.approx(3.0)


@pytest.mark.parametrize("status", ["INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "INTERNAL"])
def test_what_was_answered_is_not_tried_again(status: str) -> None:
    turns, _ = turns_of(2)
    with pytest.raises(ServingError, match="no"):
        turns.attempts(5.0).wait_s(ServingError(status, "no"))


def test_addresses_and_tokens() -> None:
    assert targets_of("a:1") == ("a:1",)
    assert targets_of(["a:1", "b:2"]) == ("a:1", "b:2")
    with pytest.raises(ServingError, match="there is no server's address"):
        targets_of([])
    assert metadata_of("secret") == (("authorization", "Bearer secret"),)
    assert metadata_of(None) == ()


def test_the_systems_authorities_vouch_by_default() -> None:
    assert TLS().credentials() is not None

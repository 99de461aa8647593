"""Room for calls is taken, given back, and not needed by health."""

import pytest

from stream_app.errors import ServingError
from stream_app.serving.limits import Room

PREDICT, HEALTH = "/stream_app.v1.StreamModel/Predict", "/grpc.health.v1.Health/Check"


def test_a_full_room_refuses_all_but_health() -> None:
    room = Room(1)
    with room.call(PREDICT):
        with (
            pytest.raises(ServingError, match="1 calls are in flight, which is the limit") as caught,
            room.call(PREDICT),
        ):
            pass
        assert caught.value.status == "RESOURCE_EXHAUSTED"
        with room.call(HEALTH):
            assert room.taken == 1
    assert room.taken == 0


def test_a_call_that_fails_gives_its_room_back() -> None:
    room = Room(1)
    with pytest.raises(ZeroDivisionError), room.call(PREDICT):
        raise ZeroDivisionError
    with room.call(PREDICT):
        pass

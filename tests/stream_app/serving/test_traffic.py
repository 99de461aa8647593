"""Who answers while a version is tried: the same key always the same, a shadow never, the champion where it fails."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from stream_app.following import Arms
from stream_app.live import LiveModel, prepare
from stream_app.serving.traffic import WAITING, Chosen, Traffic, as_text, share
from tests.stream_app.versions import artefact, challenger_of, envelope_of, spec_of


def model(score: float) -> LiveModel:
    data = artefact(spec_of("m"), score)
    return prepare(data, envelope_of(spec_of("m"), data))


LIVE, OTHER = model(0.3), model(0.6)


def arms(**changes: Any) -> Arms:
    return Arms(LIVE, OTHER, challenger_of(OTHER.envelope, **changes))


def none(feature: str) -> Iterable[object]:
    return ()


def roles(traffic: Traffic, out: Arms, keys: Iterable[str]) -> list[str]:
    return [traffic.choose(LIVE, out, key, none).role for key in keys]


def test_without_a_trial_the_live_model_answers() -> None:
    assert Traffic().choose(LIVE, Arms(LIVE), "", none) == Chosen(LIVE, "champion", LIVE, None)


def test_a_canary_by_chance_answers_its_share() -> None:
    chances = iter([0.0499, 0.05, 0.9])
    traffic = Traffic(lambda: next(chances))
    assert [traffic.choose(LIVE, arms(percent=5.0), "", none).live for _ in range(3)] == [OTHER, LIVE, LIVE]


def test_the_same_key_always_gets_the_same_answerer_on_every_server_and_more_percent_keep_the_few() -> None:
    keys = [f"user {n}" for n in range(2_000)]
    few, again = roles(Traffic(), arms(percent=10.0), keys), roles(Traffic(), arms(percent=10.0), keys)
    more = roles(Traffic(), arms(percent=30.0), keys)
    assert few == again
    assert few.count("canary") == pytest.approx(200, abs=60)
    assert more.count("canary") == pytest.approx(600, abs=90)
    assert all(m == "canary" for f, m in zip(few, more, strict=True) if f == "canary")
    assert roles(Traffic(), arms(percent=0.0), keys) == ["champion"] * 2_000
    assert roles(Traffic(), arms(percent=100.0), keys) == ["canary"] * 2_000


def test_by_a_feature_a_call_goes_to_the_canary_only_with_all_of_its_rows() -> None:
    out = arms(percent=50.0, key="carrier")
    texts = [f"c{n}" for n in range(40)]
    its = [t for t in texts if share(OTHER.envelope.id, t) < 50.0]
    others = [t for t in texts if t not in its]

    def role(*values: object) -> str:
        return Traffic().choose(LIVE, out, "somebody", lambda feature: values if feature == "carrier" else ()).role

    assert {role(text) for text in its} == {"canary"}
    assert {role(text) for text in others} == {"champion"}
    assert role(*its) == "canary"
    assert role(*its, others[0]) == "champion"


def test_a_value_is_the_same_key_however_it_is_written() -> None:
    assert {as_text(v) for v in (3, 3.0, "3")} == {"3"}
    assert {as_text(v) for v in (None, float("nan"), "")} == {""}
    assert as_text(2.5) == "2.5"


def test_a_canary_that_answers_is_counted() -> None:
    traffic = Traffic()
    chosen = traffic.choose(LIVE, arms(), "", none)
    traffic.note(chosen, LIVE.predict([{}] * 3), lambda model: model.predict([{}] * 3))
    assert (chosen.role, chosen.instead, traffic.seen.rows) == ("canary", LIVE, 3)
    other = model(0.7)
    traffic.choose(LIVE, Arms(LIVE, other, challenger_of(other.envelope)), "", none)
    assert traffic.seen.rows == 0  # of another version


def compared(traffic: Traffic, calls: int, ask: Any) -> None:
    async def main() -> None:
        for _ in range(calls):
            chosen = traffic.choose(LIVE, arms(mode="shadow"), "", none)
            assert (chosen.role, chosen.live, chosen.shadow) == ("champion", LIVE, OTHER)
            traffic.note(chosen, LIVE.predict([{}, {}]), ask)
        deadline_s = time.monotonic() + 20.0
        while traffic.waiting:
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.005)

    try:
        asyncio.run(main())
    finally:
        traffic.close()


@pytest.mark.parametrize("mode", ["shadow", "guard"])
def test_a_shadow_is_compared_and_never_answers(mode: str) -> None:
    traffic = Traffic()
    compared(traffic, 3, lambda model: model.predict([{}, {}]))
    assert (traffic.seen.rows, traffic.seen.differing) == (6, 6)  # 0.3 is on time, 0.6 is late
    assert traffic.seen.difference / 6 == pytest.approx(0.3, abs=1e-6)
    assert Traffic().choose(LIVE, arms(mode=mode), "", none).role == "champion"


def test_a_shadow_that_fails_is_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    def ask(model: LiveModel) -> np.ndarray:
        raise ZeroDivisionError("no")

    traffic = Traffic()
    compared(traffic, 3, ask)
    assert (traffic.seen.rows, traffic.seen.failed) == (0, 3)
    assert caplog.text.count("ZeroDivisionError('no')") == 1


def test_what_a_shadow_has_no_time_for_is_not_compared() -> None:
    async def main() -> None:
        go = asyncio.Event()
        loop = asyncio.get_running_loop()

        def ask(model: LiveModel) -> Any:
            asyncio.run_coroutine_threadsafe(go.wait(), loop).result()
            return model.predict([{}])

        for _ in range(WAITING + 5):
            traffic.note(traffic.choose(LIVE, arms(mode="shadow"), "", none), LIVE.predict([{}]), ask)
        assert traffic.seen.dropped == 5
        go.set()
        while traffic.waiting:
            await asyncio.sleep(0.005)
        assert traffic.seen.rows == WAITING

    traffic = Traffic()
    asyncio.run(main())
    traffic.close()

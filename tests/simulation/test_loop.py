"""Virtual time, and processes that are frozen and killed in it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from simulation.loop import Killed, Loop, Process, StalledError, pause


def ended(loop: Loop, most_s: float) -> None:
    """Let everything happen that is due by then."""
    done = list[bool]()
    loop.call_outside(most_s, done.append, True)
    assert loop.run(lambda: bool(done), most_s)


def test_an_hour_passes_at_once() -> None:
    loop, at = Loop(), list[float]()

    async def work() -> None:
        await asyncio.sleep(3600.0)
        at.append(loop.time())

    Process(loop, "one").spawn(work())
    ended(loop, 4000.0)
    assert at == [3600.0]


def test_calls_of_one_executor_follow_each_other_and_those_of_two_interleave() -> None:
    loop, said = Loop(), list[str]()
    one, two = ThreadPoolExecutor(1), ThreadPoolExecutor(1)

    def call(name: str, seconds: float) -> str:
        said.append(f"{name} begins")
        pause(seconds)
        said.append(f"{name} ends")
        return name

    async def work() -> None:
        calls = [(one, "a", 1.0), (one, "b", 1.0), (two, "c", 0.5)]
        said.extend(await asyncio.gather(*(loop.run_in_executor(e, call, n, s) for e, n, s in calls)))

    Process(loop, "one").spawn(work())
    ended(loop, 10.0)
    assert said == ["a begins", "c begins", "c ends", "a ends", "b begins", "b ends", "a", "b", "c"]


def test_a_frozen_process_does_later_what_fell_due_meanwhile() -> None:
    loop, at = Loop(), list[float]()
    process = Process(loop, "one")

    async def work() -> None:
        for _ in range(3):
            await asyncio.sleep(1.0)
            at.append(loop.time())

    process.spawn(work())
    loop.call_outside(1.5, setattr, process, "frozen", True)
    loop.call_outside(5.0, process.thaw)
    ended(loop, 20.0)
    assert at == [1.0, 5.0, 6.0]


def test_nothing_that_a_killed_process_still_does_has_an_effect() -> None:
    loop, did = Loop(), list[str]()
    process = Process(loop, "one")

    def blocking() -> None:
        try:
            pause(2.0)
            did.append("went on")
        finally:
            with pytest.raises(Killed):
                process.step()
            did.append("cleaned up, in vain")

    async def work() -> None:
        try:
            await asyncio.sleep(2.0)
        finally:
            did.append("a task went on")

    process.spawn(work())
    process.call(blocking)
    loop.call_outside(1.0, process.kill)
    ended(loop, 5.0)
    assert did == ["cleaned up, in vain"]
    loop.wind_up()


def test_a_process_dies_at_the_step_that_was_chosen() -> None:
    process = Process(Loop(), "one")
    process.dies_at_step = 2
    process.step()
    with pytest.raises(Killed):
        process.step()
    assert not process.alive


def test_waiting_for_what_will_never_come_is_an_error() -> None:
    with pytest.raises(StalledError, match="nothing is due any more"):
        Loop().run(lambda: False, 10.0)

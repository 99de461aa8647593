"""A version says how it came about, so it can be learned again from the topics, to the bit."""

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from models.snapshot import Arrays
from models.spec import parse_spec
from stream_app import learn
from stream_app.__main__ import main
from stream_app.course import Log
from stream_app.logclient import LogClient
from stream_app.reproduce import Reproduced, Reproducer
from tests import streams
from tests.line import Line
from tests.stream_app.test_sharing import learned
from tests.stream_app.test_worker import Driven, begun, driven, events, run

EXAMPLES = 600


RIVER = 'kind = "river"\nestimator = "river.linear_model.LogisticRegression"\nnominal = false'
LEARNERS = {"torch": streams.NETWORK, "mixture": streams.MIXTURE, "river": RIVER}


def text(name: str, kind: str) -> str:
    """A spec."""
    blend = '[blend]\nkind = "none"\n' if kind == "river" else ""
    return streams.spec_text(name, partitions=2, learner=LEARNERS[kind]) + blend


@pytest.fixture
def line(embedded: str, app_name: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Line]:
    spec = parse_spec(text(app_name, getattr(request, "param", "torch")), "test")
    publish = msgspec.structs.replace(spec.publish, every_s=0.1, least_s=0.05, keep=200)
    found = Line(embedded, msgspec.structs.replace(spec, publish=publish), tmp_path)
    streams.produce(embedded, found.topics.events, streams.records(EXAMPLES))
    yield found
    found.close()


def reproduced(line: Line) -> list[Reproduced]:
    with closing(LogClient(line.bootstrap_servers, line.topics.models)) as models:
        return list(Reproducer(models, line.registry, line.reader, line.topics).run())


async def feed(worker: Driven, line: Line, rng: random.Random, *partitions: int, chunks: int = 1_000) -> None:
    """Chunks of any size from any partition, versions meanwhile."""
    records = {p: events(line, p) for p in partitions}
    for _ in range(chunks):
        left = [p for p in partitions if worker.at[p] < len(records[p])]
        if not left:
            break
        p = rng.choice(left)
        await worker.feed(p, records[p], rng.randint(1, 90), more=rng.random() < 0.7)
        await worker.worker.tick()
    await worker.worker._flush()


@pytest.mark.parametrize("line", LEARNERS, indirect=True)
def test_every_version_of_a_worker_is_learned_again(line: Line) -> None:
    async def work() -> None:
        async with driven(line, 0, 1) as worker:
            await feed(worker, line, random.Random(1), 0, 1)
            await learned(line, worker)

    run(work())
    first, *later = reproduced(line)
    assert (first.number, first.result) == (1, "not tried")
    assert "not learned on the version before it" in first.why
    assert len(later) > 2
    assert {v.result for v in later} == {"same"}, later
    assert sum(v.records for v in later) == sum(len(events(line, p)) for p in (0, 1))


@pytest.mark.parametrize("line", LEARNERS, indirect=True)
def test_what_a_successor_of_a_killed_worker_learns_is_learned_again(line: Line) -> None:
    async def work() -> None:
        for seed in range(3):
            worker = await begun(line, 0, 1)  # it never closes: what it learned last is in no version, but it was said
            await feed(worker, line, random.Random(seed), 0, 1, chunks=12)
            await worker.worker._outbox.stop()
        async with driven(line, 0, 1) as worker:
            await feed(worker, line, random.Random(9), 0, 1)
            await learned(line, worker)

    run(work())
    found = reproduced(line)[1:]
    assert {v.result for v in found} == {"same"}, found


@pytest.mark.parametrize("line", ["torch", "mixture"], indirect=True)
def test_merged_versions_are_learned_again(line: Line) -> None:
    async def work() -> None:
        rng = random.Random(2)
        async with driven(line, 0) as one, driven(line, 1) as other:
            for _ in range(30):
                await feed(one, line, rng, 0, chunks=3)
                await feed(other, line, rng, 1, chunks=3)
            await learned(line, one, other)

    run(work())
    found = reproduced(line)[1:]
    assert {v.result for v in found} == {"same"}, found
    assert len(found) > 3


def test_a_version_that_is_not_what_its_writer_learned_differs(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    state = learn.Core.state

    def wrong(self: learn.Core) -> Arrays:
        arrays = state(self)
        return arrays | {"core.last_target": arrays["core.last_target"] + 1.0}

    async def work() -> None:
        async with driven(line, 0, 1) as worker:
            await feed(worker, line, random.Random(1), 0, 1, chunks=5)
            monkeypatch.setattr(learn.Core, "state", wrong)
            await learned(line, worker)

    run(work())
    monkeypatch.undo()
    last = reproduced(line)[-1]
    assert last.result == "differs"
    assert last.why == "core.last_target"


@pytest.mark.parametrize("line", ["torch", "mixture"], indirect=True)
def test_what_is_not_there_any_more_is_not_tried(line: Line) -> None:
    async def work() -> None:
        async with driven(line, 0, 1) as worker:
            await feed(worker, line, random.Random(1), 0, 1)
            await learned(line, worker)

    run(work())
    with closing(LogClient(line.bootstrap_servers, line.topics.models)) as models:
        models.catch_up()
        _, second = models.fold.history[1]
    Path(line.registry.url, second.artefact).unlink()
    found = {v.number: v for v in reproduced(line)}
    assert found[2].result == "not tried"
    assert found[3].result == "not tried", "it stands on that"
    later = {found[number].result for number in range(4, max(found) + 1)}
    if line.spec.learner.kind == "mixture":
        assert later == {"not tried"}
        assert "its version 3, which was not learned again" in found[4].why
    else:
        assert later == {"same"}


def test_the_command_says_what_came_of_each_version(
    line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work() -> None:
        async with driven(line, 0, 1) as worker:
            await feed(worker, line, random.Random(1), 0, 1, chunks=9)
            await learned(line, worker)

    run(work())
    spec = tmp_path / "model.toml"
    spec.write_text(text(line.spec.name, line.spec.learner.kind))
    where = line.registry.url.rpartition("/")
    flags = ["--spec", str(spec), "--bootstrap-servers", line.bootstrap_servers, "--registry", where[0]]
    (tmp_path / line.spec.name).symlink_to(line.registry.url)
    assert main(["reproduce", *flags]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("1 not tried, ")
    assert last.endswith(" same")


def test_steps_that_are_cut_anyway_are_one() -> None:
    log = Log(1, [0, 1], 32)
    for step in ((0, 32), (0, 64), (0, 70), (0, 96), (1, 32), (0, 128)):
        log.took(*step)
    first = log.course()
    assert first.steps == ((0, 70), (0, 96), (1, 32), (0, 128))
    log.took(0, 160)
    assert log.course().steps == (*first.steps, (0, 160)), "what a course has is not changed any more"
    log.merged(7)
    log.covered(first, 8)
    assert log.course().steps == ((0, 160), 7)
    assert (first.before, log.course().before, log.course().began_at) == (1, 8, 1)

"""Several workers of one model: each learns its own partitions, and every version has what all have learned."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from stream_app.events import Decision
from stream_app.modellog import Envelope
from tests import streams
from tests.line import Line
from tests.stream_app.test_worker import EVERY_S, Driven, driven, events, run


@pytest.fixture(params=[streams.NETWORK, streams.MIXTURE], ids=["network", "mixture"])
def line(embedded: str, app_name: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Line]:
    spec = streams.spec(app_name, partitions=2, learner=request.param)
    publish = msgspec.structs.replace(spec.publish, every_s=EVERY_S)
    found = Line(embedded, msgspec.structs.replace(spec, publish=publish), tmp_path)
    yield found
    found.reader.close()


def newest(line: Line) -> Envelope:
    seeder = line.seeder()
    found = seeder.seed().head
    seeder.close()
    return found


def reseeded(line: Line) -> list[str]:
    """Why workers began again from the head."""
    topic = line.topics.decisions
    records = line.reader.range(topic, 0, 0, line.reader.end(topic, 0))
    decisions = [msgspec.json.decode(record.value, type=Decision) for record in records]
    return [str(d.evidence["reason"]) for d in decisions if d.kind == "reseeded"]


async def learned(line: Line, *workers: Driven) -> Envelope:
    """A version that has all that was fed to them."""
    for _ in range(600):
        for worker in workers:
            await worker.worker.tick()
        await asyncio.sleep(0.02)
        if not any(worker.worker._advanced() for worker in workers):
            break
    return newest(line)


def test_two_workers_share_the_work_and_every_event_counts_once(line: Line) -> None:
    stream = streams.records(2_000)
    streams.produce(line.bootstrap_servers, line.topics.events, stream)

    async def work() -> None:
        async with driven(line, 0) as one, driven(line, 1) as other:
            records = {p: events(line, p) for p in (0, 1)}
            while any(worker.at[p] < len(records[p]) for worker, p in ((one, 0), (other, 1))):
                await one.feed(0, records[0], 300)
                await other.feed(1, records[1], 300)
                for _ in range(20):
                    await one.worker.tick()
                    await other.worker.tick()
                    await asyncio.sleep(0.01)
            head = await learned(line, one, other)
            assert streams.total_ledger(head.ledger) == streams.expected_ledger(stream)
            assert head.offsets == {p: len(records[p]) for p in (0, 1)}
            assert head.labels == head.metrics["learned"] == streams.expected_ledger(stream)[0]
            assert head.metrics["events"] == 2_000
            assert head.metrics["count"] == head.labels
            assert head.epoch == 1
            assert not reseeded(line)

    run(work())

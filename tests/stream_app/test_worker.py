"""A worker without Faust: what records, rebalances and rivals do to it, driven by hand."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka.errors import KafkaError

from stream_app import worker
from stream_app.codecs.mixed import Codec
from stream_app.errors import EpochError, ModelLogError, StuckError
from stream_app.events import DeadLetter
from stream_app.logclient import LogClient
from stream_app.modellog import Envelope
from stream_app.worker import Consumer, Worker
from tests import streams
from tests.line import Line

EVERY_S = 0.3


class Driven:
    """A worker whose consumer is this object: it remembers where it was told to read on."""

    def __init__(self, line: Line) -> None:
        self.line, self.at, self.commit_s = line, dict[int, int](), 0.0
        self.worker = Worker(
            line.seeder(), bootstrap_servers=line.bootstrap_servers, consumer=Consumer(self._seek, self._commit)
        )

    async def _seek(self, offsets: Mapping[int, int]) -> None:
        self.at.update({p: o for p, o in offsets.items() if p in self.at})

    async def _commit(self, offsets: Mapping[int, int]) -> None:
        await asyncio.sleep(self.commit_s)

    async def assign(self, *partitions: int) -> None:
        self.at = dict(await self.worker.positions(set(partitions)))

    async def feed(self, partition: int, records: list[Any], count: int, *, more: bool = False) -> None:
        """The next records, as a fetch would bring them."""
        at = self.at[partition]
        self.at[partition] = min(len(records), at + count)
        if at < len(records):
            await self.worker.take(partition, records[at : at + count], more=more)

    async def until(self, true: Callable[[], bool]) -> None:
        """Tick meanwhile."""
        while not true():
            await self.worker.tick()
            await asyncio.sleep(0.05)

    async def published(self) -> Envelope:
        """Tick until a version holds everything that was taken."""
        heads: list[Envelope] = []

        def whole() -> bool:
            heads[:] = [self.line.seeder().seed().head]
            return all(heads[0].offsets[p] >= o for p, o in self.at.items())

        await self.until(whole)
        return heads[0]


async def begun(line: Line, *partitions: int) -> Driven:
    """A worker at work, for tests in which it comes to no good end."""
    found = Driven(line)
    await found.worker.start()
    await found.assign(*partitions)
    return found


@asynccontextmanager
async def driven(line: Line, *partitions: int) -> AsyncIterator[Driven]:
    found = await begun(line, *partitions)
    yield found
    await found.worker.close()


def events(line: Line, partition: int) -> list[Any]:
    return line.reader.range(line.topics.events, partition, 0, line.reader.end(line.topics.events, partition))


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


@pytest.fixture
def line(embedded: str, app_name: str, tmp_path: Path) -> Iterator[Line]:
    spec = streams.spec(app_name, partitions=2)
    publish = msgspec.structs.replace(spec.publish, every_s=EVERY_S)
    found = Line(embedded, msgspec.structs.replace(spec, publish=publish), tmp_path)
    yield found
    found.reader.close()


def test_a_dead_letter_fits_into_a_record_though_its_reason_quotes_a_huge_label(line: Line) -> None:
    largest = msgspec.structs.replace(line.spec.stream, max_record_bytes=1_000_000)
    line.spec = msgspec.structs.replace(line.spec, stream=largest)
    label = "\u200b" * 330_000  # under 1 MB as UTF-8; over 2 MB once Python and JSON have escaped it
    huge = msgspec.json.encode({"id": "huge", "label": label, "label_time": 1.0})
    streams.produce_raw(line.bootstrap_servers, line.topics.events, 0, [huge])

    async def work() -> None:
        async with driven(line, 0, 1) as mine:
            await mine.feed(0, events(line, 0), 1)
            assert (await mine.published()).metrics["dead_letters"] == 1

    run(work())
    (record,) = line.reader.range(line.topics.dead_letters, 0, 0, line.reader.end(line.topics.dead_letters, 0))
    letter = msgspec.json.decode(record.value, type=DeadLetter)
    assert letter.reason.startswith("event 'huge': 'label' is ")
    assert len(letter.value) == 65_536


def test_a_commit_that_is_never_answered_stops_neither_learning_nor_publishing(line: Line) -> None:
    streams.produce(line.bootstrap_servers, line.topics.events, streams.records(200))

    async def work() -> None:
        async with driven(line, 0, 1) as mine:
            mine.commit_s = 3600.0
            for p in (0, 1):
                await mine.feed(p, events(line, p), 50)
                await mine.published()

    run(work())


def test_a_version_whose_predictions_were_refused_is_not_announced_at_the_end_either(line: Line) -> None:
    streams.produce(line.bootstrap_servers, line.topics.events, streams.records(200))

    async def work() -> None:
        mine = await begun(line, 0, 1)
        await mine.feed(0, events(line, 0), 1000)
        (sent,) = mine.worker._outbox._sent
        refused = asyncio.get_running_loop().create_future()
        mine.worker._outbox._sent[:] = [sent._replace(ack=refused)]
        await mine.worker.tick()  # begins to publish
        asyncio.get_running_loop().call_later(0.2, refused.set_exception, KafkaError("refused"))
        with pytest.raises(KafkaError, match="refused"):
            await mine.worker.close()
        assert line.seeder().seed().head.offsets == {0: 0, 1: 0}
        await mine.worker._outbox.stop()

    run(work())


def test_a_registry_that_hangs_ends_the_worker(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    streams.produce(line.bootstrap_servers, line.topics.events, streams.records(200))
    monkeypatch.setattr("stream_app.worker.PUBLISH_S", 0.1)

    async def work() -> None:
        mine = await begun(line, 0, 1)
        await mine.feed(0, events(line, 0), 1000)
        monkeypatch.setattr(line.registry, "write", lambda *_: time.sleep(1.0))
        await mine.worker.tick()
        await asyncio.sleep(0.3)
        with pytest.raises(StuckError, match="a version has been under way for"):
            await mine.worker.tick()
        await mine.worker._outbox.stop()

    run(work())


def test_old_offsets_of_a_recreated_topic_end_the_worker(line: Line) -> None:
    streams.produce(line.bootstrap_servers, line.topics.events, streams.records(200))
    old = events(line, 0)

    async def work() -> None:
        async with driven(line, 0, 1) as mine:
            await mine.feed(0, old, len(old))
            await mine.published()
            await mine.worker.take(0, old[:10])  # left over from before a seek: nothing happens
            mine.worker._ids_due_s = 0.0
            line.recreate(line.topics.events)
            with pytest.raises(EpochError, match="was created anew"):
                await mine.worker.take(0, old[:10])

    run(work())


def test_a_models_topic_created_anew_ends_the_worker_before_it_announces_to_nobody(line: Line) -> None:
    streams.produce(line.bootstrap_servers, line.topics.events, streams.records(200))

    async def work() -> None:
        mine = await begun(line, 0, 1)
        await mine.feed(0, events(line, 0), 1000)
        before = await mine.published()
        await mine.feed(1, events(line, 1), 1000)
        line.recreate(line.topics.models)
        mine.worker._ids_due_s = 0.0
        with pytest.raises(ModelLogError, match=r"models was created anew .*; a new start follows the newest version"):
            await mine.until(lambda: False)
        await mine.worker._outbox.stop()
        again = line.seeder().seed().head
        assert (again.id, again.number) == (before.id, before.number)  # servers go on from there

    run(work())


def test_a_recreated_topic_that_outgrew_the_old_offsets_is_not_read_in_the_middle(line: Line) -> None:
    streams.produce(line.bootstrap_servers, line.topics.events, streams.records(100))

    async def work() -> None:
        mine = await begun(line, 0, 1)
        for p in (0, 1):
            await mine.feed(p, events(line, p), 1000)
        head = await mine.published()
        line.recreate(line.topics.events)
        streams.produce(line.bootstrap_servers, line.topics.events, streams.records(400))
        mine.worker._ids_due_s = 0.0
        await mine.feed(0, events(line, 0), 1000)
        with pytest.raises(EpochError, match="events was created anew"):
            await mine.until(lambda: False)
        await mine.worker._outbox.stop()
        assert mine.worker._seeder.newest() == head

    run(work())


def test_partitions_lost_just_before_a_version_is_written_do_no_harm(line: Line) -> None:
    streams.produce(line.bootstrap_servers, line.topics.events, streams.records(200))

    async def work() -> None:
        async with driven(line, 0, 1) as mine:
            await mine.feed(0, events(line, 0), 1000)
            await mine.worker.tick()  # begins to publish
            await mine.assign()
            await asyncio.sleep(0.2)
            await mine.worker.tick()
            await mine.assign(0, 1)
            assert mine.at == {0: 0, 1: 0}
            await mine.feed(0, events(line, 0), 1000)
            await mine.published()

    run(work())


def test_of_two_workers_with_a_partition_each_neither_loses_for_ever(line: Line) -> None:
    streams.produce(line.bootstrap_servers, line.topics.events, streams.records(4_000))

    async def work() -> None:
        async with driven(line, 0) as one, driven(line, 1) as two:
            seeder = line.seeder()
            newest = seeder.seed().head
            both = ((one, 0, events(line, 0)), (two, 1, events(line, 1)))
            while not all(newest.offsets.values()):
                for mine, p, records in both:
                    await mine.feed(p, records, 2)
                    await mine.worker.tick()
                await asyncio.sleep(0.01)
                newest = seeder.newest() or newest

    run(work())


def promote_again(line: Line, head: Envelope) -> None:
    """Make what is the head already the head of a new epoch."""
    again = msgspec.structs.replace(head, parent=head.id, epoch=head.epoch + 1)
    client = LogClient(line.bootstrap_servers, line.topics.models)
    client.catch_up()
    assert client.announce("promotion", again, b"", inline_bytes=0)
    client.close()


def test_a_new_head_and_the_loss_of_all_partitions_at_once_leave_a_worker_standing_by(line: Line) -> None:
    streams.produce(line.bootstrap_servers, line.topics.events, streams.records(200))

    async def work() -> None:
        async with driven(line, 0, 1) as mine:
            await mine.feed(0, events(line, 0), 20)
            promote_again(line, await mine.published())
            async with mine.worker._lock:
                leaving = asyncio.create_task(mine.assign())
                await asyncio.sleep(0.1)
                following = asyncio.create_task(mine.worker._follow())
                await asyncio.sleep(0.3)
            await asyncio.gather(leaving, following)
            assert mine.at == {}
            await mine.assign(0, 1)
            assert mine.at == {0: 20, 1: 0}

    run(work())


def test_a_head_that_begins_a_new_epoch_under_its_own_name_is_followed(line: Line) -> None:
    """As when somebody promotes what is the head already."""
    streams.produce(line.bootstrap_servers, line.topics.events, streams.records(200))

    async def work() -> None:
        async with driven(line, 0, 1) as mine:
            await mine.feed(0, events(line, 0), 20)
            head = await mine.published()
            promote_again(line, head)
            for _ in range(2):  # what was learned on the old epoch is learned again
                await mine.feed(1, events(line, 1), 20)
                newest = await mine.published()
            assert newest.epoch == head.epoch + 1
            assert (newest.offsets[0], newest.offsets[1] >= 20) == (20, True)

    run(work())


def test_a_step_that_is_not_full_takes_effect_when_nothing_more_comes(line: Line) -> None:
    streams.produce(line.bootstrap_servers, line.topics.events, streams.records(200))

    async def work() -> None:
        async with driven(line, 0, 1) as mine:
            lingering = asyncio.create_task(mine.worker.linger())
            await mine.feed(0, events(line, 0), 45, more=True)
            assert (await mine.published()).offsets[0] == 45
            lingering.cancel()

    run(work())


def test_what_a_step_was_waiting_with_is_read_again_after_a_rebalance(line: Line) -> None:
    streams.produce(line.bootstrap_servers, line.topics.events, streams.records(200))

    async def work() -> None:
        async with driven(line, 0, 1) as mine:
            await mine.feed(0, events(line, 0), 45, more=True)
            await mine.assign(0, 1)
            assert mine.at[0] == 32  # steps are of 32 records
            await mine.feed(0, events(line, 0), 1000)
            head = await mine.published()
            assert head.offsets[0] == len(events(line, 0))

    run(work())
    seeded = line.seeder().seed()
    assert seeded.core.partitions[0].count == seeded.head.ledger[0][0] > 50


def test_of_frequent_versions_few_travel_inline_and_the_last_does_when_nothing_more_comes(line: Line) -> None:
    publish = msgspec.structs.replace(line.spec.publish, every_s=3600.0, least_s=0.01, share=1.0)
    line.spec = msgspec.structs.replace(line.spec, publish=publish)
    streams.produce(line.bootstrap_servers, line.topics.events, streams.records(200))

    async def work() -> None:
        async with driven(line, 0, 1) as mine:
            for _ in range(4):
                await mine.feed(0, events(line, 0), 5)
                await mine.until(lambda: not mine.worker._advanced())
            fold = mine.worker._seeder._log.fold
            assert fold.between
            assert fold.head_inline is None
            mine.worker._inline_due_s = 0.0
            await mine.until(lambda: not fold.between)
            assert fold.head is not None
            assert (fold.head.offsets[0], fold.head_inline is None) == (20, False)

    run(work())


def test_a_worker_rests_until_something_was_learned(line: Line) -> None:
    streams.produce(line.bootstrap_servers, line.topics.events, streams.records(200))

    async def work() -> None:
        async with driven(line, 0, 1) as mine:
            resting = asyncio.create_task(mine.worker.rest(3600.0))
            await asyncio.sleep(0)
            assert not resting.done()
            await mine.feed(0, events(line, 0), 5)
            await resting

    run(work())


def test_what_is_being_learned_when_it_ends_is_carried_away_and_what_is_held_is_let_go(line: Line) -> None:
    streams.produce(line.bootstrap_servers, line.topics.events, streams.records(200))

    async def work() -> None:
        mine = await begun(line, 0, 1)
        lingering = asyncio.create_task(mine.worker.linger())
        await mine.feed(1, events(line, 1), 5, more=True)
        taking = asyncio.create_task(mine.feed(0, events(line, 0), 45, more=True))
        await asyncio.sleep(0)  # it has begun, in the core's thread
        await mine.worker.close()
        await taking
        await asyncio.sleep(0.05)  # long enough to linger
        assert not lingering.done()
        lingering.cancel()

    run(work())
    assert line.seeder().seed().head.offsets == {0: 32, 1: 0}


def test_who_stands_by_joins_anew_if_records_wait_and_nobody_learns_them(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "NOBODY_S", 0.3)

    async def work() -> None:
        async with driven(line) as mine:
            for _ in range(10):
                await mine.worker.tick()  # nothing waits
                await asyncio.sleep(0.05)
            streams.produce(line.bootstrap_servers, line.topics.events, streams.records(10))
            async with driven(line, 0, 1) as other:
                for p in (0, 1):
                    await other.feed(p, events(line, p), 100)
                await other.published()
            for _ in range(10):
                await mine.worker.tick()  # another one has learned all
                await asyncio.sleep(0.05)
            streams.produce(line.bootstrap_servers, line.topics.events, streams.records(10, seed=1))
            with pytest.raises(StuckError, match="records wait, this worker has no partition"):
                await mine.until(lambda: False)

    run(work())


def test_what_comes_from_beyond_the_expected_offset_is_sought_once_however_many_pieces_it_is_learned_in(
    line: Line,
) -> None:
    streams.produce(line.bootstrap_servers, line.topics.events, streams.records(300))

    async def work() -> None:
        async with driven(line, 0, 1) as mine:
            records, sought = events(line, 0), list[dict[int, int]]()
            seek = mine._seek

            async def seeks(offsets: Mapping[int, int]) -> None:
                sought.append(dict(offsets))
                await seek(offsets)

            mine.worker._consumer = Consumer(seeks, mine._commit)
            mine.worker._record_s = worker.AT_ONCE_S / 10  # ten records to a piece
            await mine.worker.take(0, Codec(line.spec).read(records[100:200]))
            assert sought == [{0: 0}]
            await mine.worker.take(0, Codec(line.spec).read(records))
            mine.at[0] = len(records)
            assert (await mine.published()).offsets[0] == len(records)

    run(work())

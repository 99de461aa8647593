"""One worker: chunks of records -> core -> predictions, dead letters, versions. Asynchronous edge of the core.

The core learns in a thread of its own, so the event loop fetches meanwhile; everything that blocks (models topic,
registry, reading back) runs in another, so learning never waits for it. Four facts keep every event effective
exactly once:

    what the core learned lives in memory until a version that holds it is durable *and* read back as the head;
    a head that others made of the partitions that are theirs is gone on from, merged with what was learned here;
    one that has moved partitions which are ours, or a stranger's prediction between ours, means: forget it and seed
    again from the head;
    after any seek, only records at exactly the expected offset are taken.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

from models.merging import MergeError
from stream_app import failpoints, seed, versions
from stream_app.cadence import Cadence
from stream_app.codecs.decoded import Decoded
from stream_app.errors import BrokerError, StuckError, TopicError
from stream_app.events import Topics
from stream_app.learn import Core, Taken, Version
from stream_app.modellog import Envelope
from stream_app.outbox import Outbox, acknowledged

log = logging.getLogger("stream_app.worker")

T = TypeVar("T")
CHECK_IDS_S = 10.0
NOBODY_S = 20.0
"""While records wait so long and nobody learns them, who stands by joins the group anew."""
RIVALS = 20
"""So many versions of others may come in between one of ours; then it waits for its next turn."""
PUBLISH_S = 120.0
"""Every step of publishing has a limit of its own, but for a registry that hangs."""
AT_ONCE_S = 0.1
"""How long the core learns without a pause: who publishes or stops waits for it."""
LINGER_S = 0.005
"""How long a step that is not full waits for the next record."""
HELD_S = 0.03
"""How long it waits at most, though more keep coming."""


class Consumer(NamedTuple):
    """What the worker asks of whoever consumes for it. Keys are partitions of the events topic."""

    seek: Callable[[Mapping[int, int]], Awaitable[None]]
    commit: Callable[[Mapping[int, int]], Coroutine[Any, Any, None]]
    end: Callable[[int], int] = lambda _: 0
    """Of a partition, as far as the newest fetch knew; 0 if none did."""


class Worker:
    """Feeds one core from Kafka and publishes what it learns.

    Args:
        seeder: knows how to bring a core to the head.
        bootstrap_servers: of the broker.
        consumer: seeks and commits for us.
        stuck_s: with lag and no progress for so long, ``tick`` raises.
    """

    def __init__(
        self, seeder: seed.Seeder, *, bootstrap_servers: str, consumer: Consumer, stuck_s: float = 60.0
    ) -> None:
        self._seeder, self._spec, self._consumer = seeder, seeder.spec, consumer
        self._topics = Topics.of(self._spec.name)
        self._io = ThreadPoolExecutor(1, thread_name_prefix="worker-io")
        self._learning = ThreadPoolExecutor(1, thread_name_prefix="worker-core")
        self._lock = asyncio.Lock()
        self._outbox = Outbox(self._topics, seeder.events_id, bootstrap_servers)
        self._core: Core | None = None
        self._head: Envelope | None = None
        self._base: Version | None = None  # the head that the core goes on from, while other workers may, too
        self._mine: set[int] = set()
        self._publishing: asyncio.Task[None] | None = None
        self._publishing_since_s = 0.0
        self._committing: asyncio.Task[None] | None = None
        publish = seeder.spec.publish
        self._cadence = Cadence(every_s=publish.every_s, least_s=publish.least_s, share=publish.share)
        self._inline_due_s = 0.0
        self._inline_id: str | None = None
        self._follow_due_s = 0.0
        self._merging_s = 0.0
        self._ids_due_s = 0.0
        self._moved_s = time.monotonic()
        self._seen = ""
        self._stuck_s = stuck_s
        self._closing = False
        self._held = asyncio.Event()
        self._held_s = 0.0
        self._took = 0
        self._record_s = 1.0
        self._learned = asyncio.Event()

    async def start(self) -> None:
        await self._outbox.start()

    async def close(self) -> None:
        """Publish what is learned, then stop."""
        self._closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(10), self._lock:
                pass  # what is being learned is carried away first
        if self._publishing is not None:
            done, _ = await asyncio.wait([self._publishing], timeout=10)
            for task in done:
                task.result()
        if (self._advanced() or self._owes_inline()) and (self._publishing is None or self._publishing.done()):
            await asyncio.wait_for(self._publish(), timeout=15)
        if self._committing is not None:
            await asyncio.wait([self._committing], timeout=2)
        await self._outbox.stop()
        await self._call(self._seeder.close)
        self._io.shutdown(wait=False)
        self._learning.shutdown(wait=False)

    # --- where to read --------------------------------------------------------------------------------

    async def positions(self, partitions: set[int]) -> Mapping[int, int]:
        """Where reading must go on. Idempotent, but a gained partition means: seed from the newest head (rule 12)."""
        async with self._lock:
            await self._call(self._seeder.check_ids)
            gained, self._mine = partitions - self._mine, partitions
            if not partitions:
                self._core = None
                log.info("no partition is assigned to this worker: it stands by")
                return {}
            if self._core is None or gained:
                await self._seed()
            assert self._core is not None
            log.info("learns partitions %s", sorted(partitions))
            for state in self._core.partitions.values():
                state.held.clear()
            self._leave()
            return {p: s.next_offset for p, s in self._core.partitions.items() if p in partitions}

    async def _seed(self) -> None:
        """Forget what is not durable, and begin again from the head (rules 5, 9, 10, 12, 14-19)."""
        await self._outbox.settle()
        seeded = await self._call(self._seeder.seed, self._mine)
        self._core = seeded.core
        self._outbox.begin(seeded.trails, seeded.letters)
        self._stand_on(Version(seeded.head, seeded.arrays))
        self._inline_id = self._seeder.inline_id
        self._moved_s = time.monotonic()
        log.info("stand at version %d, offsets %s", seeded.head.number, seeded.head.offsets)

    def _stand_on(self, version: Version) -> None:
        """The core holds all of ``version``. It is kept as long as there may be other workers to merge with."""
        self._head = version.envelope
        self._base = version if version.envelope.offsets.keys() - self._mine else None

    def _leave(self) -> None:
        """Give up partitions that are others' by now, once all that was learned of them here is in a version."""
        assert self._core is not None
        assert self._head is not None
        for p in [p for p in self._core.partitions if p not in self._mine and not self._progress(p)]:
            self._core.forget(p)
            self._outbox.leave(p)

    def _progress(self, partition: int) -> bool:
        """Whether the core has learned of it what the head has not."""
        assert self._core is not None
        assert self._head is not None
        return self._core.partitions[partition].next_offset != self._head.offsets[partition]

    async def _rebase(self, newest: Envelope) -> bool:
        """Go on from another's version with what was learned here; if that cannot be, begin again from the head.

        Returns:
            False if it began again.
        """
        core, head = self._core, self._head
        assert core is not None
        assert head is not None
        reason = f"version {newest.number} (epoch {newest.epoch}) is the head"
        if self._base is not None and self._contiguous(newest, head):
            version = await self._call(self._seeder.version, newest)
            if version is not None:
                try:
                    _, cost_s = await self._learn(partial(_timed, core.rebase, self._base, version))
                except MergeError as error:
                    reason += f"; {error}"
                else:
                    failpoints.reach("merged")
                    self._merging_s += cost_s
                    self._stand_on(version)
                    self._leave()
                    return True
        await self._reseed(reason)
        return False

    def _contiguous(self, newest: Envelope, head: Envelope) -> bool:
        """Whether ``newest`` has of our partitions exactly what ``head`` had, which we began from (rules 10, 13)."""
        assert self._core is not None
        mine = (p for p in self._core.partitions if p in self._mine or self._progress(p))
        return newest.epoch == head.epoch and all(newest.offsets.get(p) == head.offsets[p] for p in mine)

    async def _reseed(self, reason: str) -> None:
        log.warning("beginning again from the head: %s", reason)
        await self._seed()
        # At another moment than before: two workers in step would always see the same one lose.
        self._cadence.postpone(time.monotonic() + random.uniform(0.0, self._spec.publish.every_s))
        assert self._core is not None
        await self._consumer.seek({p: s.next_offset for p, s in self._core.partitions.items()})
        if not self._closing:  # the producer may be gone
            assert self._head is not None
            await self._outbox.decide("reseeded", self._head.number, {"reason": reason})

    # --- what comes in --------------------------------------------------------------------------------

    async def take(self, partition: int, records: Sequence[Any] | Decoded, *, more: bool = False) -> None:
        """Let a chunk take effect; with ``more``, a step that is not full waits for further ones or ``linger``."""
        left: Sequence[Any] | Decoded | None = records
        while left is not None:
            piece, left = self._piece(left)
            if not await self._take(partition, piece, more=more or left is not None):
                return  # the rest will come again: each piece of it would have the consumer seek anew

    def _piece(self, records: Sequence[Any] | Decoded) -> tuple[Sequence[Any] | Decoded, Decoded | None]:
        """What is learned in about AT_ONCE_S, if the last piece's pace holds, and the rest."""
        most = max(1, int(AT_ONCE_S / self._record_s))
        if not isinstance(records, Decoded) or len(records.offsets) <= most:
            return records, None
        piece, left = records.split(int(records.offsets[most]))
        assert piece is not None
        return piece, left

    async def _take(self, partition: int, records: Sequence[Any] | Decoded, *, more: bool) -> bool:
        """Whether what follows these records may take effect."""
        async with self._lock:
            if self._core is None or self._closing or partition not in self._mine:
                return False
            failpoints.reach("take")
            state = self._core.partitions.get(partition)
            last_offset = records.last_offset if isinstance(records, Decoded) else records[-1].offset
            if state is not None and last_offset < state.expected:
                await self._mind_ids()  # left over from before a seek, or was the topic created anew?
                return True
            stood = state.next_offset if state is not None else 0
            began_s = time.monotonic()
            taken: Taken | None = await self._learn(partial(self._core.take, partition, records, more=more))
            assert taken is not None
            if taken.gap_at is not None:
                taken = await self._gap(self._core, partition, records, taken.gap_at)
            elif isinstance(records, Decoded):
                self._record_s = (time.monotonic() - began_s) / len(records.offsets)
            if taken is not None:
                self._moved_s = time.monotonic()
                failpoints.reach("taken")
                await self._carry_away(partition, taken)
                self._learned.set()
            self._took += 1
            if state is not None and state.held:
                if state.next_offset != stood or not self._held.is_set():
                    self._held_s = time.monotonic()
                self._held.set()
            return taken is not None

    async def linger(self) -> None:
        """Run for ever: when no chunk has come for LINGER_S, or HELD_S have passed, what was held back takes effect."""
        while True:
            await self._held.wait()
            took = self._took
            await asyncio.sleep(LINGER_S)
            if time.monotonic() - self._held_s >= HELD_S or (took == self._took and not self._lock.locked()):
                await self._flush()

    async def _flush(self) -> None:
        async with self._lock:
            self._held.clear()
            core = self._core
            if core is None or self._closing:
                return
            for partition, state in core.partitions.items():
                if state.held:
                    await self._carry_away(partition, await self._learn(partial(core.take, partition, ())))
            self._learned.set()

    async def _mind_ids(self) -> None:
        """Now and then: are the topics still those that the offsets are counted in?"""
        if time.monotonic() < self._ids_due_s:
            return
        try:
            await self._call(self._seeder.check_ids)
        except TopicError:
            raise
        except BrokerError as error:
            log.warning("topics not looked at: %s", error)  # an outage; whoever needs an answer will wait for it
        self._ids_due_s = time.monotonic() + CHECK_IDS_S

    async def _gap(self, core: Core, partition: int, records: Sequence[Any] | Decoded, gap_at: int) -> Taken | None:
        """Records came from beyond the expected offset: left over from before a seek, or is the log so?"""
        expected = core.partitions[partition].expected
        begin, first = await self._call(self._seeder.look, partition, expected)
        if begin > expected:
            raise self._seeder.refusal(
                TopicError(
                    f"{self._topics.events}/{partition}: offsets {expected} to {begin - 1} were deleted before they "
                    "were learned (retention too short for the lag); start with --on-mismatch keep to go on without"
                )
            )
        if first != gap_at:
            await self._consumer.seek({partition: expected})
            return None
        # Compaction or transaction markers. What was held takes effect first.
        await self._carry_away(partition, await self._learn(partial(core.skip, partition, gap_at)))
        return await self._learn(partial(core.take, partition, records))

    async def _carry_away(self, partition: int, taken: Taken) -> None:
        assert self._head is not None
        await self._outbox.say(partition, taken, self._head)

    # --- what goes out --------------------------------------------------------------------------------

    async def tick(self) -> None:
        """Publish when due, follow rivals, mind the watchdog. Call it a few times a second.

        Raises:
            StuckError: records are waiting, and none has come for ``stuck_s``; or this worker stands by, and nobody
                learns them.
        """
        if self._closing:
            return
        if self._core is None:
            await self._watch_others()
            return
        if self._publishing is not None:
            if not self._publishing.done():
                self._mind_publishing()
                return
            finished, self._publishing = self._publishing, None
            finished.result()
        now_s = time.monotonic()
        advanced = self._advanced()
        if now_s >= (self._due_s(now_s) if advanced else self._inline_due_s) and (advanced or self._owes_inline()):
            self._cadence.begin(now_s)
            self._publishing_since_s = now_s
            self._publishing = asyncio.create_task(self._publish())
        if not advanced and self._publishing is None:
            await self._follow()
            await self._watch()

    async def rest(self, most_s: float) -> None:
        """Until there may be something for ``tick`` to do, ``most_s`` at most."""
        if self._publishing is not None and not self._publishing.done():
            await asyncio.wait([self._publishing], timeout=most_s)
        elif self._advanced() and not self._closing:
            now_s = time.monotonic()
            await asyncio.sleep(min(most_s, max(0.0, self._due_s(now_s) - now_s)))
        else:
            self._learned.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._learned.wait(), most_s)

    def _due_s(self, now_s: float) -> float:
        """When the next version may begin. Who has others to merge with does not keep them waiting."""
        if self._core is None or self._head is None or self._base is not None:
            return self._cadence.due_s
        head, stands = self._head.offsets, {p: s.next_offset for p, s in self._core.partitions.items()}
        learned = sum(at - head[p] for p, at in stands.items())
        left = sum(max(0, self._consumer.end(p) - at) for p, at in stands.items())
        return self._cadence.backlog_due_s(now_s, learned=learned, left=left)

    def _owes_inline(self) -> bool:
        """Whether the head is one that cannot be read without the registry, and was announced so."""
        return self._head is not None and self._seeder.between

    def _mind_inline(self) -> None:
        """One version in every ``every_s`` travels inline, whoever's it is."""
        if (newest := self._seeder.inline_id) != self._inline_id:
            self._inline_id, self._inline_due_s = newest, time.monotonic() + self._spec.publish.every_s

    def _advanced(self) -> bool:
        return self._core is not None and any(map(self._progress, self._core.partitions))

    async def _publish(self) -> None:
        """One version: [merged with the head] -> predictions acknowledged -> durable -> announced -> read back."""
        for _ in range(RIVALS):
            if await self._tried():
                return

    async def _tried(self) -> bool:
        """False: another's version came in between; ours is still to be made."""
        async with self._lock:
            core = self._core
            if core is None:  # a rebalance took the partitions away
                return True
            newest = await self._call(self._seeder.newest)
            assert newest is not None
            assert self._head is not None
            self._mind_inline()
            if _moved(newest, self._head) and not await self._rebase(newest):
                return True
            if not (self._advanced() or self._owes_inline()):
                return True
            head = self._head
            own, copied_s = await self._learn(partial(_timed, versions.snapshot, core))
            own.metrics["publish_share"] = self._cadence.share
            under_way = self._outbox.under_way()
        await self._mind_ids()
        stranger, won, now = await acknowledged(under_way), False, head
        if stranger is None:
            trails = under_way.trails.items()
            hint = head.predictions_from | {p: t.start(own.replay_from[p][0]) for p, t in trails}
            between = self._publishing_since_s < self._inline_due_s and not self._closing
            if not between:
                self._inline_due_s = self._publishing_since_s + self._spec.publish.every_s
            publish = partial(self._seeder.publish, between=between)
            (now, won), written_s = await self._call(_timed, publish, versions.beside(own, head), head, hint)
            self._cadence.cost(self._merging_s + copied_s + written_s)
            self._merging_s = 0.0
        async with self._lock:
            if self._core is not core:  # a rebalance has seeded another meanwhile; it goes by its own head
                return True
            if stranger is not None:
                await self._reseed(stranger)
                return True
            self._outbox.done(under_way)
            if not won:
                log.debug("version %d came in between", now.number)
                return False
            if own.course is not None and core.course is not None:
                core.course.covered(own.course, now.number)
            self._stand_on(Version(now, own.arrays))
            self._inline_id = self._seeder.inline_id
            self._leave()
            self._outbox.covered(now.offsets)
        failpoints.reach("commit")
        self._commit(own.offsets)
        return True

    def _commit(self, offsets: Mapping[int, int]) -> None:
        """Nobody waits for it: only other people's lag monitors read what is committed."""
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._consumer.commit(offsets))

    def _mind_publishing(self) -> None:
        under_way_s = time.monotonic() - self._publishing_since_s
        if under_way_s > PUBLISH_S:
            raise StuckError(f"a version has been under way for {under_way_s:.0f} s, wanted {PUBLISH_S:g} at most")

    async def _follow(self) -> None:
        newest = await self._call(self._seeder.newest)
        if self._head is not None and newest is not None and _moved(newest, self._head):
            if time.monotonic() >= self._follow_due_s:
                async with self._lock:
                    if self._core is not None:  # a rebalance may have taken the partitions away meanwhile
                        await self._rebase(newest)
                self._follow_due_s = time.monotonic() + self._cadence.period_s
        elif await self._call(self._seeder.mend_head):
            async with self._lock:
                if self._core is not None:
                    await self._reseed("the head's artefact could not be read and was published anew")

    async def _watch(self) -> None:
        if time.monotonic() - self._moved_s < self._stuck_s:
            return
        assert self._core is not None
        positions = {p: s.next_offset for p, s in self._core.partitions.items() if p in self._mine}
        lag = await self._call(self._seeder.lag, positions)
        if lag:
            raise StuckError(f"{lag} records wait at {positions}, and none has come for {self._stuck_s:g} s")
        self._moved_s = time.monotonic()

    async def _watch_others(self) -> None:
        """A group whose leader knew no partitions, as when the broker went away while it joined, gives nobody any."""
        newest = await self._call(self._seeder.newest)
        now_s, seen = time.monotonic(), newest.id if newest else ""
        if seen != self._seen or self._lock.locked():
            self._seen, self._moved_s = seen, now_s
        elif now_s - self._moved_s > NOBODY_S:
            if self._core is None and (left := await self._call(self._seeder.unlearned)):
                raise StuckError(
                    f"{left} records wait, this worker has no partition, and no other one has learned any "
                    f"for {NOBODY_S:g} s"
                )
            self._moved_s = now_s

    async def _learn(self, work: Callable[[], T]) -> T:
        """Whatever touches the core, in its thread; the lock is held meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._learning, work)

    async def _call(self, blocking: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._io, partial(blocking, *args))


def _moved(newest: Envelope, head: Envelope) -> bool:
    """Whether another version is the head, or the same one in a new epoch, as after a promotion or a restoration."""
    return (newest.id, newest.epoch) != (head.id, head.epoch)


def _timed(work: Callable[..., T], *args: Any) -> tuple[T, float]:
    """What it returns, and the processor's time that it took in this thread."""
    began_s = time.thread_time()
    return work(*args), time.thread_time() - began_s

"""One worker process and what Faust does around it: group -> assignment -> positions -> chunks -> the real worker.

What a fetch brings is fed in chunks of any size; chunks that were fetched before a seek or a rebalance may still come.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kafka.errors import KafkaError

from simulation.loop import Killed, Process
from simulation.oracle import ROOT
from stream_app.errors import StreamAppError
from stream_app.registry import Registry
from stream_app.seed import Seeder
from stream_app.worker import Consumer, Worker

REST_S = 0.3
BUFFERED = 3
"""Chunks of a partition that are fetched ahead, at most."""


class Incarnation:
    """A worker process from its start to its death."""

    def __init__(self, world: Any, name: str) -> None:
        self.world, self.process = world, Process(world.loop, name)
        self.worker: Worker | None = None
        self._at: dict[int, int] = {}
        self._wanted: set[int] | None = None
        self._generation = 0
        self._news = asyncio.Event()
        self._chunks: deque[tuple[int, Any]] = deque()
        self._filled = asyncio.Event()
        self._flowing = False
        self._executor = ThreadPoolExecutor(1)
        self.process.spawn(self._or_die(self._begin()))

    # --- life and death ---------------------------------------------------------------------------------

    async def _or_die(self, work: Any) -> None:
        """As ``agents._or_die``: what a worker cannot handle ends the process."""
        try:
            await work
        except (StreamAppError, KafkaError, TimeoutError) as error:
            self.world.trace(self.process.name, f"ends: {type(error).__name__}: {error}")
            if getattr(error, "exit_code", 1) != 1:
                self.world.refused(error)
            self.process.kill()
        except Killed:
            self.process.kill()
        except Exception as error:
            self.world.failed(error)
            self.process.kill()

    async def _begin(self) -> None:
        seeder = await self._blocking(self._seeder)
        self.worker = Worker(seeder, bootstrap_servers="simulated:1", consumer=Consumer(self._seek, self._commit))
        await self.worker.start()
        for work in (self._rebalances(), self._fetch(), self._learn(), self._tick(), self.worker.linger()):
            self.process.spawn(self._or_die(work))
        self.world.group.join(self)

    def _seeder(self) -> Seeder:
        return Seeder(self.world.spec, bootstrap_servers="simulated:1", registry=Registry(ROOT), on_mismatch="refuse")

    def _blocking(self, work: Any) -> "asyncio.Future[Any]":
        found: asyncio.Future[Any] = self.world.loop.run_in_executor(self._executor, work)
        return found

    async def end(self) -> None:
        """SIGTERM."""
        self.world.group.leave(self)
        if self.worker is not None:
            await self.worker.close()
        self.process.kill()

    # --- what Faust does --------------------------------------------------------------------------------

    def assign(self, generation: int, partitions: set[int]) -> None:
        """The group has decided."""
        if generation > self._generation:
            self._generation, self._wanted = generation, partitions
            self._news.set()

    async def _rebalances(self) -> None:
        assert self.worker is not None
        while True:
            await self._news.wait()
            self._news.clear()
            mine, self._flowing = self._wanted, False
            assert mine is not None
            if self.world.rng.random() < 0.7:
                self._chunks.clear()
            found = await self.worker.positions(set(mine))
            if not self._news.is_set():
                self._at, self._flowing = {p: o for p, o in found.items() if p in mine}, True

    async def _seek(self, offsets: Mapping[int, int]) -> None:
        self.process.step()
        await asyncio.sleep(self.world.broker.delay_s())
        self._at.update({p: o for p, o in offsets.items() if p in self._at})

    async def _commit(self, offsets: Mapping[int, int]) -> None:
        self.process.step()
        await asyncio.sleep(self.world.broker.delay_s())

    async def _fetch(self) -> None:
        rng, broker = self.world.rng, self.world.broker
        while True:
            await asyncio.sleep(0.02 + rng.random() * 0.3)
            if not self._flowing or broker.out:
                continue
            for p in list(self._at):
                log = broker.topics[self.world.topics.events].logs[p]
                at = self._at.get(p, log.end)
                if at < log.end and sum(q == p for q, _ in self._chunks) < BUFFERED:
                    found = log.records[at : at + rng.choice((1, 10, 40, 100, 200))]
                    self._at[p] = at + len(found)
                    self._chunks.append((p, found))
                    self._filled.set()

    async def _learn(self) -> None:
        assert self.worker is not None
        while True:
            while self._chunks:
                partition, records = self._chunks.popleft()
                await self.worker.take(partition, records, more=True)
            self._filled.clear()
            await self._filled.wait()

    async def _tick(self) -> None:
        assert self.worker is not None
        while True:
            await self.worker.tick()
            await self.worker.rest(REST_S)


class Group:
    """The consumer group's coordinator: who has which partitions. Members hear of it late, and not at once."""

    def __init__(self, world: Any, partitions: int) -> None:
        self._world, self._partitions = world, partitions
        self.members: list[Incarnation] = []
        self._generation = 0

    def join(self, member: Incarnation) -> None:
        if member.process.alive and member not in self.members:
            self.members.append(member)
            self.rebalance()

    def leave(self, member: Incarnation) -> None:
        if member in self.members:
            self.members.remove(member)
            self.rebalance()

    def rebalance(self) -> None:
        rng = self._world.rng
        self._generation += 1
        owners = {p: rng.choice(self.members) for p in range(self._partitions) if self.members}
        self._world.trace("group", "partitions to " + ", ".join(f"{p}: {m.process.name}" for p, m in owners.items()))
        for member in self.members:
            mine = {p for p, owner in owners.items() if owner is member}
            self._world.loop.call_outside(rng.random() * 0.3, self._tell, member, self._generation, mine)

    def _tell(self, member: Incarnation, generation: int, mine: set[int]) -> None:
        if member.process.alive and member in self.members:
            member.process.post(member.assign, generation, mine)

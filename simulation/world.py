"""One simulated life of one model: stream, broker, disk, workers, operator, server; and what befalls them."""

import hashlib
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import greenlet
import msgspec
from kafka.errors import KafkaError

from models.snapshot import spans
from simulation import stream
from simulation.disk import Disk
from simulation.faults import Fault, plan
from simulation.kafka import Broker
from simulation.loop import START_WALL_S, Killed, Loop, Process, StalledError, current, pause
from simulation.model import spec
from simulation.node import Group, Incarnation
from simulation.oracle import ROOT, Files, Oracle, Violation
from simulation.patches import Installed
from stream_app import holding, operate, stored
from stream_app.errors import RegistryError, StreamAppError
from stream_app.events import Topics
from stream_app.logclient import LogClient
from stream_app.registry import Registry

RECORDS = 500
STUCK_S = 150.0
"""After faults and stream have ended, everything is learned by then."""
BROKER = "simulated:1"


class Result(NamedTuple):
    seed: int
    records: int
    faults: int
    failure: str
    """Empty if there is none."""
    digest: str
    versions: int
    ended_s: float
    """Simulated."""


class World:
    """Everything of one seed.

    Args:
        seed: decides everything.
        records: of the events topic.
        faults: instead of the seed's own.
        trace: told what happens: time, who, what.
    """

    def __init__(
        self,
        seed: int,
        *,
        records: int = RECORDS,
        faults: list[Fault] | None = None,
        trace: Callable[[float, str, str], None] | None = None,
    ) -> None:
        self.seed, self._trace = seed, trace
        planned = random.Random(f"plan {seed}")
        self.rng = random.Random(f"course {seed}")
        self.spec = spec(planned)
        self.topics = Topics.of(self.spec.name)
        partitions, self._within_s = self.spec.stream.partitions, planned.choice((4.0, 8.0))
        workers = planned.choice((1, 2, 2, 3))
        self.faults = plan(planned, workers, self._within_s) if faults is None else faults
        self.stream = stream.stream(planned, max(records, 1), partitions)
        self.loop = Loop()
        self.disk = self.loop.disk = Disk(self.rng, self._wall_s)
        self.broker = Broker(self.loop, self.rng, self._wall_s)
        for topic, count in zip(self.topics, (partitions, partitions, 1, 1, 1), strict=True):
            self.broker.create(topic, count)
        self.oracle = Oracle(self.disk, partitions)
        self.broker.watchers |= {
            self.topics.predictions: self.oracle.on_prediction,
            self.topics.dead_letters: self.oracle.on_letter,
            self.topics.models: self.oracle.on_model,
        }
        self.group = Group(self, partitions)
        self.nodes: list[Incarnation | None] = [None] * workers
        self._skews_s = [0.0] * workers
        self._births = 0
        self._points: list[str] = []
        self._failure = ""
        self._left = len(self.stream)
        self._quiet = False
        self._processes: list[Process] = []
        self._following: tuple[int, int] | None = None

    def _wall_s(self) -> float:
        return START_WALL_S + self.loop.time()

    def trace(self, who: str, what: str) -> None:
        if self._trace is not None:
            self._trace(self.loop.time(), who, what)

    # --- running ----------------------------------------------------------------------------------------

    def run(self) -> Result:
        Installed.world = self
        try:
            self._run()
        except Violation as violation:
            self._failure = self._failure or str(violation)
        finally:
            self._end()
        head = self.oracle.head
        return Result(
            seed=self.seed,
            records=len(self.stream),
            faults=len(self.faults),
            failure=self._failure,
            digest=self.oracle.digest(),
            versions=head.number if head else 0,
            ended_s=self.loop.time(),
        )

    def _run(self) -> None:
        for i in range(len(self.nodes)):
            self.loop.call_outside(self.rng.random(), self._bear, i)
        self._produce_all()
        for fault in self.faults:
            self.loop.call_outside(fault.at_s, self._befall, fault)
        self.loop.call_outside(self._within_s + 1.0, self._calm)
        self._start_follower()
        try:
            if not self.loop.run(self._done, self._within_s + STUCK_S):
                head = self.oracle.head
                ends = [len(r.points) - 1 for r in self.oracle.references]
                raise Violation(f"stuck at {head.offsets if head else None}, wanted {ends}")
        except StalledError as error:
            raise Violation(str(error)) from error
        if not self._failure:
            self.oracle.check_end(self.topics.events)

    def _done(self) -> bool:
        if self.oracle.violation is not None:
            raise self.oracle.violation
        if self._failure:
            return True
        return self._quiet and not self._left and self.oracle.drained() and self._followed()

    def _end(self) -> None:
        """Nothing of it may live on."""
        for process in self._processes:
            process.died = lambda: None
            process.kill()
        self.loop.wind_up()

    def failed(self, error: Exception) -> None:
        """A worker ended with what no worker may end with."""
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        place = f"{where.tb_frame.f_code.co_filename.rpartition('/')[2]}:{where.tb_lineno}" if where else "?"
        self._failure = self._failure or f"a worker failed: {type(error).__name__}: {error} ({place})"

    def refused(self, error: Exception) -> None:
        self._failure = self._failure or f"a worker refuses to go on: {type(error).__name__}: {error}"

    def process(self, name: str) -> Process:
        found = Process(self.loop, name)
        self._processes.append(found)
        return found

    # --- what lives in it -------------------------------------------------------------------------------

    def _produce_all(self) -> None:
        """In bursts, spread over the time in which things go wrong."""
        rng, at = self.rng, 0
        while at < len(self.stream):
            count = rng.choice((1, 10, 30, 60, 90))
            self.loop.call_outside(rng.random() * self._within_s, self._produce, count)
            at += count

    def _produce(self, count: int) -> None:
        first = len(self.stream) - self._left
        for written in self.stream[first : first + count]:
            self._left -= 1
            self.oracle.references[written.partition].take(written.rows, written.whole)
            self.broker.append(self.topics.events, written.partition, written.value, headers=written.headers)

    def _bear(self, i: int) -> None:
        """A worker process is started."""
        self._births += 1
        born = Incarnation(self, f"worker-{i}.{self._births}")
        self._processes.append(born.process)
        born.process.skew_s = self._skews_s[i]
        self.nodes[i] = born
        born.process.died = lambda: self._died(i, born)
        self.trace(born.process.name, "starts")

    def _died(self, i: int, dead: Incarnation) -> None:
        self.trace(dead.process.name, "is dead")
        self.loop.call_outside(0.2 + self.rng.random(), self.group.leave, dead)
        self.loop.call_outside(0.1 + self.rng.random() * 1.5, self._bear, i)

    def reached(self, name: str) -> None:
        """A failpoint."""
        process = current()
        assert process is not None
        if name in self._points:
            self._points.remove(name)
            self.trace(process.name, f"is killed at {name!r}")
            process.kill()
        process.step()
        if greenlet.getcurrent().parent is not None and self.rng.random() < 0.5:
            pause(self.rng.random() * 0.02)

    def _start_follower(self) -> None:
        process = self.process("server")
        process.call(self._follow)

    def _follow(self) -> None:
        """As a server does: what it answers with never goes backwards, and is what counts."""
        last = 0
        try:
            client = LogClient(BROKER, self.topics.models)
            client.catch_up()
            while True:
                head = client.head
                if head is not None:
                    wanted = self.oracle.heads.get(client.fold.head_at)
                    if wanted is None or (wanted.id, wanted.number, wanted.offsets) != (
                        head.id, head.number, head.offsets,
                    ):  # fmt: skip
                        raise Violation(f"a server follows version {head.number} ({head.id}), which does not count")
                    if head.number < last:
                        raise Violation(f"a server went back from version {last} to {head.number}")
                    last = head.number
                    self._following = (client.fold.head_at, head.number)
                pause(0.5)
                client.poll(0.5)
        except Violation as violation:
            self.oracle.violation = self.oracle.violation or violation
        except (KafkaError, StreamAppError):
            self.loop.call_outside(1.0, self._start_follower)

    def _followed(self) -> bool:
        head = self.oracle.head
        return head is not None and self._following is not None and self._following[1] == head.number

    # --- what befalls it --------------------------------------------------------------------------------

    def _calm(self) -> None:
        """No more faults."""
        self._quiet = True
        self._points = []
        self.disk.full = False
        self.broker.lost_answers = 0.0
        self.broker.out_until_s = 0.0
        for node in self.nodes:
            if node is not None:
                node.process.dies_at_step = -1
                if node.process.frozen:
                    self._thaw(node)
        self.trace("world", "no more faults")

    def _befall(self, fault: Fault) -> None:
        self.trace("world", f"{fault.kind} {fault.value:.3f} {fault.point if fault.kind == 'kill_point' else ''}")
        node = self.nodes[fault.node % len(self.nodes)]
        alive = node if node is not None and node.process.alive else None
        match fault.kind:
            case "kill" if alive:
                alive.process.kill()
            case "kill_step" if alive:
                alive.process.dies_at_step = alive.process.steps + 1 + int(fault.value * 150)
            case "kill_point":
                self._points.append(fault.point)
            case "freeze" if alive:
                self._freeze(alive, 0.1 + 4.0 * fault.value**2)
            case "stop" if alive:
                alive.process.spawn(alive._or_die(alive.end()))
            case "power":
                self._lose_power()
            case "outage":
                self.broker.out_until_s = self.loop.time() + 3.0 * fault.value
            case "lost":
                self.broker.lost_answers = 0.1 + 0.4 * fault.value
                self.loop.call_outside(1.0 + fault.value, self._found)
            case "rebalance":
                self.group.rebalance()
            case "full":
                self.disk.full = True
                self.loop.call_outside(2.0 * fault.value, self._freed)
            case "tamper" | "remove":
                self._spoil(fault)
            case "clock":
                self._jump(fault)
            case "trim":
                self._delay_one(fault)
            case "rollback" | "promotion" | "pin":
                self.process(fault.kind).call(lambda: self._operate(fault))

    def _delay_one(self, fault: Fault) -> None:
        """An announcement comes a second time, far too late; later the models log is trimmed to begin with it."""
        log, counted = self.broker.topics[self.topics.models].logs[0], sorted(self.oracle.heads)
        if len(counted) > 1:
            late = log.records[counted[int(fault.value * (len(counted) - 1))]]
            self._trim(self.broker.append(self.topics.models, 0, late.value))
        elif not self._quiet:
            self.loop.call_outside(0.5, self._delay_one, fault)

    def _trim(self, begin: int) -> None:
        """The models log, once enough versions have counted since."""
        if sum(at > begin for at in self.oracle.heads) < 3:
            self.loop.call_outside(0.2, self._trim, begin)
            return
        log = self.broker.topics[self.topics.models].logs[0]
        log.begin = max(log.begin, begin)
        self._start_follower()

    def _freeze(self, node: Incarnation, seconds: float) -> None:
        node.process.frozen = True
        session_s = 0.5 + self.rng.random()
        self.loop.call_outside(session_s, self._expel, node)
        self.loop.call_outside(seconds, self._thaw, node)

    def _expel(self, node: Incarnation) -> None:
        if node.process.frozen:
            self.group.leave(node)

    def _thaw(self, node: Incarnation) -> None:
        if node.process.frozen:
            node.process.thaw()
            self.loop.call_outside(self.rng.random() * 1.5, self.group.join, node)

    def _lose_power(self) -> None:
        for node in self.nodes:
            if node is not None:
                node.process.kill()
        self.disk.lose_power()

    def _found(self) -> None:
        self.broker.lost_answers = 0.0

    def _freed(self) -> None:
        self.disk.full = False

    def _jump(self, fault: Fault) -> None:
        i = fault.node % len(self.nodes)
        self._skews_s[i] += (fault.value - 0.5) * 2_000.0
        node = self.nodes[i]
        if node is not None:
            node.process.skew_s = self._skews_s[i]

    def _spoil(self, fault: Fault) -> None:
        """The head's file; while there is another to go back to."""
        head = self.oracle.head
        if head is None or head.number < 3:
            if not self._quiet:
                self.loop.call_outside(1.0, self._spoil, fault)
            return
        path = f"{ROOT}/{head.artefact}"
        before = self.disk.get(path)
        if before is None:
            return
        others = [p for p in self.disk.files if p != path and self._readable(p)]
        if fault.kind == "remove" or not others:
            self.disk.remove(path)
        elif fault.value < 0.5:
            self.disk.change(path, self.disk.files[self.rng.choice(others)].data)
        else:
            self.disk.change(path, _changed(before, self.rng))
        if not any(self._readable(p) for p in self.disk.files):
            self.disk.put(path, before)
            return
        for node in self.nodes:
            if node is not None and fault.value < 0.7:  # somebody will want to read it
                node.process.kill()

    def _readable(self, path: str) -> bool:
        """Whether a file is a whole version."""
        data, name = self.disk.files[path].data, path.rpartition("/")[2]
        ours = path.startswith(f"{ROOT}/{stored.FOLDER}/")
        if not ours or not name.startswith(hashlib.sha256(data).hexdigest()[:16]):
            return False
        try:
            Files(self.disk.get).whole(path, data)
        except RegistryError:
            return False
        return True

    def _operate(self, fault: Fault) -> None:
        """Somebody decides something, with the product's own means."""
        client = None
        try:
            client = LogClient(BROKER, self.topics.models)
            client.catch_up()
            history = [e for _, e in client.fold.history]
            if len(history) < 2:
                return
            old = history[int(fault.value * (len(history) - 1))]
            if fault.kind == "promotion":
                self._promote(client, old)
                return
            operator = operate.Operator(
                client, Registry(ROOT), lambda *_: None, by="somebody",
                inline_bytes=self.spec.publish.inline_bytes, clock=self._wall_s,
            )  # fmt: skip
            if fault.kind == "pin":
                operator.pin(old.id, "because")
            else:
                operator.adopt(old, "because")
        except (KafkaError, StreamAppError) as error:
            self.trace(fault.kind, f"{type(error).__name__}: {error}")
        except Killed:
            raise
        except Exception as error:
            self.failed(error)

    def _promote(self, client: LogClient, old: Any) -> None:
        """As the tuner does: a challenger with its own offsets, in a new epoch."""
        head = client.head
        assert head is not None
        registry = Registry(ROOT)
        data = holding.whole(old, None, registry)
        held = holding.held(old, data, registry)
        wish = msgspec.structs.replace(held, parent=head.id, epoch=head.epoch + 1)
        client.announce("promotion", wish, b"", inline_bytes=self.spec.publish.inline_bytes)


def _changed(data: bytes, rng: random.Random) -> bytes:
    """With one bit of an array flipped, so that it can still be parsed."""
    start, end = rng.choice([s for s in spans(data) if s[0] < s[1]])
    at = rng.randrange(start, end) % len(data)  # a file of parts begins like the whole, but lacks some of it
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

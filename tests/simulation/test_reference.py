"""The join written down twice says the same twice, of streams with everything in them."""

import random

from simulation import stream
from simulation.kafka import Record
from simulation.learner import LedgerLearner
from simulation.patches import installed
from simulation.reference import WORD, Reference
from simulation.world import World
from stream_app.learn import Core


def test_the_core_learns_what_the_reference_says() -> None:
    spec = World(0).spec
    for seed in range(15):
        rng = random.Random(seed)
        references, logs = [Reference(), Reference()], ([], [])
        for written in stream.stream(rng, 400, 2):
            log = logs[written.partition]
            references[written.partition].take(written.rows, written.whole)
            log.append(Record(len(log), 1_000_000_000_000, written.value, None, written.headers))
        learner = LedgerLearner(spec)
        with installed():
            core = Core(spec, learner)
            core.start({0: 0, 1: 0})
            for p, log in enumerate(logs):
                for at in range(0, len(log), 70):
                    core.take(p, log[at : at + 70])
        last = [r.points[-1] for r in references]
        assert [(core.partitions[p].count, core.partitions[p].xor) for p in (0, 1)] == [(x.count, x.xor) for x in last]
        assert int(learner.state()["sum"][0]) == sum(x.sum for x in last) & WORD
        assert (core.counts["dead_letters"], core.counts["events"]) == (
            sum(x.bad for x in last),
            sum(x.events for x in last),
        )


def test_streams_have_everything_in_them() -> None:
    rows, learned = list[stream.Row | None](), 0
    for seed in range(10):
        reference = Reference()
        for written in stream.stream(random.Random(seed), 400, 1):
            reference.take(written.rows, written.whole)
            rows += written.rows
        learned += reference.points[-1].count
    known = [r for r in rows if r is not None]
    featured = [r.id for r in known if r.time_s is not None]
    assert len(rows) > len(known)  # poison
    assert any(r.time_s is not None and r.target is not None for r in known)
    assert len(set(featured)) < len(featured)  # the same example again
    assert 500 < learned < len(featured)  # labels that never come, or too late

"""Mistakes made on purpose in the product's own code: a simulation that misses one of them is worth little.

Each is what an honest programmer might have written: a check left out, two steps in the wrong order, something that
was forgotten.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import msgspec
import numpy as np

from stream_app import join, learn, logclient, modellog, outbox, registry, replay, seed, versions, worker
from stream_app.modellog import Announcement, Envelope

Plant = Callable[[], Any]
_real_take = learn.Core.take
_real_announce = seed.Seeder._announce
_real_counts = modellog.Fold.counts
_real_said = replay.Reader.said
_real_positions = worker.Worker.positions
_real_pairs = join.LabelJoin.take


def announced_before_durable() -> Any:
    """Rule 14: the announcement goes out while the artefact is still being written."""
    real = registry.Registry.write

    def publish(
        self: seed.Seeder, taken: Any, parent: Envelope, predictions_from: Any, *, between: bool = False, **more: Any
    ) -> Any:
        later: list[Any] = []

        def write(mine: registry.Registry, folder: str, suffix: str, data: bytes) -> Any:
            import hashlib

            digest = hashlib.sha256(data).hexdigest()
            later.append((mine, folder, suffix, data))
            return registry.Artefact(f"{folder}/{digest[:16]}{suffix}", digest, len(data))

        with mock.patch.object(registry.Registry, "write", write):
            made = self._write(taken, parent, parent.epoch, predictions_from, between=between)
        won = _real_announce(self, "version", *made, between=between)
        for given in later:
            real(*given)
        assert self._log.head is not None
        return self._log.head, won

    return mock.patch.object(seed.Seeder, "publish", publish)


def folder_not_synced() -> Any:
    """A rename counts as durable before its folder was synced."""

    def write(path: Any, data: bytes) -> None:
        temporary = path.with_name(f".{path.name}.{registry.secrets.token_hex(4)}")
        with temporary.open("wb") as file:
            file.write(data)
            registry.os.fsync(file.fileno())
        temporary.replace(path)

    return mock.patch.object(registry, "_write_local", write)


def parent_not_checked() -> Any:
    """Rule 14: any version of the head's epoch counts, whatever it was learned on."""

    def counts(self: modellog.Fold, record: Announcement) -> bool:
        if record.kind == "version" and self.head is not None:
            return record.envelope.epoch == self.head.epoch
        return _real_counts(self, record)

    return mock.patch.object(modellog.Fold, "counts", counts)


def not_read_back() -> Any:
    """Rule 15: a version that was acknowledged is taken for the head."""

    def propose(self: logclient.LogClient, wish: Announcement, timeout_s: float = 30.0) -> bool:
        at = self._try_append(wish)
        if at is None:
            return False
        self.fold.head = msgspec.structs.replace(
            wish.envelope, number=self.fold.head.number + 1 if self.fold.head else 1
        )
        self.fold.head_at = at
        return True

    return mock.patch.object(logclient.LogClient, "propose", propose)


def records_ahead_accepted() -> Any:
    """Rule 6: what comes from beyond the expected offset is taken for what comes next."""

    def take(self: learn.Core, partition: int, records: Any, *, more: bool = False) -> Any:
        state = self.partitions.get(partition)
        if state is not None and records and records[0].offset > state.expected:
            _real_take(self, partition, ())
            state.next_offset = records[0].offset
        return _real_take(self, partition, records, more=more)

    return mock.patch.object(learn.Core, "take", take)


def records_behind_accepted() -> Any:
    """Rule 6: what comes from before the expected offset is learned again."""

    def take(self: learn.Core, partition: int, records: Any, *, more: bool = False) -> Any:
        state = self.partitions.get(partition)
        if state is not None and records and records[0].offset < state.expected:
            state.held.clear()
            state.next_offset = records[0].offset
        return _real_take(self, partition, records, more=more)

    unchecked = mock.patch.object(learn.Core, "take", take)
    return _both(unchecked, mock.patch.object(worker.Worker, "take", _unguarded_take(worker.Worker.take)))


def _unguarded_take(real: Any) -> Any:
    async def take(self: worker.Worker, partition: int, records: Any, *, more: bool = False) -> None:
        state = self._core.partitions.get(partition) if self._core else None
        if state is not None and records[-1].offset < state.expected:
            async with self._lock:
                if self._core is not None:
                    taken = await self._learn(lambda: self._core.take(partition, records))  # type: ignore[union-attr]
                    await self._carry_away(partition, taken)
            return
        await real(self, partition, records, more=more)

    return take


@contextmanager
def _both(*patches: Any) -> Iterator[None]:
    with patches[0], patches[1]:
        yield


def predictions_after_version() -> Any:
    """Rule 8: nobody waits for the predictions to be acknowledged."""

    async def acknowledged(under_way: outbox.UnderWay) -> None:
        for s in under_way.sent:
            if s.ack.done() and not s.ack.exception():
                under_way.trails[s.partition].add(s.ack.result().offset, s.last_event)
        return None

    return mock.patch.object(worker, "acknowledged", acknowledged)


def strangers_not_minded() -> Any:
    """Rule 9: another worker's predictions between ours are passed over."""

    async def acknowledged(under_way: outbox.UnderWay) -> None:
        for s in under_way.sent:
            under_way.trails[s.partition].add((await s.ack).offset, s.last_event)
        return None

    return mock.patch.object(worker, "acknowledged", acknowledged)


def last_prediction_counts() -> Any:
    """Rule 9: of several answers to a row, the last one is scored."""

    def said(self: replay.Reader, topic: str, partition: int, start: int) -> Any:
        recorded, trail = _real_said(self, topic, partition, start)
        start = max(start, self.begin(topic, partition))
        for record in self.range(topic, partition, start, trail.next_offset):
            block, _ = replay.decode_block(record.value or b"")
            recorded.update(block.rows())
        return recorded, trail

    return mock.patch.object(replay.Reader, "said", said)


def predictions_not_read() -> Any:
    """Rule 9: a seed does not look at what was said already."""

    def said(self: replay.Reader, topic: str, partition: int, start: int) -> Any:
        return {}, _real_said(self, topic, partition, start)[1]

    return mock.patch.object(replay.Reader, "said", said)


def done_ids_forgotten() -> Any:
    """Rule 2: an id is forgotten as soon as it was learned."""

    def take(self: join.LabelJoin, columns: Any, rows: Any) -> Any:
        found = _real_pairs(self, columns, rows)
        ids = join._COUNTS.index("ids")
        for slot in np.flatnonzero(self._table["there"] & self._table["done"]).tolist():
            join._remove(self._table, self._places, slot)
            self._table["there"][slot] = False
            self._free[len(self._table) - self._counts[ids]] = slot
            self._counts[ids] -= 1
        return found

    return mock.patch.object(join.LabelJoin, "take", take)


def replay_passes_done() -> Any:
    """Rule 4: ``replay_from`` passes over ids that are done."""

    def replay_from(self: join.LabelJoin, next_offset: int) -> tuple[int, float]:
        there = np.flatnonzero(self._table["there"] & ~self._table["done"])
        if not len(there):
            return next_offset, self.clock_s
        oldest = self._table[there[self._table["first_at"][there].argmin()]]
        return int(oldest["first_at"]), float(oldest["clock_s"])

    return mock.patch.object(join.LabelJoin, "replay_from", replay_from)


def replay_passes_waiting() -> Any:
    """Rule 4: ``replay_from`` passes over an example that waits for its label."""

    def replay_from(self: join.LabelJoin, next_offset: int) -> tuple[int, float]:
        first = sorted(self._table["first_at"][self._table["there"]].tolist())
        return (first[1] if len(first) > 1 else next_offset), self.clock_s

    return mock.patch.object(join.LabelJoin, "replay_from", replay_from)


def clock_of_now() -> Any:
    """Rule 4: a replay begins with the clock as it is when the version is made."""
    real = join.LabelJoin.replay_from

    def replay_from(self: join.LabelJoin, next_offset: int) -> tuple[int, float]:
        return real(self, next_offset)[0], self.clock_s

    return mock.patch.object(join.LabelJoin, "replay_from", replay_from)


def wall_clock_expires() -> Any:
    """Rule 1: what waits expires by the wall clock."""

    def take(self: join.LabelJoin, columns: Any, rows: Any) -> Any:
        self._clocks_s[0] = max(self._clocks_s[0], worker.time.time())
        return _real_pairs(self, columns, rows)

    return mock.patch.object(join.LabelJoin, "take", take)


def last_label_counts() -> Any:
    """Rule 3: a later label of a waiting example replaces the first."""

    def take(self: join.LabelJoin, columns: Any, rows: Any) -> Any:
        if len(self):
            for i, (first, second) in enumerate(columns.ids.hashes(self._key)):
                slot = self._places[join._place_of(self._table, self._places, first, second)]
                entry = self._table[slot]
                known = slot >= 0 and not entry["done"] and not np.isnan(entry["label_time_s"])
                if known and not np.isnan(columns.target[i]):
                    entry["target"] = columns.target[i]
        return _real_pairs(self, columns, rows)

    return mock.patch.object(join.LabelJoin, "take", take)


def gained_without_seeding() -> Any:
    """Rule 12: a partition that is gained is read on from where it was left."""

    async def positions(self: worker.Worker, partitions: set[int]) -> Mapping[int, int]:
        if self._core is None or not partitions:
            return await _real_positions(self, partitions)
        async with self._lock:
            self._mine = partitions
            return {p: s.expected for p, s in self._core.partitions.items() if p in partitions}

    return mock.patch.object(worker.Worker, "positions", positions)


def hash_not_checked() -> Any:
    """What is read is believed, whatever its hash."""
    from stream_app import artefacts

    def checked(path: str, data: bytes, sha256: str) -> bytes:
        return data

    return _both(mock.patch.object(registry, "checked", checked), mock.patch.object(artefacts, "checked", checked))


def loser_goes_on() -> Any:
    """Rule 10: whoever lost the race goes on with what it had, on top of the rival's version."""
    real = seed.Seeder.publish

    def publish(self: seed.Seeder, taken: Any, *given: Any, **more: Any) -> Any:
        return real(self, taken, *given, **more)[0], True

    return mock.patch.object(seed.Seeder, "publish", publish)


def trimmed_log_taken_as_is() -> Any:
    """Rule 16: a reader takes the first version that it sees in a trimmed log for the head."""

    def adopt(self: modellog.Fold, record: Any) -> None:
        if isinstance(record, Announcement):
            self.head, self.head_at = record.envelope, -1

    return mock.patch.object(modellog.Fold, "_adopt_parent", adopt)


def restored_with_heads_offsets() -> Any:
    """Rule 18: what can be read still is taken for the head as it was, and what lies between is never learned."""

    def restore(self: seed.Seeder, envelope: Envelope) -> bool:
        head = self._log.head
        assert head is not None
        return _real_restore(self, msgspec.structs.replace(envelope, offsets=head.offsets, ledger=head.ledger))

    return mock.patch.object(seed.Seeder, "_restore", restore)


_real_restore = seed.Seeder._restore


def contiguity_not_checked() -> Any:
    """Rule 13: what was learned is merged with a head that has moved the same partitions."""
    return mock.patch.object(worker.Worker, "_contiguous", lambda self, newest, head: newest.epoch == head.epoch)


def epoch_not_checked() -> Any:
    """Rule 10: what was learned is merged with a head of another epoch."""

    def contiguous(self: worker.Worker, newest: Envelope, head: Envelope) -> bool:
        assert self._core is not None
        return all(newest.offsets.get(p) == head.offsets[p] for p in self._core.partitions)

    return mock.patch.object(worker.Worker, "_contiguous", contiguous)


def merged_with_old_base() -> Any:
    """The base that two have in common is not moved on after a merge: what came before is added twice."""

    def stand_on(self: worker.Worker, version: learn.Version) -> None:
        self._head = version.envelope
        self._base = self._base or (version if version.envelope.offsets.keys() - self._mine else None)

    return mock.patch.object(worker.Worker, "_stand_on", stand_on)


def heads_offsets_win() -> Any:
    """A version that is made beside others says of its own partitions, too, what the head says."""
    real = versions.beside

    def beside(own: Any, head: Envelope) -> Any:
        return real(own, head)._replace(offsets=own.offsets | head.offsets)

    return mock.patch.object(versions, "beside", beside)


PLANTED: dict[str, Plant] = {
    f.__name__: f
    for f in (
        announced_before_durable,
        folder_not_synced,
        parent_not_checked,
        not_read_back,
        records_ahead_accepted,
        records_behind_accepted,
        predictions_after_version,
        strangers_not_minded,
        last_prediction_counts,
        predictions_not_read,
        done_ids_forgotten,
        replay_passes_done,
        replay_passes_waiting,
        clock_of_now,
        wall_clock_expires,
        last_label_counts,
        gained_without_seeding,
        hash_not_checked,
        loser_goes_on,
        trimmed_log_taken_as_is,
        restored_with_heads_offsets,
        contiguity_not_checked,
        epoch_not_checked,
        merged_with_old_base,
        heads_offsets_win,
    )
}

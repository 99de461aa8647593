"""Reading back what the topics remember: [events, predictions] -> join state, replay windows, calibration rows."""

import logging
from collections.abc import Iterator
from typing import Any

import kafka
import numpy as np

from models.features import FeatureEncoder
from models.hashes import HashedEncoder
from models.measure import Examples
from models.spec import ModelSpec
from stream_app import kafka_clients
from stream_app.codecs.mixed import Codec
from stream_app.columns import ROW_BITS, split
from stream_app.errors import BrokerError
from stream_app.events import Topics
from stream_app.join import NO_ROW, LabelJoin
from stream_app.learn import Core
from stream_app.modellog import Envelope
from stream_app.predictions import Said, Trail, decode_block
from stream_app.topics import beginning_offsets, end_offsets

log = logging.getLogger("stream_app.replay")

FARTHEST_BACK = 8192
"""Records of the predictions topic that are searched for labelled examples; each speaks of up to a fetch's events."""
SILENCE_S = 20.0
"""A broker that delivers nothing for so long, though more is there, is given up."""


class Reader:
    """Reads ranges of a topic's partitions, outside any consumer group."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._consumer = kafka_clients.consumer(
            bootstrap_servers,
            auto_offset_reset="earliest",  # of a range that was deleted in part, the rest still counts
            fetch_max_wait_ms=100,
            max_poll_records=5000,
            max_partition_fetch_bytes=4 << 20,
        )

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[list[Any]]:
        """Records with start <= offset < end, in order, in batches.

        Raises:
            BrokerError: the broker does not deliver them.
        """
        tp = kafka.TopicPartition(topic, partition)
        self._consumer.assign([tp])
        self._consumer.seek(tp, start)
        position, silent_s = start, 0.0
        while position < end:
            batch = self._consumer.poll(timeout_ms=500).get(tp, [])
            silent_s = 0.0 if batch else silent_s + 0.5
            if silent_s > SILENCE_S:
                raise BrokerError(
                    f"{topic}/{partition}: nothing came for {SILENCE_S:g} s at offset {position}, wanted up to {end}"
                )
            batch = [r for r in batch if position <= r.offset < end]
            position = max(position, int(self._consumer.position(tp)))
            if batch:
                yield batch

    def range(self, topic: str, partition: int, start: int, end: int) -> list[Any]:
        return [r for batch in self.read(topic, partition, start, end) for r in batch]

    def first(self, topic: str, partition: int, start: int) -> int | None:
        """Offset of the first record at or after ``start``; None if there is none yet."""
        end = self.end(topic, partition)
        batch = next(self.read(topic, partition, start, end), None) if start < end else None
        return batch[0].offset if batch else None

    def end(self, topic: str, partition: int) -> int:
        return end_offsets(self._bootstrap_servers, topic)[partition]

    def begin(self, topic: str, partition: int) -> int:
        return beginning_offsets(self._bootstrap_servers, topic)[partition]

    def said(self, topic: str, partition: int, start: int) -> tuple[dict[int, Said], Trail]:
        """What the predictions topic says from ``start`` to its end; per event, the first record counts."""
        recorded: dict[int, Said] = {}
        start = max(start, self.begin(topic, partition))
        end = self.end(topic, partition)
        trail = Trail(end)
        for record in self.range(topic, partition, start, end):
            try:
                block, _ = decode_block(record.value or b"")
            except ValueError:
                log.warning("%s/%d@%d holds no predictions; passed over", topic, partition, record.offset)
                continue
            for offset, said in block.rows():
                recorded.setdefault(offset, said)
            trail.add(record.offset, split(int(block.positions[-1]))[0])
        trail.next_offset = end
        return recorded, trail

    def close(self) -> None:
        self._consumer.close()


def rebuild(core: Core, envelope: Envelope, reader: Reader, topics: Topics) -> dict[int, Trail]:
    """Give a core that was loaded from ``envelope`` back what waited for labels (rules 5, 9)."""
    trails = {}
    for p in core.partitions:
        recorded, trails[p] = reader.said(topics.predictions, p, envelope.predictions_from.get(p, 0))
        core.rebuild(p, remembered(reader, topics, envelope, p), recorded)
    return trails


def remembered(reader: Reader, topics: Topics, envelope: Envelope, partition: int) -> Iterator[list[Any]]:
    """The records from which a version's join is rebuilt, in batches."""
    end = envelope.offsets[partition]
    start, _ = envelope.replay_from.get(partition, (end, 0.0))
    return reader.read(topics.events, partition, start, end)


def recent_examples(spec: ModelSpec, reader: Reader, topics: Topics, envelope: Envelope, rows: int) -> Examples:
    """About the newest ``rows`` labelled examples that a version has learned, oldest first."""
    found: list[Examples] = []
    for p, next_offset in envelope.offsets.items():
        share, back = max(1, rows // len(envelope.offsets)), 32
        end = reader.end(topics.predictions, p)
        while True:
            start = max(0, end - back)
            recorded, _ = reader.said(topics.predictions, p, start)
            first = split(min(recorded, default=next_offset << ROW_BITS))[0]
            records = reader.range(topics.events, p, first, next_offset) if first < next_offset else []
            examples = _joined(spec, records, recorded)
            if len(examples.target) >= share or start == 0 or back >= FARTHEST_BACK:
                break
            back *= 4
        found.append(examples.part(slice(-share, None)))
    columns = zip(*found, strict=True)
    return Examples(*(np.concatenate(column) for column in columns))


def _joined(spec: ModelSpec, records: list[Any], recorded: dict[int, Said]) -> Examples:
    columns, _ = Codec(spec).decode(records)
    numbered = np.where(np.isnan(columns.time_s), NO_ROW, np.arange(len(columns.ids)))
    pairs = LabelJoin(spec.label.wait_s).take(columns, numbered)
    positions = columns.positions[pairs.rows].tolist()
    known = np.array([p in recorded for p in positions], np.bool_)
    rows = pairs.rows[known]
    raw = HashedEncoder(spec).raw(columns.numeric[rows], columns.hashes[rows], columns.lengths[rows])
    rates = [recorded[p].rates for p in positions if p in recorded]
    rate_columns = np.stack(rates) if rates else np.zeros((0, FeatureEncoder(spec).rates.columns), np.float32)
    target, weights = (c[known].astype(np.float32) for c in (pairs.target, pairs.weight))
    return Examples(np.concatenate([raw.numeric, rate_columns], axis=1), raw.categories, target, weights)

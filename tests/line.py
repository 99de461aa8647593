"""A worker without Faust: the same seeder and core, driven by hand, so that tests decide what happens when."""

from pathlib import Path

from models.spec import ModelSpec
from stream_app import kafka_clients, versions
from stream_app.events import Topics
from stream_app.modellog import Envelope
from stream_app.predictions import encode_blocks
from stream_app.registry import Registry
from stream_app.replay import Reader
from stream_app.seed import OnMismatch, Seeded, Seeder
from stream_app.topics import create_topics
from tests import streams


class Line:
    """One model's topics, registry and a hand-driven worker."""

    def __init__(self, bootstrap_servers: str, spec: ModelSpec, folder: Path) -> None:
        self.spec, self.bootstrap_servers = spec, bootstrap_servers
        self.topics = Topics.of(spec.name)
        self.registry = Registry(str(folder / "registry"))
        self.reader = Reader(bootstrap_servers)
        self._seeders: list[Seeder] = []
        create_topics(
            bootstrap_servers,
            spec.name,
            partitions=spec.stream.partitions,
            retention_s=86_400,
            max_record_bytes=65_536,
        )

    def recreate(self, *topics: str, partitions: int = 2) -> None:
        """Delete topics and create them anew, under the same names, empty."""
        with kafka_clients.admin(self.bootstrap_servers) as client:
            client.delete_topics(list(topics))
        create_topics(
            self.bootstrap_servers, self.spec.name, partitions=partitions, retention_s=86_400, max_record_bytes=65_536
        )

    def seeder(self, on_mismatch: OnMismatch = "refuse", spec: ModelSpec | None = None) -> Seeder:
        self._seeders.append(
            Seeder(
                spec or self.spec,
                bootstrap_servers=self.bootstrap_servers,
                registry=self.registry,
                on_mismatch=on_mismatch,
            )
        )
        return self._seeders[-1]

    def learn(self, seeded: Seeded, up_to: dict[int, int] | None = None) -> None:
        """Take everything that the events topic has (or records before ``up_to``), and log what was said."""
        for p, state in seeded.core.partitions.items():
            end = up_to[p] if up_to else self.reader.end(self.topics.events, p)
            if state.next_offset < end:
                records = self.reader.range(self.topics.events, p, state.next_offset, end)
                blocks = seeded.core.take(p, records).predictions
                self.say(p, encode_blocks(blocks, seeded.head.id))

    def say(self, partition: int, values: list[bytes]) -> None:
        streams.produce_raw(self.bootstrap_servers, self.topics.predictions, partition, values)

    def publish(self, seeder: Seeder, seeded: Seeded) -> tuple[Envelope, bool]:
        taken = versions.snapshot(seeded.core)
        return seeder.publish(taken, seeded.head, dict.fromkeys(seeded.core.partitions, 0))

    def close(self) -> None:
        for seeder in self._seeders:
            seeder.close()
        self.reader.close()

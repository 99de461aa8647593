"""SIGTERM in the middle of a backlog: what was learned is published, the rest is the successor's."""

from pathlib import Path

from stream_app.agents import STOP_S
from stream_app.events import Topics
from stream_app.logclient import LogClient
from stream_app.topics import create_topics, end_offsets
from tests import streams
from tests.processes import Process, head, wait_until

EXAMPLES, PARTITIONS = 8_000, 2
SLOWLY = "batch_records = 1\n"
"""Some hundred records a second: the backlog lasts."""


def test_a_worker_that_is_stopped_within_a_backlog_publishes_and_ends(
    bootstrap_servers: str, app_name: str, tmp_path: Path
) -> None:
    quick = streams.spec_text(app_name, partitions=PARTITIONS)
    slow = quick.replace("batch_records = 32\n", SLOWLY).replace("every_s = 0.05", "every_s = 600")
    topics, spec_file = Topics.of(app_name), tmp_path / "model.toml"
    create_topics(bootstrap_servers, app_name, partitions=PARTITIONS, retention_s=86400, max_record_bytes=65536)
    stream = streams.records(EXAMPLES)
    streams.produce(bootstrap_servers, topics.events, stream)
    ends = end_offsets(bootstrap_servers, topics.events)
    flags = ("--spec", str(spec_file), "--bootstrap-servers", bootstrap_servers, "--registry", str(tmp_path / "reg"))
    log = LogClient(bootstrap_servers, topics.models)

    def learned() -> bool:
        now = head(log)
        return now is not None and sum(now.offsets.values()) > 0

    spec_file.write_text(slow)
    with Process("worker", tmp_path, *flags) as worker:
        wait_until(learned, "a first version within the backlog")  # the next would come in ten minutes
        began = head(log)
        assert worker.terminate(STOP_S) == 0, worker.output
    stopped = head(log)
    assert began is not None
    assert stopped is not None
    assert sum(began.offsets.values()) < sum(stopped.offsets.values()) < sum(ends.values())

    spec_file.write_text(quick)
    with Process("worker", tmp_path, *flags) as worker:
        wait_until(lambda: (now := head(log)) is not None and now.offsets == ends, "the rest learned")
        assert worker.terminate(STOP_S) == 0, worker.output
    final = head(log)
    assert final is not None
    assert streams.total_ledger(final.ledger) == streams.expected_ledger(stream)

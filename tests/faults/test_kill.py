"""kill -9 of the worker at every step leaves the ledger of an uninterrupted run, on every broker."""

import signal
from pathlib import Path

import pytest

from stream_app.events import Topics
from stream_app.logclient import LogClient
from stream_app.modellog import Envelope
from stream_app.topics import create_topics, end_offsets
from tests import streams
from tests.processes import Process, head, wait_until

EXAMPLES, PARTITIONS = 4_000, 2
IN_THREE_PLACES = ("taken:2", "writing:1", "written:1")
ELSEWHERE = ("written:1", "take:2", "said:1", "announced:1", "commit:1")
BESIDE_AN_OLDER_FILE = ("writing:2", "written:1", "announced:1")
IN_PARTS = "inline_bytes = 0\n"


@pytest.mark.parametrize(
    ("failpoints", "publish"),
    [(IN_THREE_PLACES, ""), (ELSEWHERE, ""), (BESIDE_AN_OLDER_FILE, IN_PARTS)],
    ids=["middle-write-announce", "elsewhere", "in-parts"],
)
def test_killed_worker_loses_nothing_and_doubles_nothing(
    bootstrap_servers: str, app_name: str, tmp_path: Path, failpoints: tuple[str, ...], publish: str
) -> None:
    text = streams.spec_text(app_name, partitions=PARTITIONS) + publish
    _kill(bootstrap_servers, text, app_name, tmp_path, failpoints)


def test_nor_does_one_that_learns_a_mixture(embedded: str, app_name: str, tmp_path: Path) -> None:
    text = streams.spec_text(app_name, partitions=PARTITIONS, learner=streams.MIXTURE)
    final = _kill(embedded, text, app_name, tmp_path, ("written:2",))
    assert sum(final.members.values()) == pytest.approx(1.0)
    assert final.metrics["log_loss"] < final.metrics["majority_log_loss"]
    assert final.metrics["skipped_steps"] == 0


def _kill(bootstrap_servers: str, spec_text: str, app_name: str, folder: Path, failpoints: tuple[str, ...]) -> Envelope:
    """Kill a worker at each point in turn; the last one learns to the end."""
    spec_file = folder / "model.toml"
    spec_file.write_text(spec_text)
    topics = Topics.of(app_name)
    create_topics(bootstrap_servers, app_name, partitions=PARTITIONS, retention_s=86400, max_record_bytes=65536)
    stream = streams.records(EXAMPLES)
    flags = ("--spec", str(spec_file), "--bootstrap-servers", bootstrap_servers, "--registry", str(folder / "reg"))

    log = LogClient(bootstrap_servers, topics.models)
    parts = _in_order(stream, len(failpoints) + 1)
    for part, failpoint in zip(parts, failpoints, strict=False):
        with Process("worker", folder, *flags, failpoint=failpoint) as worker:
            streams.produce(bootstrap_servers, topics.events, part)
            assert worker.wait() == -signal.SIGKILL, worker.output
    with Process("worker", folder, *flags) as worker:
        streams.produce(bootstrap_servers, topics.events, parts[-1])
        ends = end_offsets(bootstrap_servers, topics.events)
        final = wait_until(lambda: _at(log, ends), f"a version at {ends}: {worker.output}")
        assert worker.terminate() == 0, worker.output
    log.close()

    assert streams.total_ledger(final.ledger) == streams.expected_ledger(stream)
    assert final.metrics["events"] == EXAMPLES
    assert final.metrics["lost_predictions"] == 0
    return final


def _in_order(stream: list[dict[str, object]], parts: int) -> list[list[dict[str, object]]]:
    size = len(stream) // parts + 1
    return [stream[i : i + size] for i in range(0, len(stream), size)]


def _at(log: LogClient, ends: dict[int, int]) -> Envelope | None:
    found = head(log)
    return found if found is not None and found.offsets == ends else None

"""Rollback and pin by the commands, while a worker learns: it begins again at the head, and the ledger stays exact."""

import json
import subprocess
import sys
from pathlib import Path

from stream_app.events import Topics
from stream_app.logclient import LogClient
from stream_app.topics import create_topics, end_offsets
from tests import streams
from tests.processes import Process, head, wait_until

EXAMPLES = 1_500


def test_a_rollback_beside_a_worker_loses_nothing_and_doubles_nothing(
    bootstrap_servers: str, app_name: str, tmp_path: Path
) -> None:
    spec_file = tmp_path / "model.toml"
    spec_file.write_text(streams.spec_text(app_name, partitions=2))
    topics = Topics.of(app_name)
    create_topics(bootstrap_servers, app_name, partitions=2, retention_s=86_400, max_record_bytes=65_536)
    flags = ["--spec", str(spec_file), "--bootstrap-servers", bootstrap_servers, "--registry", str(tmp_path / "reg")]
    stream = streams.records(EXAMPLES)
    log = LogClient(bootstrap_servers, topics.models)

    def run(command: str, *more: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "stream_app", command, *flags, "--log-level", "error", *more]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    with Process("worker", tmp_path, *flags) as worker:
        streams.produce(bootstrap_servers, topics.events, stream[:1_000])
        first = wait_until(lambda: _learned(log, 200), "a version with labels")
        streams.produce(bootstrap_servers, topics.events, stream[1_000:2_000])
        wait_until(lambda: _learned(log, first.labels + 200), "more labels")
        pinned = run("pin", str(first.number), "--reason", "watching")
        assert pinned.stdout.startswith(f"version {first.number} ("), pinned.stderr
        rolled = run("rollback", "--to", first.id, "--reason", "bad labels")
        assert "is the head: what" in rolled.stdout, rolled.stderr
        streams.produce(bootstrap_servers, topics.events, stream[2_000:])
        ends = end_offsets(bootstrap_servers, topics.events)
        wait_until(lambda: head(log).offsets == ends, f"a version at {ends}: {worker.output}")  # type: ignore[union-attr]
        listed = [json.loads(line) for line in run("versions", "--json").stdout.splitlines()]
        again = run("rollback", "--to", str(listed[0]["envelope"]["number"]), "--reason", "r")
        assert worker.terminate() == 0, worker.output

    final = head(log)
    log.close()
    assert final is not None
    assert "beginning again from the head" in worker.output
    assert final.epoch == first.epoch + 1
    assert streams.total_ledger(final.ledger) == streams.expected_ledger(stream)
    assert final.metrics["events"] == EXAMPLES
    assert final.metrics["lost_predictions"] == 0
    roles = {v["envelope"]["id"]: v["roles"] for v in listed if v["roles"]}
    assert roles == {final.id: ["head"], first.id: ["pinned"]}
    assert again.returncode == 2
    assert "is the head, wanted another one" in again.stderr


def _learned(log: LogClient, labels: int):  # type: ignore[no-untyped-def]
    found = head(log)
    return found if found is not None and found.labels >= labels else None

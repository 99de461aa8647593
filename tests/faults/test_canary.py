"""A canary from import to promotion, by all the real processes; the ledger stays exact."""

import subprocess
import sys
from pathlib import Path

from stream_app import holding, stored
from stream_app.client import StreamModelClient
from stream_app.events import Topics
from stream_app.logclient import LogClient
from stream_app.registry import Registry
from stream_app.topics import create_topics, end_offsets
from tests import streams
from tests.processes import Process, head, wait_until
from tests.stream_app.test_judge import trained

EXAMPLES, TRAFFIC = 2_000, "[traffic]\nlabels = 300\n"


def test_a_canary_answers_is_judged_and_taken_up(embedded: str, app_name: str, tmp_path: Path) -> None:
    spec_file = tmp_path / "model.toml"
    sleepy = streams.spec_text(app_name).replace("[tuning]", "[optimiser]\nlearning_rate = 1e-7\n[tuning]")
    spec_file.write_text(sleepy + TRAFFIC)
    topics = Topics.of(app_name)
    create_topics(embedded, app_name, partitions=1, retention_s=86_400, max_record_bytes=65_536)
    elsewhere = Registry(str(tmp_path / "elsewhere"))
    better = trained(streams.spec(app_name), elsewhere)
    file = tmp_path / "better"
    file.write_bytes(holding.exported(elsewhere.read(better.artefact, better.sha256)))
    flags = ["--spec", str(spec_file), "--bootstrap-servers", embedded, "--registry", str(tmp_path / "registry")]
    stream = streams.records(EXAMPLES)
    log = LogClient(embedded, topics.models)

    def run(command: str, *more: str) -> None:
        argv = [sys.executable, "-m", "stream_app", command, *flags, "--log-level", "error", *more]
        subprocess.run(argv, check=True, capture_output=True, text=True)

    with (
        Process("worker", tmp_path, *flags) as worker,
        Process("judge", tmp_path, *flags) as judge,
        Process("serve", tmp_path, *flags, "--listen", "127.0.0.1:0") as server,
    ):
        streams.produce(embedded, topics.events, stream[:1_000])
        wait_until(lambda: _labels(log) > 300, "labels")
        port = wait_until(lambda: server.output.rpartition("serving on 127.0.0.1:")[2].strip(), "a server")
        run("import", str(file))
        run("canary", "--version", better.id, "--percent", "30", "--key", "c", "--reason", "better?")
        with StreamModelClient(f"127.0.0.1:{port.split()[0]}", deadline_s=20.0) as client:
            wait_until(lambda: {_asked(client, c) for c in "xyzabcdefgh"} >= {better.id}, "the canary's answer")
            assert len({_asked(client, "x") for _ in range(20)} & {better.id}) <= 1
            streams.produce(embedded, topics.events, stream[1_000:-200])
            wait_until(lambda: _labels(log) and log.head.epoch == 2, f"a promotion: {judge.output}")  # type: ignore[union-attr]
            streams.produce(embedded, topics.events, stream[-200:])
            ends = end_offsets(embedded, topics.events)
            final = wait_until(lambda: _at(log, ends), f"a version at {ends}: {worker.output}")
            wait_until(lambda: client.model().version.epoch == 2, "the promotion on the server")
        assert worker.terminate() == 0, worker.output
        assert judge.terminate() == 0, judge.output
        assert server.terminate() == 0, server.output
    assert log.fold.route is not None
    assert log.fold.route.challenger is not None
    assert log.fold.route.challenger.mode == "guard"
    log.close()
    assert streams.total_ledger(final.ledger) == streams.expected_ledger(stream)
    assert final.metrics["events"] == EXAMPLES
    assert stored.read_version(final, Registry(str(tmp_path / "registry" / app_name)))


def _labels(log: LogClient) -> int:
    found = head(log)
    return found.labels if found else 0


def _at(log: LogClient, ends: dict[int, int]):  # type: ignore[no-untyped-def]
    found = head(log)
    return found if found is not None and found.offsets == ends else None


def _asked(client: StreamModelClient, c: str) -> str:
    return client.predict([{"c": c}]).version.id

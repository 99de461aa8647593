"""A promotion while the worker learns: it begins again at the challenger's offsets, and no event is lost or doubled."""

from pathlib import Path

from stream_app.events import Topics
from stream_app.logclient import LogClient
from stream_app.topics import create_topics, end_offsets
from tests import streams
from tests.processes import Process, head, wait_until

EXAMPLES, EVERY_LABELS = 6_000, 900


def test_worker_follows_a_promotion_and_the_ledger_stays_exact(embedded: str, app_name: str, tmp_path: Path) -> None:
    text = streams.spec_text(app_name, every_labels=EVERY_LABELS)
    sleepy = text.replace("[tuning]", "[optimiser]\nlearning_rate = 1e-7\n[tuning]")
    spec_file = tmp_path / "model.toml"
    spec_file.write_text(sleepy)
    topics = Topics.of(app_name)
    create_topics(embedded, app_name, partitions=1, retention_s=86_400, max_record_bytes=65_536)
    flags = ("--spec", str(spec_file), "--bootstrap-servers", embedded, "--registry", str(tmp_path / "registry"))
    stream = streams.records(EXAMPLES)
    log = LogClient(embedded, topics.models)

    with Process("worker", tmp_path, *flags) as worker, Process("tuner", tmp_path, *flags) as tuner:
        wait_until(lambda: head(log), "a first version")
        for start in range(0, len(stream) - 500, 500):  # in pieces, so that versions lie between them
            streams.produce(embedded, topics.events, stream[start : start + 500])
            learned = start * EXAMPLES // len(stream) // 4
            wait_until(lambda learned=learned: head(log).metrics["events"] >= learned, "progress")  # type: ignore[union-attr, misc]
        wait_until(lambda: head(log).epoch > 1, f"a promotion: {tuner.output} {worker.output}")  # type: ignore[union-attr]
        streams.produce(embedded, topics.events, stream[start + 500 :])
        ends = end_offsets(embedded, topics.events)
        wait_until(lambda: head(log).offsets == ends, f"a version at {ends}: {worker.output}")  # type: ignore[union-attr]
        assert worker.terminate() == 0, worker.output
        assert tuner.terminate() == 0, tuner.output

    final = head(log)
    log.close()
    assert final is not None
    assert "beginning again from the head" in worker.output
    assert streams.total_ledger(final.ledger) == streams.expected_ledger(stream)
    assert final.metrics["events"] == EXAMPLES
    assert final.metrics["lost_predictions"] == 0

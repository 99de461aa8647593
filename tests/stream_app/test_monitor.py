"""The monitor knows what the logs say, and says so when it cannot know."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stream_app import monitor as monitors
from stream_app.broker import EmbeddedBroker, free_port
from stream_app.decisions import DecisionWriter
from stream_app.events import Topics
from stream_app.modellog import Change
from stream_app.monitor import Monitor, Seen, signalled
from stream_app.status import Mark, Pace
from tests.stream_app.heads import NOW_S, decision, head_of, metrics_of, variant_of, version
from tests.stream_app.test_lag import produce
from tests.stream_app.versions import spec_of, until, writing


@contextmanager
def watching(bootstrap_servers: str, name: str) -> Iterator[Monitor]:
    monitor = Monitor(name, "binary", bootstrap_servers=bootstrap_servers, lag_every_s=0.1)
    monitor.start()
    try:
        yield monitor
    finally:
        monitor.stop()


def learned(number: int, events: int, **changes: object) -> Change:
    head = head_of(number, metrics=metrics_of(events=events, learned=events), **changes)
    return version(head)


# Pure ---------------------------------------------------------------------------------------------


def test_pace_is_the_mean_over_the_window() -> None:
    pace = Pace(10.0)
    for second in range(30):
        pace.add(100 * second if second < 15 else 1_500 + 300 * (second - 15), NOW_S + second, second)
    assert pace.per_s(29.0) == pytest.approx(300.0, rel=0.1)


def test_pace_fades_when_nothing_comes() -> None:
    pace = Pace(10.0)
    assert pace.per_s(0.0) == 0.0
    for second in range(5):
        pace.add(100 * second, NOW_S + second, second)
    assert pace.per_s(4.5) == pytest.approx(100.0)
    assert pace.per_s(8.0) == pytest.approx(400 / 8)
    assert pace.per_s(20.0) == 0.0


def test_pace_ignores_what_was_made_earlier_and_never_falls_below_zero() -> None:
    pace = Pace(10.0)
    pace.add(500, NOW_S, 0.0)
    pace.add(900, NOW_S - 1, 0.1)
    pace.add(300, NOW_S + 1, 1.0)
    assert pace.per_s(1.0) == 0.0


def test_seen_follows_versions_variants_and_decisions() -> None:
    seen = Seen()
    seen.take(learned(1, 0), 0.0)
    seen.take(learned(2, 100), 1.0)
    head = head_of(3, metrics=metrics_of(events=250))
    seen.take(version(head), 2.0)
    seen.take(Change(4, variant_of(head), head), 2.5)
    seen.decide(decision("drift"))
    assert (seen.versions, seen.head, seen.counts["events"]) == (3, head, 250)
    assert seen.variants["int8"].inline is None
    assert (seen.began, seen.grew) == (Mark(NOW_S + 2, 100, 200), Mark(NOW_S + 3, 250, 300))
    assert seen.decision_counts == {"drift": 1}
    seen.take(learned(4, 260), 3.0)
    assert seen.variants == {}
    assert seen.int8 is not None


def test_promotion_lowers_no_count_but_a_new_beginning_does() -> None:
    seen = Seen()
    seen.take(learned(1, 500), 0.0)
    seen.take(version(head_of(2, metrics=metrics_of(events=300)), "promotion"), 1.0)
    assert seen.counts["events"] == 500
    seen.take(version(head_of(3, metrics=metrics_of(events=20)), "epoch"), 2.0)
    assert seen.counts["events"] == 20


def test_seen_keeps_the_newest_50_decisions() -> None:
    seen = Seen()
    for n in range(60):
        seen.decide(decision("tuned", n=n))
    assert len(seen.decisions) == 50
    assert seen.decisions[-1].evidence == {"n": 59}
    assert seen.decision_counts["tuned"] == 60


def test_signals_set_the_event_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with signalled() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(1.0)
    assert signal.getsignal(signal.SIGTERM) is before


# Without a broker, but for its answers ------------------------------------------------------------


class Silent:
    """A models log, or decisions, of which nothing comes."""

    begun = 0

    def __init__(self, *_: object) -> None:
        Silent.begun += 1

    def poll(self, timeout_s: float = 0.0) -> list[Change]:
        time.sleep(0.01)
        return []

    def position(self) -> int:
        return 4

    def close(self) -> None:
        pass


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What it answers: whether at all, and the end of the models log."""
    said = {"answers": True, "end": 9}
    monkeypatch.setattr(Silent, "begun", 0)
    for name in ("LogClient", "_Decisions"):
        monkeypatch.setattr(monitors, name, Silent)
    monkeypatch.setattr(monitors, "answers_metadata", lambda host, port: said["answers"])
    monkeypatch.setattr(monitors, "end_offsets", lambda servers, topic: {0: said["end"]})
    return said


def test_broker_that_dies_before_all_is_read_is_missed(broker: dict[str, Any]) -> None:
    with watching("127.0.0.1:1", "m") as monitor:
        until(lambda: Silent.begun == 2)
        assert "waiting for broker" in monitor.status().problem
        broker["answers"] = False
        until(lambda: "does not answer" in monitor.status().problem)


def test_log_that_is_emptied_before_all_is_read_is_read_anew(broker: dict[str, Any]) -> None:
    with watching("127.0.0.1:1", "m") as monitor:
        until(lambda: Silent.begun == 2)
        broker["end"] = 5
        until(lambda: "m.models: ends at 5, wanted 9 as before: it lost its log" in monitor.status().problem)
        until(lambda: Silent.begun == 4)


# With a broker ------------------------------------------------------------------------------------


def test_status_shows_what_the_topics_hold(bootstrap_servers: str, app_name: str) -> None:
    topics, decisions = Topics.of(app_name), None
    with writing(bootstrap_servers, spec_of(app_name)) as writer:
        produce(bootstrap_servers, topics, 50)
        writer.version(0.4)
        with watching(bootstrap_servers, app_name) as monitor:
            until(lambda: monitor.status().lag)
            head = writer.version(0.6)
            writer.client.append(variant_of(head))
            decisions = DecisionWriter(bootstrap_servers, topics.decisions)
            decisions.decide("drift", 2, {"worse": True})
            decisions.close()
            until(lambda: monitor.status().decisions and monitor.status().variants)
            writer.route(pinned=head)
            until(lambda: monitor.status().routed == "version 2 is pinned")
            status = monitor.status()
    assert (status.head, status.versions, status.problem) == (head, 2, "")
    assert status.lag is not None
    assert (status.lag.lag_events, status.max_lag_events) == (10, 10)
    assert status.decisions[0].evidence == {"worse": True}
    assert status.decision_counts == {"drift": 1}
    assert status.staleness_s is not None
    assert status.broker_silence_s < 5.0


def test_broker_goes_and_comes_back_empty(app_name: str) -> None:
    port = free_port()
    servers = f"127.0.0.1:{port}"
    with watching(servers, app_name) as monitor:
        assert f"broker {servers!r}" in monitor.status().problem
        with (
            EmbeddedBroker(port) as broker,
            writing(broker.bootstrap_servers, spec_of(app_name)) as writer,
        ):
            produce(servers, Topics.of(app_name), 50)
            head = writer.version(0.4)
            until(lambda: monitor.status().lag)
        until(lambda: "does not answer" in monitor.status().problem)
        gone = monitor.status()
        assert (gone.head, gone.lag) == (head, None)
        until(lambda: monitor.status().broker_silence_s > gone.broker_silence_s)
        with EmbeddedBroker(port):
            until(lambda: f"topic '{app_name}.models'" in monitor.status().problem)
            assert monitor.status().head == head


def test_recreated_topic_is_a_problem_not_a_number(embedded: str, app_name: str) -> None:
    with writing(embedded, spec_of(app_name)) as writer:
        produce(embedded, Topics.of(app_name), 50)
        writer.version(0.4, topic_ids={f"{app_name}.events": "another"})
        with watching(embedded, app_name) as monitor:
            until(lambda: "created anew" in monitor.status().problem)
            assert monitor.status().lag is None
            writer.version(0.5, topic_ids={})
            until(lambda: monitor.status().lag)
            assert monitor.status().problem == ""


def test_error_nobody_thought_of_is_survived(
    embedded: str, app_name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("oops")

    with writing(embedded, spec_of(app_name)) as writer:
        produce(embedded, Topics.of(app_name), 50)
        writer.version(0.4)
        with monkeypatch.context() as patched, caplog.at_level(logging.ERROR):
            patched.setattr(monitors, "lag", fail)
            monitor = Monitor(app_name, "binary", bootstrap_servers=embedded, lag_every_s=0.1)
            monitor.start()
            until(lambda: "the monitor failed with ZeroDivisionError" in monitor.status().problem)
        until(lambda: monitor.status().lag)
        monitor.stop()
    assert not [t for t in threading.enumerate() if t.name == "monitor"]


def test_command_logs_lines_serves_metrics_and_ends_on_sigterm(embedded: str, app_name: str, tmp_path: Path) -> None:
    spec = tmp_path / "model.toml"
    spec.write_text(
        f'name = "{app_name}"\ntask = "binary"\n[label]\nname = "y"\nclasses = [0, 1]\n[features.numeric]\nx = {{}}\n'
    )
    command = [sys.executable, "-m", "stream_app", "monitor", "--spec", str(spec)]
    command += ["--bootstrap-servers", embedded, "--prometheus", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for text in process.stderr:
            if "metrics on http://127.0.0.1:" in text:
                break
        process.terminate()
        process.stderr.read()
        assert process.wait(10) == 0

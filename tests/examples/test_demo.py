"""The demo's judgement: what it still waits for, what it writes down, what it calls wrong."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka.errors import KafkaTimeoutError
from rich.console import Console

from examples.flights import demo
from examples.flights.demo import (
    FLIGHTS,
    LABELS,
    Answer,
    failures,
    missing,
    summarise,
)
from stream_app.status import Mark, Status
from tests.stream_app.heads import NOW_S, decision, lag_of, metrics_of, status_of

RIVER: dict[str, Any] = {
    "auc": 0.4,
    "accuracy": 0.5,
    "log_loss": 0.6,
    "labels": LABELS,
    "done": True,
}
ANSWER = Answer("flight", 9, "int8", 0.25)


def finished(**changes: Any) -> Status:
    status = status_of()
    assert status.head is not None
    metrics = metrics_of(rows=40, events=FLIGHTS, learned=LABELS, dead_letters=3)
    head = msgspec.structs.replace(status.head, metrics=metrics, labels=LABELS)
    return msgspec.structs.replace(
        status,
        head=head,
        counts=dict(metrics),
        lag=lag_of(0),
        began=Mark(NOW_S, 1_000, 2_000),
        grew=Mark(NOW_S + 100.0, FLIGHTS, demo.RECORDS),
        decision_counts={"tuned": 2, "quantised": 3, "promoted": 1, "drift": 4},
        **changes,
    )


def summary_of(status: Status) -> dict[str, Any]:
    return summarise(status, RIVER, ANSWER, seconds=123.456)


def test_summary_has_exactly_these_keys() -> None:
    summary = summary_of(finished())
    names = """events labels events_per_s records_per_s auc accuracy log_loss window baselines versions
        retunes promotions quantisations int8 max_lag_events final_lag_events dead_letters drifts
        ledger seconds grpc"""
    assert list(summary) == names.split()
    three = {"auc", "accuracy", "log_loss"}
    assert set(summary["window"]) == three
    assert {name: set(f) for name, f in summary["baselines"].items()} == dict.fromkeys(
        ("majority", "nochange", "river_logistic"), three
    )
    assert set(summary["int8"]) == {
        *("bytes", "fp32_bytes", "runtime", "batch"),
        *("latency_us", "fp32_latency_us", "loss_delta", "served"),
    }
    assert summary["grpc"] == {"version": 9, "variant": "int8", "probability": 0.25}
    assert summary["ledger"] == {"0": [3, "0000000000000005"]}
    json.dumps(summary)


def test_summary_counts() -> None:
    summary = summary_of(finished())
    assert (summary["events"], summary["labels"]) == (FLIGHTS, LABELS)
    assert summary["events_per_s"] == round((FLIGHTS - 1_000) / 100, 1)
    assert summary["records_per_s"] == round((demo.RECORDS - 2_000) / 100, 1)
    assert (summary["retunes"], summary["promotions"], summary["quantisations"]) == (2, 1, 3)
    assert (summary["final_lag_events"], summary["dead_letters"]) == (0, 3)
    assert summary["int8"]["loss_delta"] == pytest.approx(0.0001)
    assert summary["baselines"]["river_logistic"]["auc"] == 0.4
    assert summary["seconds"] == 123.5


def test_variant_that_was_never_attached_is_taken_from_the_decision() -> None:
    measured = {"bytes": 1, "fp32_bytes": 4, "batch": 1, "latency_us": 9.0, "fp32_latency_us": 8.0}
    evidence = measured | {"runtime": "onnxruntime", "loss_delta": 0.01, "served": False}
    status = finished(int8=None, decisions=(decision("quantised", of_version=7, attached=False, **evidence),))
    assert summary_of(status)["int8"] == evidence


def test_nothing_is_wrong_with_a_true_summary() -> None:
    assert failures(summary_of(finished())) == []


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("events", 336_775, "events is 336775, wanted 336776"),
        ("labels", 327_347, "labels is 327347, wanted 327346"),
        ("dead_letters", 2, "dead_letters is 2, wanted 3"),
        ("final_lag_events", None, "final_lag_events is None, wanted 0"),
        ("auc", 0.4, "auc is 0.4, wanted River's 0.4 + 0.01 or more"),
        ("auc", 0.4099, "auc is 0.4099, wanted River's 0.4 + 0.01 or more"),
        ("auc", float("nan"), "auc is nan, wanted River's 0.4 + 0.01 or more"),
        ("auc", None, "auc is None, wanted River's 0.4 + 0.01 or more"),
    ],
)
def test_wrong_figures_are_named(name: str, value: Any, wanted: str) -> None:
    assert failures(summary_of(finished()) | {name: value}) == [wanted]


def test_lead_that_is_just_enough() -> None:
    assert failures(summary_of(finished()) | {"auc": 0.4101}) == []


def test_what_is_not_known_is_shown_as_a_dash() -> None:
    """A run may be wrong in any way: its figures are shown, so that what is wrong is said."""
    status = msgspec.structs.replace(finished(int8=None), began=None, grew=None, lag=None)
    summary = summarise(status, {}, None, seconds=1.0)
    console = Console(width=100)
    with console.capture() as table:
        console.print(demo._table(summary))
    [river] = [line for line in table.get().splitlines() if "river" in line]
    assert river.split() == ["│", "river_logistic", "│", "-", "│", "-", "│", "-", "│"]
    told = "\n".join(demo._told(summary, None))
    assert "labels at - flights/s (- records/s)" in told
    assert "Lag -, at most" in told
    assert "int8: - bytes (fp32 -), - us (-), log-loss -; not served." in told
    assert failures(summary) == ["final_lag_events is None, wanted 0", "auc is 1.0, wanted River's None + 0.01 or more"]


def test_broker_that_goes_silent_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def play(*_: Any, **__: Any) -> int:
        raise KafkaTimeoutError("no answer to a fetch")

    monkeypatch.setattr(demo, "FOLDER", tmp_path / "runs" / "demo")
    monkeypatch.setattr(demo, "_play", play)
    assert demo.main() == 1
    assert capsys.readouterr().err.startswith("demo: KafkaTimeoutError: no answer to a fetch\ndemo: logs are in ")


def test_nothing_is_missing_at_the_end() -> None:
    assert missing(finished(), RIVER, {"records": demo.RECORDS}) == []


def test_everything_is_missing_at_the_beginning() -> None:
    left = missing(Status(name="flights", task="binary", at_s=NOW_S), {}, {})
    assert left == [
        "the end of the stream",
        "336,776 flights to be learned from",
        "lag to become 0, it is unknown",
        "a retuning",
        "the first challenger's fate",
        "2 quantisations, there were 0",
        "the last version's quantisation",
        "River, at 0 of 327,346 labels",
    ]


def test_last_version_is_waited_for_until_it_was_judged() -> None:
    refused = decision("quantised", of_version=7, attached=False)
    earlier = decision("quantised", of_version=6, attached=False)
    produced = {"records": demo.RECORDS}
    assert missing(finished(variants=(), decisions=(earlier, refused)), RIVER, produced) == []
    assert missing(finished(variants=(), decisions=(refused, earlier)), RIVER, produced) == [
        "the last version's quantisation"
    ]


def test_unfinished_files_are_empty_figures(tmp_path: Path) -> None:
    assert demo.read_json(tmp_path / "river.json") == {}
    assert demo._as_flight(b"\xff not JSON") == {}
    assert demo._as_flight(b'{"id": "a", "label": 1}') == {}
    assert demo._as_flight(b'{"id": "a", "features": {}}') == {"id": "a", "features": {}}

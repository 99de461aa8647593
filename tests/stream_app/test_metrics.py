"""What Prometheus reads is the status of that moment."""

import math
import re
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stream_app import metrics
from stream_app.errors import SettingsError
from stream_app.metrics import DECISION_KINDS, families, serve_metrics
from stream_app.modellog import Route
from stream_app.status import Status
from tests.stream_app.heads import NOW_S, head_of, status_of
from tests.stream_app.versions import challenger_of


def scraped(status: Status) -> dict[tuple[str, ...], float]:
    """(name, label values ...) -> value, through HTTP and Prometheus' own parser."""
    with serve_metrics("127.0.0.1:0", lambda: status) as server:
        text = urllib.request.urlopen(server.url, timeout=5).read().decode()
    return {
        (s.name, *s.labels.values()): s.value for family in text_string_to_metric_families(text) for s in family.samples
    }


def test_head_counts_and_lag_are_there() -> None:
    got = scraped(status_of())
    wanted = {
        ("stream_app_lag_events", "0"): 40,
        ("stream_app_lag_events", "1"): 2,
        ("stream_app_end_offset", "0"): 1_040,
        ("stream_app_model_offset", "0"): 1_000,
        ("stream_app_committed_offset", "0"): 990,
        ("stream_app_max_lag_events",): 99,
        ("stream_app_events_total",): 1_050,
        ("stream_app_labels_total",): 1_000,
        ("stream_app_dead_letters_total",): 3,
        ("stream_app_drifts_total",): 2,
        ("stream_app_events_per_second",): 1_234,
        ("stream_app_version",): 7,
        ("stream_app_epoch",): 2,
        ("stream_app_staleness_seconds",): 2,
        ("stream_app_broker_silence_seconds",): 0.5,
        ("stream_app_problem",): 0,
        ("stream_app_waiting",): 50,
        ("stream_app_window_scored_labels",): 40,
        ("stream_app_decisions_total", "drift"): 1,
        ("stream_app_decisions_total", "tuned"): 0,
        ("stream_app_form_size_bytes", "int8"): 20_000,
        ("stream_app_form_latency_seconds", "fp32"): 20e-6,
        ("stream_app_int8_served",): 1,
        ("stream_app_importance", "rates(origin, hour)"): 0.02,
        ("stream_app_member_weight", "forest"): 0.75,
        ("stream_app_model", "flights", "binary"): 1,
    }
    assert {key: got.get(key) for key in wanted} == wanted
    assert ("stream_app_committed_offset", "1") not in got
    for name in ("auc", "window_auc", "pr_auc", "macro_f1", "log_loss", "window_log_loss", "calibration_error"):
        assert 0.0 <= got[(f"stream_app_{name}",)] <= 1.0


@pytest.mark.parametrize(("task", "measure"), [("regression", "window_mae"), ("multiclass", "macro_f1")])
def test_other_tasks_have_their_own(task: str, measure: str) -> None:
    got = scraped(status_of(task))
    assert math.isfinite(got[(f"stream_app_{measure}",)])
    assert ("stream_app_pr_auc",) not in got


def test_classes_are_labelled() -> None:
    got = scraped(status_of())
    wanted = {"labels": 1_000, "said": 800, "precision": 0.5, "recall": 0.4, "f1": 8 / 18}
    assert {name: got[(f"stream_app_class_{name}", "k1")] for name in wanted} == pytest.approx(wanted)
    assert not [key for key in scraped(status_of("regression")) if key[0].startswith("stream_app_class")]


def test_unknown_lag_is_absent() -> None:
    got = scraped(status_of(lag=None, problem="topic was created anew"))
    assert got[("stream_app_problem",)] == 1
    assert not [key for key in got if key[0] in ("stream_app_lag_events", "stream_app_end_offset")]


def test_no_version_yet() -> None:
    got = scraped(Status(name="flights", task="binary", at_s=NOW_S, problem="waiting"))
    assert got[("stream_app_problem",)] == 1
    assert ("stream_app_version",) not in got


def test_every_name_is_given_once() -> None:
    names = [family.name for family in families(status_of())]
    assert len(set(names)) == len(names)
    assert all(name.startswith("stream_app_") for name in names)


@pytest.mark.parametrize("listen", ["9464", "host:", ":9464", "127.0.0.1:99999"])
def test_wrong_address_is_named(listen: str) -> None:
    with pytest.raises(SettingsError, match=f"prometheus is '{listen}', wanted HOST:PORT"):
        serve_metrics(listen, status_of)


def test_taken_port_is_named() -> None:
    with (
        serve_metrics("127.0.0.1:0", status_of) as first,
        pytest.raises(SettingsError, match=r"wanted a free HOST:PORT \(Address already in use\)"),
    ):
        serve_metrics(f"127.0.0.1:{first.port}", status_of)


def test_what_is_pinned_or_tried_is_a_number() -> None:
    names = [("stream_app_pinned_version",), ("stream_app_challenger_version",)]
    pinned = Route(after=-1, pinned=head_of(3), created_s=0.0)
    tried = Route(after=-1, challenger=challenger_of(head_of(4)), created_s=0.0)
    for route, wanted in ((None, [0, 0]), (pinned, [3, 0]), (tried, [0, 4])):
        got = scraped(status_of(route=route))
        assert [got[name] for name in names] == wanted


def test_the_kinds_of_decisions_shown_at_zero_are_those_that_someone_writes() -> None:
    package = Path(metrics.__file__).parent
    writers = "".join(
        (package / f"{name}.py").read_text()
        for name in ("worker", "outbox", "tune", "compress", "operate", "serve", "letters")
    )
    told = re.search(r'kind: str\n    """([^"]*)"""', (package / "events.py").read_text())
    assert told is not None
    assert set(" ".join(told[1].split()).split(" | ")) == set(DECISION_KINDS)
    assert [kind for kind in DECISION_KINDS if f'"{kind}"' not in writers] == []

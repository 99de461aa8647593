import json
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import _page, accuracy
from bench._peers import PEERS, Standing, measure, read
from bench._streams import DEVELOPMENT, STREAMS, Row, Stream, StreamError
from bench._versus import RegressionVersus, Versus, regression_versus, standing, summary, versus

LR = next(peer for peer in PEERS if peer.name == "LR")


class Frequencies:
    """Answers with how often each class came: a learner simple enough to know its figures."""

    def __init__(self, stream: Stream, seed: int) -> None:
        self._counts: dict[int, float] = {}
        self._mean = stream.task == "regression"

    def predict_one(self, x: Row) -> dict[int, float] | float:
        return 1.0 if self._mean else dict(self._counts)

    def learn_one(self, x: Row, y: float) -> None:
        self._counts[int(y)] = self._counts.get(int(y), 0.0) + 1

    def predict_many(self, rows: Sequence[Row]) -> list[dict[int, float] | float]:
        return [self.predict_one(x) for x in rows]

    def learn_many(self, rows: Sequence[Row], labels: Sequence[float]) -> None:
        for x, y in zip(rows, labels, strict=True):
            self.learn_one(x, y)

    def regret(self) -> float:
        return 0.5


def stream(labels: Sequence[int] = (0, 0, 0, 1) * 20) -> Stream:
    rows: list[Row] = [{"a": float(y)} for y in labels]
    return Stream("Phishing", "classification", rows, list(labels), ("0", "1"))


def compared(**figures: float | str | None) -> Versus:
    values = {
        "rows": 9_000,
        "accuracy": 90.0,
        "log_loss": 0.3,
        "best_peer": "ARF",
        "best_peer_accuracy": 88.0,
        "best_log_loss_peer": "AMF",
        "best_peer_log_loss": 0.4,
        "batch32_accuracy": 89.0,
        "batch32_delay_accuracy": 89.5,
        "events_per_cpu_s": 8_000.0,
        "per_event_per_cpu_s": 2_000.0,
        "arf_events_per_cpu_s": 1_000.0,
        "mixture_regret": 0.001,
    }
    return Versus(**(values | figures))


def test_a_stream_is_set_beside_the_best_peer() -> None:
    results = [measure(LR, stream(), input_="scaled", seed=0)]
    found = versus(stream(), results, Frequencies)
    assert found.best_peer == found.best_log_loss_peer == "LR"
    assert found.best_peer_accuracy == results[0].accuracy
    assert found.accuracy == 73.75  # all but the first event and the rare class
    assert found.batch32_accuracy == found.batch32_delay_accuracy == 45.0  # nothing is known in the first 32
    assert found.mixture_regret == 0.5 / 80
    assert found.events_per_cpu_s > 0


def test_a_stream_without_peers_has_no_best_one() -> None:
    found = versus(stream(), [], Frequencies)
    assert (found.best_peer, found.best_peer_log_loss, found.margin) == (None, None, None)


def test_a_regression_wins_below_the_best_peer_and_the_last_value() -> None:
    numbers = Stream("TrumpApproval", "regression", [{"a": 0.0}] * 40, [1.0, 1.5] * 20)
    results = [measure(peer, numbers, input_="raw", seed=0) for peer in PEERS if peer.name in ("NoChange", "Majority")]
    found = regression_versus(numbers, results, Frequencies)
    assert found.mae == 0.25
    assert found.best_peer == "Majority"
    assert found.last_value_mae == pytest.approx(0.5125)
    assert found.wins


def test_held_back_streams_are_counted_by_themselves() -> None:
    found = {"Phishing": compared(accuracy=10.0), "letter": compared(), "ring": compared(accuracy=87.8)}
    answer = summary(found, {})
    assert answer["held_back"] == {
        "wins": 1,
        "of": 2,
        "worst_margin": -0.2,
        "mean_margin": 0.9,
        "too_far_behind": 0,
        "log_loss_wins": 2,
    }
    assert answer["development"]["worst_margin"] == -78.0


def test_a_short_stream_may_fall_further_behind() -> None:
    assert standing([compared(accuracy=87.2)])["too_far_behind"] == 1
    assert standing([compared(accuracy=87.2, rows=1_797)])["too_far_behind"] == 0


def test_speeds_batches_and_regret_are_those_of_all_streams() -> None:
    found = {"Phishing": compared(), "SEA": compared(events_per_cpu_s=32_000.0, mixture_regret=0.004)}
    answer = summary(found, {})
    assert answer["speed_geomean_vs_arf"] == 16.0
    assert answer["speed_min_vs_arf"] == 8.0
    assert answer["batch_worst_loss"] == 0.5
    assert answer["batch_worst_loss_undelayed"] == 1.0
    assert answer["mixture_regret_max"] == 0.004


def test_the_page_has_a_line_for_each_stream() -> None:
    found = {"Phishing": compared(), "letter": compared(best_peer=None, best_peer_accuracy=None)}
    regressions = {
        "Mine": RegressionVersus(
            rows=5, mae=0.5, best_peer="AMF", best_peer_mae=0.6, last_value_mae=0.7, wins=True, events_per_cpu_s=9.0
        )
    }
    page = _page.page(summary(found, regressions), found, regressions)
    assert "| Phishing | 9,000 | 90.0 | 88.0 ARF | +2.0 | 0.300 | 0.400 AMF | 89.0 | 89.5 | 8,000 | 8.0 |" in page
    assert "| **letter** |" in page
    assert "held back" not in page  # no peer played them
    assert "| Mine | 5 | 0.500 | 0.600 AMF | 0.700 | 9 |" in page


def test_the_page_says_what_came_of_what_was_held_back() -> None:
    found = {"letter": compared(), "ring": compared(accuracy=87.5)}
    page = _page.page(summary(found, {}), found, {})
    assert "\n1 of 2 streams, by +0.8 points on average and -0.5 at worst;\n" in page


def test_a_regression_without_peers_wins_nothing() -> None:
    numbers = Stream("Mine", "regression", [{"a": 0.0}] * 4, [1.0] * 4)
    assert not regression_versus(numbers, [], Frequencies).wins


def test_the_picture_shows_us_and_the_peers_that_played_all_streams() -> None:
    found = {"Phishing": compared(), "SEA": compared()}
    never = Standing("NoChange", 50.0, 9.0, None, 1e6)
    arf, lr = Standing("ARF", 88.0, 0.4, None, 900.0), Standing("LR", 80.0, 0.5, None, 90_000.0)
    points = _page.points(found, {"Phishing": [arf, lr, never], "SEA": [arf, never]})
    assert [p.name for p in points] == ["mixture, per event", "mixture, batches of 32", "ARF"]
    svg = ElementTree.fromstring(_page.picture(points))
    assert len([e for e in svg.iter() if e.tag.endswith("circle")]) == 3


def test_names_that_would_cover_each_other_move_apart() -> None:
    same = [_page.Point(name, 90.0, 1_000.0, False) for name in ("ARF", "AMF", "kNN")]
    svg = ElementTree.fromstring(_page.picture([*same, _page.Point("LR", 80.0, 10.0, False)]))
    texts = {e.text: (e.get("x"), e.get("y")) for e in svg.iter() if e.text in ("ARF", "AMF", "kNN")}
    assert len(set(texts.values())) == 3


def test_each_result_is_in_the_file_and_not_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    runs = accuracy.runs_of([stream()], [LR])
    found = accuracy.measured(runs, label_delay=0, path=path)
    assert len(json.loads(path.read_text())) == len(found) == 2
    assert accuracy.lacking(runs, read(path), label_delay=0) == []
    assert accuracy.lacking(runs, read(path)[:1], label_delay=0) == runs[1:]


def test_another_label_delay_is_another_result() -> None:
    runs = accuracy.runs_of([stream()], [LR])
    assert accuracy.lacking(runs, accuracy.measured(runs, label_delay=5), label_delay=0) == runs


def test_peers_are_measured_group_by_group_the_cheap_ones_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench._streams.EVENTS", 5)
    runs = accuracy.in_order(["TrumpApproval", "SEA", "Phishing"], [PEERS[0], LR])
    order = list(dict.fromkeys((stream_.name, peer.name) for stream_, peer, *_ in runs))
    assert order == [
        ("Phishing", "NoChange"),
        ("Phishing", "LR"),
        ("TrumpApproval", "NoChange"),
        ("TrumpApproval", "LR"),
        ("SEA", "NoChange"),
        ("SEA", "LR"),
    ]


def test_a_stream_sorted_by_class_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    accuracy.warn_if_sorted(stream([0] * 50 + [1] * 50))
    assert "Phishing looks sorted by class" in capsys.readouterr().err
    accuracy.warn_if_sorted(stream())
    assert capsys.readouterr().err == ""


def test_a_file_of_ones_own_says_what_was_guessed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("a,b,y\n1,x,no\n2,y,yes\n3,x,\n")
    assert accuracy.from_csv(path, "y", None).classes == ("no", "yes")
    said = capsys.readouterr().err
    assert "2 rows, 2 classes; numeric: a; text: b; without a label and left out: 1" in said


def test_unknown_peers_are_refused() -> None:
    with pytest.raises(StreamError, match=r"peers \['XGB'\] are not known, wanted some of NoChange, Majority, LR"):
        accuracy.chosen_peers("LR, XGB")


def test_a_library_that_is_not_there_is_said_and_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench._peers.find_spec", lambda name: None if name == "capymoa" else name)
    assert all(peer.library == "river" for peer in accuracy.that_can_run(PEERS))
    assert capsys.readouterr().err.startswith("capymoa is not installed, its peers are left out")


def test_all_streams_are_played_unless_fewer_are_asked_for() -> None:
    assert accuracy.parse([]).streams == list(STREAMS)
    assert accuracy.parse(["--development"]).streams == list(DEVELOPMENT)
    assert accuracy.parse(["--streams", "SEA,LED"]).streams == ["SEA", "LED"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [(["--stream", "a.csv"], "--stream and --label go together"), (["--label-delay", "-1"], "is -1, wanted 0 or more")],
)
def test_options_that_do_not_fit_are_refused(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        accuracy.parse(argv)
    assert message in capsys.readouterr().err

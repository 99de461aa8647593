from pathlib import Path

import pytest

from bench import _peers
from bench._peers import PEERS, SHORT, Result, Scaled, add, measure, prepared, read, runs, standings
from bench._streams import Stream


def result(peer: str = "LR", input_: str = "raw", seed: int = 0, **figures: float | None) -> Result:
    values = {"accuracy": 90.0, "log_loss": 0.3, "mae": None} | figures
    return Result(
        stream="s", peer=peer, input=input_, seed=seed, rows=9, events_per_cpu_s=5.0, version="river 1", **values
    )


def small(task: str = "classification") -> Stream:
    rows = [{"a": float(i % 7), "b": "xyz"[i % 3]} for i in range(60)]
    return Stream("s", task, rows, [i % 3 for i in range(60)], ("0", "1", "2") if task == "classification" else ())


LR, HAT = (next(peer for peer in PEERS if peer.name == name) for name in ("LR", "HAT"))
RIVER = [peer for peer in PEERS if peer.library == "river"]


@pytest.mark.parametrize(("peer", "task"), [(peer, task) for peer in RIVER for task in peer.tasks])
def test_every_peer_plays_a_stream_with_text(peer: _peers.Peer, task: str) -> None:
    stream = prepared(small(task), peer)
    for input_ in peer.inputs:
        found = measure(peer, stream, input_=input_, seed=1)
        assert (found.accuracy is None) == (task == "regression")
        assert (found.mae is None) == (task == "classification")
        assert found.rows == 60
        assert found.version.startswith("river ")


@pytest.mark.parametrize("name", ["AMF", "kNN", "ARF"])
def test_the_same_seed_gives_the_same_result(name: str) -> None:
    peer = next(p for p in PEERS if p.name == name)
    one, other = (measure(peer, prepared(small(), peer), input_="raw", seed=3) for _ in range(2))
    assert (one.accuracy, one.log_loss) == (other.accuracy, other.log_loss)


def test_a_peer_that_overflows_has_no_figures() -> None:
    class Overflows:
        def predict_one(self, x: object) -> float:
            raise OverflowError

        learn_one = predict_one

    peer = _peers.Peer("x", "river", ("regression",), lambda stream, seed: Overflows())
    assert measure(peer, small("regression"), input_="raw", seed=0).mae is None


def test_the_last_value_is_the_label_before() -> None:
    last = next(p for p in PEERS if p.name == _peers.LAST_VALUE)
    stream = Stream("s", "regression", [{"a": 0.0}] * 3, [4.0, 6.0, 5.0])
    assert measure(last, stream, input_="raw", seed=0).mae == pytest.approx((4 + 2 + 1) / 3, abs=1e-4)


def test_gaps_are_filled_with_the_last_value() -> None:
    stream = Stream("s", "classification", [{"a": 1.0}, {"b": "x"}, {"a": 2.0}], [0, 1, 0], ("0", "1"))
    assert prepared(stream, HAT).rows == [{"a": 1.0, "b": ""}, {"a": 1.0, "b": "x"}, {"a": 2.0, "b": "x"}]


def test_text_becomes_one_column_per_value() -> None:
    rows = prepared(small(), LR).rows
    assert rows[1] == {"a": 1.0, "b=x": 0.0, "b=y": 1.0, "b=z": 0.0}


def test_numbers_are_scaled_and_text_passes() -> None:
    seen: list[object] = []

    class Sees:
        def predict_one(self, x: object) -> float:
            return 0.0

        def learn_one(self, x: object, y: float) -> None:
            seen.append(x)

    scaled = Scaled(Sees())
    for a in (1.0, 3.0):
        scaled.learn_one({"a": a, "b": "x"}, 0)
    assert seen == [{"a": 0.0, "b": "x"}, {"a": 1.0, "b": "x"}]


def test_only_peers_that_draw_lots_and_only_short_streams_have_several_seeds() -> None:
    long = Stream("s", "classification", [{"a": 0.0}] * SHORT, [0] * SHORT, ("0", "1"))
    assert len(runs(small(), [HAT])) == 10
    assert len(runs(long, [HAT])) == 2
    assert len(runs(small(), [LR])) == 2


def test_results_are_kept_sorted_one_a_line_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "results" / "peers.json"
    for found in (result("LR"), result("ARF"), result("LR", accuracy=80.0)):
        add(found, path)
    assert [(r.peer, r.accuracy) for r in read(path)] == [("ARF", 90.0), ("LR", 80.0)]
    assert len(path.read_text().splitlines()) == 4


def test_no_file_is_no_results(tmp_path: Path) -> None:
    assert read(tmp_path / "peers.json") == []


def test_the_better_input_counts_for_each_figure_and_the_median_of_the_seeds() -> None:
    results = [result(seed=i, accuracy=a) for i, a in enumerate((70.0, 95.0, 80.0))]
    results.append(result(input_="scaled", accuracy=60.0, log_loss=0.1))
    (peer,) = standings(results)
    assert peer.accuracy == 80.0
    assert peer.log_loss == 0.1


def test_the_smaller_error_counts_in_a_regression() -> None:
    figures = {"accuracy": None, "log_loss": None}
    (peer,) = standings([result(mae=3.0, **figures), result(input_="scaled", mae=2.0, **figures)])
    assert peer.mae == 2.0


def test_a_peer_that_diverged_is_not_in_the_standings() -> None:
    assert standings([result(accuracy=None, log_loss=None)]) == []

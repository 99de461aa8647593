"""The live view says what the status says, in 100 columns and 30 rows."""

import io
import re
import threading
from typing import Any

import pytest
from rich.console import Console

from stream_app.dashboard.view import Frame, line, lines, render, show
from stream_app.modellog import ClassScore, Route
from stream_app.status import ProcessStatus, Status
from tests.stream_app.heads import NOW_S, classes_of, decision, head_of, lag_of, status_of
from tests.stream_app.versions import challenger_of

RIVER: dict[str, Any] = {
    "auc": 0.7361,
    "accuracy": 0.7858,
    "log_loss": 0.4872,
    "window": {"auc": 0.7315, "accuracy": 0.7194, "log_loss": None},
}


def drawn(frame: Frame, width: int = 100) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(render(frame))
    return console.export_text()


def test_everything_is_shown_and_fits() -> None:
    processes = [
        ProcessStatus("worker", "running", 1, 0),
        ProcessStatus("tuner", "waiting", None, 2),
    ]
    text = drawn(Frame(status_of(), {"River": RIVER}, processes, "42 s"))
    for wanted in (
        "flights · binary · version 7 · epoch 2 · 2.0 s old",
        "42 s",
        "1,050 at 1,234/s",
        "2,468/s",
        "tuned-at-40000",
        "200,000 events",
        "42 (most 99)",
        "40 of 1,040",
        "20.0 kB",
        "10.0 µs",
        "answers now",
        "tuner waiting (2 restarts)",
    ):
        assert wanted in text, wanted
    assert re.search(r"River +0\.4872 +- +0\.7361 +0\.7858 +- +- +│", text)
    assert "matters distance 0.031 · rates(origin, hour) 0.020 · feature0 0.010 · " in text
    assert re.search(r"waiting for labels +50", text)
    assert re.search(r"dead letters +3", text)
    assert re.search(r"drift +v7 +worse True +level 0\.25", text)
    assert len(text.splitlines()) <= 30
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("task", "titles"),
    [("multiclass", ("log-loss", "calib.", "acc.", "macro-F1")), ("regression", ("MAE", "RMSE", "R²"))],
)
def test_other_tasks_show_their_own_measures(task: str, titles: tuple[str, ...]) -> None:
    text = drawn(Frame(status_of(task)))
    assert all(title in text for title in titles)
    assert "AUC" not in text
    assert titles[0] in line(status_of(task))


def test_many_classes_are_cut_short() -> None:
    head = head_of(7, classes=classes_of(20))
    status = status_of("multiclass", head=head)
    text = drawn(Frame(status))
    assert "labels: k0 20,000 F1 0.0385 · k1 19,000 F1 0.0404" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "k4 16,000 F1 0.0476 · 15 more" in line(status)
    long = head_of(7, classes=(ClassScore(name="x" * 500, support=1.0, said=0.0, right=0.0),))
    assert "x" * 20 + " 1 F1 0.0000" in line(status_of(head=long))


def test_nothing_is_known_yet() -> None:
    status = Status(name="flights", task="binary", at_s=NOW_S, problem="waiting for broker 'x'")
    text = drawn(Frame(status))
    assert "no version yet" in text
    assert "waiting for broker 'x'" in text
    assert line(status) == "flights: no version yet; waiting for broker 'x'"


def test_problem_is_said_instead_of_lag() -> None:
    status = status_of(lag=None, problem="topic 'flights.events': was created anew")
    text = drawn(Frame(status))
    assert "was created anew" in text
    assert "unknown" in text
    assert "lag unknown" in line(status)
    assert "PROBLEM: topic 'flights.events': was created anew (age 2 s)" in line(status)


def test_many_partitions_are_summed_up() -> None:
    text = drawn(Frame(status_of(lag=lag_of(*range(100, 140)))))
    assert "37 more" in text
    assert len(text.splitlines()) <= 30


def test_only_the_newest_decisions_are_shown() -> None:
    kinds = ("tuned", "kept")
    decisions = tuple(decision(kinds[n % 2], loss=n) for n in range(50))
    text = drawn(Frame(status_of(decisions=decisions)))
    assert "loss 49" in text
    assert "loss 44" in text
    assert "loss 43" not in text


def test_decisions_of_one_kind_in_a_row_take_one_row() -> None:
    decisions = (decision("tuned", loss=1), *(decision("drift", mean=n) for n in range(20)))
    text = drawn(Frame(status_of(decisions=decisions)))
    assert re.search(r"tuned +v7 +loss 1", text)
    assert re.search(r"drift +v7 +mean 19  \(the last of 20\)", text)
    assert "mean 18" not in text


def test_one_line_says_the_main_things() -> None:
    text = lines(Frame(status_of(), {"River": RIVER}, [ProcessStatus("serve", "refused", None, 0)]))
    assert text.startswith("flights v7 epoch 2; 1,050 events, 1,234/s, lag 42; log-loss ")
    assert re.search(r"; calib\. [0-9.]+ \(window [0-9.]+\); AUC ", text)
    assert "; labels k0 2,000 F1 0.2857 · k1 1,000 F1 0.4444; 1 drift, 1 promoted" in text
    assert text.endswith("; River log-loss 0.4872; serve refused")
    assert "\n" not in text


def test_what_is_pinned_or_tried_is_said() -> None:
    pinned = status_of(route=Route(after=-1, pinned=head_of(3), created_s=NOW_S))
    tried = status_of(route=Route(after=-1, challenger=challenger_of(head_of(4), percent=5.0), created_s=NOW_S))
    for status, text in ((pinned, "version 3 is pinned"), (tried, "version 4 is out as canary, 5 % of calls")):
        assert text in drawn(Frame(status))
        assert f"; {text}" in line(status)
    assert status_of(route=Route(after=-1, created_s=NOW_S)).routed == ""


def test_without_a_terminal_lines_come_at_once_and_then_every_few_seconds() -> None:
    out, stop, asked = io.StringIO(), threading.Event(), []

    def frame() -> Frame:
        asked.append(1)
        if len(asked) == 2:
            stop.set()
        return Frame(status_of())

    show(frame, stop, console=Console(file=out, width=40), every_s=60.0)
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().startswith("flights v7")


@pytest.mark.parametrize("text", ["[fe80::1]:9092", "a [/x] b", "[bold]x", "a:key:9092"])
def test_brackets_and_colons_are_shown_as_they_are(text: str) -> None:
    """Rich takes them for markup and emoji, where it gets a str: a lone "[/x]" ended the process."""
    head = head_of(7, reference=text[:20])
    counts = {text[:12]: 1}
    status = status_of(head=head, problem=text, decisions=(decision(text, said=text),), decision_counts=counts)
    frame = Frame(status, {text: RIVER}, [ProcessStatus(text, "running", 1, 0)], text)
    assert drawn(frame).count(text) >= 5
    assert text[:20] in drawn(frame)
    out, stop = io.StringIO(), threading.Event()
    stop.set()
    show(lambda: frame, stop, console=Console(file=out, width=40))
    assert out.getvalue() == f"{lines(frame)}\n"


def test_on_a_terminal_the_picture_is_redrawn() -> None:
    out, stop, asked = io.StringIO(), threading.Event(), []

    def frame() -> Frame:
        asked.append(1)
        if len(asked) == 2:
            stop.set()
        return Frame(status_of())

    show(frame, stop, console=Console(file=out, width=100, height=30, force_terminal=True))
    assert "predict, then learn" in out.getvalue()
